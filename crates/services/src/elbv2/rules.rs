//! Rules: create, describe, modify, delete, and their priorities.

use std::collections::BTreeMap;

use api::elbv2::*;
use domain::{
    Arn,
    balancing::{self, Listener},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    actions, conditions, find,
    listeners::of_default_rule,
    names::{SERVICE, arn, invalid, page, required, tags, unsupported},
    network,
};
use crate::Call;

/// The most rules of a load balancer, without the defaults.
pub(super) const MAX_RULES: usize = 100;

pub(super) async fn create(call: Call, input: CreateRuleInput) -> Result<CreateRuleOutput, ServiceError> {
    let listener = arn(&call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&listener])?;
    if input.transforms.is_some_and(|transforms| !transforms.is_empty()) {
        return Err(unsupported("Transforms"));
    }
    let priority = priority(required(input.priority, "A priority")?)?;
    let conditions = conditions::parse(input.conditions)?;
    let action = actions::parse(&call, input.actions)?;
    let tags = tags(input.tags)?;
    let now = auth.now();
    let rule = auth
        .transact(|tx| {
            let owner = find::listener(tx, listener.as_str())?;
            let load_balancer = find::load_balancer(tx, owner.load_balancer.as_str())?;
            network::refuse_rules(&load_balancer)?;
            let existing = find::rules_of(tx, &listener);
            if existing.iter().any(|rule| rule.priority == priority) {
                return Err(in_use(priority));
            }
            let count: usize = find::listeners_of(tx, &load_balancer.arn)
                .iter()
                .map(|listener| tx.count::<balancing::Rule>(balancing::Rule::BY_LISTENER, listener.arn.as_str()))
                .sum();
            if count >= MAX_RULES {
                return Err(error::too_many_rules_exception(format!(
                    "The maximum number of rules per load balancer is {MAX_RULES}"
                )));
            }
            actions::check_target_groups(tx, &load_balancer, &action)?;
            let id = auth.platform().ids().hex(16);
            let rule = balancing::Rule {
                arn: call.arn(SERVICE, &format!("listener-rule/{}/{id}", listener.resource_path())),
                scope: call.scope.clone(),
                listener: listener.clone(),
                priority,
                conditions,
                action,
                tags,
                created_at: now,
            };
            tx.put(rule.clone());
            Ok(rule)
        })
        .await?;
    Ok(CreateRuleOutput { rules: Some(vec![shape(&rule)]) })
}

fn priority(priority: i32) -> Result<u32, ServiceError> {
    let number = u32::try_from(priority).ok().filter(|priority| (1..=50_000).contains(priority));
    number.ok_or_else(|| invalid(format!("Priority '{priority}' must be between 1 and 50000")))
}

fn in_use(priority: u32) -> ServiceError {
    error::priority_in_use_exception(format!("Priority '{priority}' is currently in use"))
}

pub(super) fn describe(call: &Call, input: DescribeRulesInput) -> Result<DescribeRulesOutput, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let view = auth.snapshot();
    let arns = input.rule_arns.unwrap_or_default();
    match (input.listener_arn, arns.is_empty()) {
        (None, true) => Err(invalid("You must specify either listener rule ARNs or a listener ARN")),
        (Some(_), false) => Err(invalid("Rule ARNs and a listener ARN cannot be specified at the same time")),
        (None, false) => {
            let found = arns.iter().map(|text| {
                let arn = arn(call, text, "listener-rule", "listener rule")?;
                Ok(match of_default_rule(&view, &arn) {
                    Some(listener) => default_shape(&listener),
                    None => shape(&*find::rule(&view, arn.as_str())?),
                })
            });
            Ok(DescribeRulesOutput { rules: Some(found.collect::<Result<_, ServiceError>>()?), next_marker: None })
        }
        (Some(text), true) => {
            let arn = arn(call, &text, "listener", "listener")?;
            let listener = find::listener(&view, arn.as_str())?;
            let rules = find::rules_of(&view, &arn);
            // In the order in which they are tried; the default one is the last.
            let keyed = rules.iter().map(|rule| (format!("{:05}", rule.priority), shape(rule)));
            let all = keyed.chain([("default".to_owned(), default_shape(&listener))]);
            let (found, next_marker) = page(
                &operation::DESCRIBE_RULES,
                all,
                |(key, _)| key.clone(),
                input.marker.as_deref(),
                input.page_size,
            )?;
            let shapes = found.into_iter().map(|(_, shape)| shape).collect();
            Ok(DescribeRulesOutput { rules: Some(shapes), next_marker })
        }
    }
}

pub(super) async fn modify(call: Call, input: ModifyRuleInput) -> Result<ModifyRuleOutput, ServiceError> {
    let arn = arn(&call, &required(input.rule_arn, "A rule ARN")?, "listener-rule", "listener rule")?;
    let auth = call.authorise(&[&arn])?;
    if input.transforms.is_some_and(|transforms| !transforms.is_empty()) || input.reset_transforms == Some(true) {
        return Err(unsupported("Transforms"));
    }
    let conditions = input.conditions.map(|conditions| conditions::parse(Some(conditions))).transpose()?;
    let action = input.actions.map(|actions| actions::parse(&call, Some(actions))).transpose()?;
    let rule = auth
        .transact(|tx| {
            refuse_default(tx, &arn, "modified")?;
            let mut rule = balancing::Rule::clone(&*find::rule(tx, arn.as_str())?);
            let owner = find::listener(tx, rule.listener.as_str())?;
            if let Some(conditions) = conditions {
                rule.conditions = conditions;
            }
            if let Some(action) = action {
                let load_balancer = find::load_balancer(tx, owner.load_balancer.as_str())?;
                actions::check_target_groups(tx, &load_balancer, &action)?;
                rule.action = action;
            }
            tx.put(rule.clone());
            Ok(rule)
        })
        .await?;
    Ok(ModifyRuleOutput { rules: Some(vec![shape(&rule)]) })
}

fn refuse_default(view: &Snapshot, rule: &Arn, done: &str) -> Result<(), ServiceError> {
    match of_default_rule(view, rule) {
        Some(_) => Err(error::operation_not_permitted_exception(format!("Default rule '{rule}' cannot be {done}"))),
        None => Ok(()),
    }
}

pub(super) async fn delete(call: Call, input: DeleteRuleInput) -> Result<DeleteRuleOutput, ServiceError> {
    let arn = arn(&call, &required(input.rule_arn, "A rule ARN")?, "listener-rule", "listener rule")?;
    let auth = call.authorise(&[&arn])?;
    auth.transact(|tx| {
        refuse_default(tx, &arn, "deleted")?;
        find::rule(tx, arn.as_str())?;
        tx.delete::<balancing::Rule>(arn.as_str());
        Ok(())
    })
    .await?;
    Ok(DeleteRuleOutput {})
}

pub(super) async fn set_priorities(
    call: Call,
    input: SetRulePrioritiesInput,
) -> Result<SetRulePrioritiesOutput, ServiceError> {
    let pairs = required(input.rule_priorities, "Rule priorities")?;
    let mut wanted: BTreeMap<Arn, u32> = BTreeMap::new();
    for pair in pairs {
        let arn = arn(&call, &required(pair.rule_arn, "A rule ARN")?, "listener-rule", "listener rule")?;
        wanted.insert(arn, priority(required(pair.priority, "A priority")?)?);
    }
    let arns: Vec<&Arn> = wanted.keys().collect();
    let auth = call.authorise(&arns)?;
    let rules = auth
        .transact(|tx| {
            let mut changed = Vec::new();
            for (arn, priority) in &wanted {
                refuse_default(tx, arn, "modified")?;
                let mut rule = balancing::Rule::clone(&*find::rule(tx, arn.as_str())?);
                rule.priority = *priority;
                tx.put(rule.clone());
                changed.push(rule);
            }
            // All at once, so that two rules can change places.
            for rule in &changed {
                let rules = find::rules_of(tx, &rule.listener);
                if rules.iter().filter(|other| other.priority == rule.priority).count() > 1 {
                    return Err(in_use(rule.priority));
                }
            }
            Ok(changed)
        })
        .await?;
    Ok(SetRulePrioritiesOutput { rules: Some(rules.iter().map(shape).collect()) })
}

fn shape(rule: &balancing::Rule) -> Rule {
    Rule {
        rule_arn: Some(rule.arn.to_string()),
        priority: Some(rule.priority.to_string()),
        conditions: Some(rule.conditions.iter().map(conditions::shape).collect()),
        actions: Some(vec![actions::shape(&rule.action)]),
        is_default: Some(false),
        ..Rule::default()
    }
}

fn default_shape(listener: &Listener) -> Rule {
    Rule {
        rule_arn: Some(listener.default_rule.to_string()),
        priority: Some("default".into()),
        conditions: Some(Vec::new()),
        actions: Some(vec![actions::shape(&listener.default_action)]),
        is_default: Some(true),
        ..Rule::default()
    }
}
