//! Rules of security groups: authorised, revoked, changed, shown. A change is in force for new connections when the
//! host has it; connections that exist go on, as at Amazon.

use std::sync::Arc;

use api::ec2::{
    AuthorizeSecurityGroupEgressRequest, AuthorizeSecurityGroupEgressResult, AuthorizeSecurityGroupIngressRequest,
    AuthorizeSecurityGroupIngressResult, DescribeSecurityGroupRulesRequest, DescribeSecurityGroupRulesResult,
    IpPermission, IpRange, ModifySecurityGroupRulesRequest, ModifySecurityGroupRulesResult,
    RevokeSecurityGroupEgressRequest, RevokeSecurityGroupEgressResult, RevokeSecurityGroupIngressRequest,
    RevokeSecurityGroupIngressResult, RevokedSecurityGroupRule, SecurityGroupRuleRequest, TagSpecification,
    UpdateSecurityGroupRuleDescriptionsEgressRequest, UpdateSecurityGroupRuleDescriptionsEgressResult,
    UpdateSecurityGroupRuleDescriptionsIngressRequest, UpdateSecurityGroupRuleDescriptionsIngressResult,
    UserIdGroupPair,
};
use domain::{
    Tags,
    network::{Peer, SecurityGroup, SecurityGroupRule, Vpc},
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{
    common::{begin, check_filters, find, matches_any, page, refuse, required},
    permissions::{self, Permission},
    security_groups::resolve,
    tags,
};
use crate::Call;

/// Rules of one direction that a group can have.
const MAX_RULES: usize = 60;

/// Which group, which direction, which rules: what Authorize and Revoke have in common.
struct Change {
    egress: bool,
    group_id: Option<String>,
    group_name: Option<String>,
    permissions: Option<Vec<IpPermission>>,
    rule_ids: Option<Vec<String>>,
    tags: Option<Vec<TagSpecification>>,
    dry_run: Option<bool>,
}

/// The old form of a request, with the one permission's parts as its own parameters.
fn flat(
    protocol: Option<String>,
    from_port: Option<i32>,
    to_port: Option<i32>,
    cidr: Option<String>,
) -> Option<IpPermission> {
    let ranges = cidr.map(|cidr| vec![IpRange { cidr_ip: Some(cidr), ..Default::default() }]);
    let given = protocol.is_some() || ranges.is_some();
    given.then(|| IpPermission { ip_protocol: protocol, from_port, to_port, ip_ranges: ranges, ..Default::default() })
}

fn both(mut list: Option<Vec<IpPermission>>, flat: Option<IpPermission>) -> Option<Vec<IpPermission>> {
    if let Some(flat) = flat {
        list.get_or_insert_default().push(flat);
    }
    list
}

/// AuthorizeSecurityGroupIngress.
pub(super) async fn authorise_ingress(
    call: Call,
    input: AuthorizeSecurityGroupIngressRequest,
) -> Result<AuthorizeSecurityGroupIngressResult, ServiceError> {
    refuse!(input; source_security_group_owner_id);
    let mut flat = flat(input.ip_protocol, input.from_port, input.to_port, input.cidr_ip);
    if let Some(name) = input.source_security_group_name {
        let pair = UserIdGroupPair { group_name: Some(name), ..Default::default() };
        let permission =
            flat.get_or_insert_with(|| IpPermission { ip_protocol: Some("-1".into()), ..Default::default() });
        permission.user_id_group_pairs = Some(vec![pair]);
    }
    let change = Change {
        egress: false,
        group_id: input.group_id,
        group_name: input.group_name,
        permissions: both(input.ip_permissions, flat),
        rule_ids: None,
        tags: input.tag_specifications,
        dry_run: input.dry_run,
    };
    let rules = authorise(call, change).await?;
    Ok(AuthorizeSecurityGroupIngressResult { r#return: Some(true), security_group_rules: Some(rules) })
}

/// AuthorizeSecurityGroupEgress.
pub(super) async fn authorise_egress(
    call: Call,
    input: AuthorizeSecurityGroupEgressRequest,
) -> Result<AuthorizeSecurityGroupEgressResult, ServiceError> {
    refuse!(input; source_security_group_name, source_security_group_owner_id);
    let flat = flat(input.ip_protocol, input.from_port, input.to_port, input.cidr_ip);
    let change = Change {
        egress: true,
        group_id: input.group_id,
        group_name: None,
        permissions: both(input.ip_permissions, flat),
        rule_ids: None,
        tags: input.tag_specifications,
        dry_run: input.dry_run,
    };
    let rules = authorise(call, change).await?;
    Ok(AuthorizeSecurityGroupEgressResult { r#return: Some(true), security_group_rules: Some(rules) })
}

async fn authorise(call: Call, change: Change) -> Result<Vec<api::ec2::SecurityGroupRule>, ServiceError> {
    let resource = format!("security-group/{}", change.group_id.as_deref().unwrap_or("*"));
    let auth = begin(&call, &[resource], change.dry_run)?;
    let tags = tags::specified(change.tags, "security-group-rule")?;
    let wanted = required(change.permissions, "ipPermissions")?;
    auth.transact(|tx| {
        let id = resolve(&call, tx, change.group_id, change.group_name)?;
        let mut group = SecurityGroup::clone(&*find::<SecurityGroup>(&call, tx, &id)?);
        let first = group.rules.len();
        let mut ids = auth.platform().ids();
        for permission in permissions::read(&call, tx, &group, &wanted)? {
            if group.rules.iter().any(|rule| permission.is(rule, change.egress)) {
                let words = permissions::words(permission.protocol, &permission.peer);
                let text = format!("the specified rule \"{words}\" already exists");
                return Err(ServiceError::new("InvalidPermission.Duplicate", text));
            }
            group.rules.push(SecurityGroupRule {
                rule_id: ids.ec2("sgr"),
                egress: change.egress,
                protocol: permission.protocol,
                peer: permission.peer,
                description: permission.description,
                tags: tags.clone(),
            });
        }
        if group.rules.iter().filter(|rule| rule.egress == change.egress).count() > MAX_RULES {
            let text = "The maximum number of rules per security group has been reached.";
            return Err(ServiceError::new("RulesPerSecurityGroupLimitExceeded", text));
        }
        let added = group.rules.iter().skip(first).map(|rule| permissions::shape(&group, rule)).collect();
        tx.put(group);
        Ok(added)
    })
    .await
}

/// RevokeSecurityGroupIngress.
pub(super) async fn revoke_ingress(
    call: Call,
    input: RevokeSecurityGroupIngressRequest,
) -> Result<RevokeSecurityGroupIngressResult, ServiceError> {
    refuse!(input; source_security_group_name, source_security_group_owner_id);
    let flat = flat(input.ip_protocol, input.from_port, input.to_port, input.cidr_ip);
    let change = Change {
        egress: false,
        group_id: input.group_id,
        group_name: input.group_name,
        permissions: both(input.ip_permissions, flat),
        rule_ids: input.security_group_rule_ids,
        tags: None,
        dry_run: input.dry_run,
    };
    let (revoked, unknown) = revoke(call, change).await?;
    Ok(RevokeSecurityGroupIngressResult {
        r#return: Some(true),
        unknown_ip_permissions: unknown,
        revoked_security_group_rules: Some(revoked),
    })
}

/// RevokeSecurityGroupEgress.
pub(super) async fn revoke_egress(
    call: Call,
    input: RevokeSecurityGroupEgressRequest,
) -> Result<RevokeSecurityGroupEgressResult, ServiceError> {
    refuse!(input; source_security_group_name, source_security_group_owner_id);
    let flat = flat(input.ip_protocol, input.from_port, input.to_port, input.cidr_ip);
    let change = Change {
        egress: true,
        group_id: input.group_id,
        group_name: None,
        permissions: both(input.ip_permissions, flat),
        rule_ids: input.security_group_rule_ids,
        tags: None,
        dry_run: input.dry_run,
    };
    let (revoked, unknown) = revoke(call, change).await?;
    Ok(RevokeSecurityGroupEgressResult {
        r#return: Some(true),
        unknown_ip_permissions: unknown,
        revoked_security_group_rules: Some(revoked),
    })
}

/// What was revoked, and which permissions the group did not have: in a default VPC those are no error.
type Revoked = (Vec<RevokedSecurityGroupRule>, Option<Vec<IpPermission>>);

async fn revoke(call: Call, change: Change) -> Result<Revoked, ServiceError> {
    let resource = format!("security-group/{}", change.group_id.as_deref().unwrap_or("*"));
    let auth = begin(&call, &[resource], change.dry_run)?;
    auth.transact(|tx| {
        let id = resolve(&call, tx, change.group_id, change.group_name)?;
        let mut group = SecurityGroup::clone(&*find::<SecurityGroup>(&call, tx, &id)?);
        let mut revoked = Vec::new();
        for rule_id in change.rule_ids.iter().flatten() {
            let at = group.rules.iter().position(|rule| rule.rule_id == *rule_id && rule.egress == change.egress);
            revoked.push(group.rules.remove(at.ok_or_else(|| rule_not_found(rule_id))?));
        }
        let wanted = change.permissions.unwrap_or_default();
        if wanted.is_empty() && change.rule_ids.is_none() {
            required::<()>(None, "ipPermissions")?;
        }
        let lenient = find::<Vpc>(&call, tx, &group.vpc_id)?.is_default;
        let mut unknown = SecurityGroup { rules: Vec::new(), ..group.clone() };
        for permission in permissions::read(&call, tx, &group, &wanted)? {
            match group.rules.iter().position(|rule| permission.is(rule, change.egress)) {
                Some(at) => revoked.push(group.rules.remove(at)),
                None if lenient => unknown.rules.push(SecurityGroupRule {
                    rule_id: String::new(),
                    egress: change.egress,
                    protocol: permission.protocol,
                    peer: permission.peer,
                    description: permission.description,
                    tags: Tags::default(),
                }),
                None => {
                    let text = "The specified rule does not exist in this security group.";
                    return Err(ServiceError::new("InvalidPermission.NotFound", text));
                }
            }
        }
        let shapes = revoked.iter().map(|rule| revoked_shape(&group, rule)).collect();
        let unknown = permissions::joined(&unknown, change.egress);
        tx.put(group);
        Ok((shapes, Some(unknown).filter(|unknown| !unknown.is_empty())))
    })
    .await
}

fn revoked_shape(group: &SecurityGroup, rule: &SecurityGroupRule) -> RevokedSecurityGroupRule {
    let shape = permissions::shape(group, rule);
    RevokedSecurityGroupRule {
        security_group_rule_id: shape.security_group_rule_id,
        group_id: shape.group_id,
        is_egress: shape.is_egress,
        ip_protocol: shape.ip_protocol,
        from_port: shape.from_port,
        to_port: shape.to_port,
        cidr_ipv4: shape.cidr_ipv4,
        cidr_ipv6: shape.cidr_ipv6,
        prefix_list_id: None,
        referenced_group_id: shape.referenced_group_info.and_then(|group| group.group_id),
        description: shape.description,
    }
}

fn rule_not_found(id: &str) -> ServiceError {
    let text = format!("The security group rule ID '{id:.64}' does not exist");
    ServiceError::new("InvalidSecurityGroupRuleId.NotFound", text)
}

/// The group that has the rule of this id.
pub(super) fn group_of(call: &Call, view: &Snapshot, rule_id: &str) -> Result<Arc<SecurityGroup>, ServiceError> {
    view.list::<SecurityGroup>(&call.scope.prefix())
        .find(|group| group.rules.iter().any(|rule| rule.rule_id == rule_id))
        .ok_or_else(|| rule_not_found(rule_id))
}

/// DescribeSecurityGroupRules.
pub(super) async fn list(
    call: Call,
    input: DescribeSecurityGroupRulesRequest,
) -> Result<DescribeSecurityGroupRulesResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let view = auth.snapshot();
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &["group-id", "security-group-rule-id"])?;
    let ids = input.security_group_rule_ids.unwrap_or_default();
    for id in &ids {
        group_of(&call, &view, id)?;
    }
    let mut rules = Vec::new();
    for group in view.list::<SecurityGroup>(&call.scope.prefix()) {
        for rule in &group.rules {
            let wanted = (ids.is_empty() || ids.contains(&rule.rule_id))
                && filters.iter().all(|filter| {
                    let name = filter.name.as_deref().unwrap_or_default();
                    let values: Vec<String> = match name {
                        "group-id" => vec![group.group_id.clone()],
                        "security-group-rule-id" => vec![rule.rule_id.clone()],
                        "tag-key" => rule.tags.iter().map(|tag| tag.key.clone()).collect(),
                        "owner-id" => vec![call.scope.account.to_string()],
                        tag => tag
                            .strip_prefix("tag:")
                            .and_then(|key| rule.tags.get(key))
                            .map(str::to_owned)
                            .into_iter()
                            .collect(),
                    };
                    matches_any(filter.values.as_deref().unwrap_or_default(), &values)
                });
            if wanted {
                rules.push((format!("{} {}", group.group_id, rule.rule_id), permissions::shape(&group, rule)));
            }
        }
    }
    let (rules, next_token) = page(&call, rules, input.max_results, input.next_token.as_deref())?;
    Ok(DescribeSecurityGroupRulesResult { security_group_rules: Some(rules), next_token })
}

/// ModifySecurityGroupRules: each rule named gets the protocol, the peer and the description given.
pub(super) async fn modify(
    call: Call,
    input: ModifySecurityGroupRulesRequest,
) -> Result<ModifySecurityGroupRulesResult, ServiceError> {
    let id = required(input.group_id, "groupId")?;
    let auth = begin(&call, &[format!("security-group/{id}")], input.dry_run)?;
    let updates = input.security_group_rules.unwrap_or_default();
    auth.transact(|tx| {
        let mut group = SecurityGroup::clone(&*find::<SecurityGroup>(&call, tx, &id)?);
        for update in updates {
            let rule_id = required(update.security_group_rule_id, "securityGroupRuleId")?;
            let wanted = required(update.security_group_rule, "securityGroupRule")?;
            let permission = read_one(&call, tx, &group, &wanted)?;
            let at =
                group.rules.iter().position(|rule| rule.rule_id == rule_id).ok_or_else(|| rule_not_found(&rule_id))?;
            let duplicate = group.rules.iter().enumerate().any(|(other, rule)| {
                other != at && group.rules.get(at).is_some_and(|this| permission.is(rule, this.egress))
            });
            if duplicate {
                let words = permissions::words(permission.protocol, &permission.peer);
                let text = format!("the specified rule \"{words}\" already exists");
                return Err(ServiceError::new("InvalidPermission.Duplicate", text));
            }
            if let Some(rule) = group.rules.get_mut(at) {
                rule.protocol = permission.protocol;
                rule.peer = permission.peer;
                rule.description = permission.description;
            }
        }
        tx.put(group);
        Ok(())
    })
    .await?;
    Ok(ModifySecurityGroupRulesResult { r#return: Some(true) })
}

fn read_one(
    call: &Call,
    view: &Snapshot,
    group: &SecurityGroup,
    wanted: &SecurityGroupRuleRequest,
) -> Result<Permission, ServiceError> {
    refuse!(wanted; prefix_list_id);
    let name = required(wanted.ip_protocol.as_deref(), "ipProtocol")?;
    let protocol = permissions::protocol(name, wanted.from_port, wanted.to_port)?;
    let peer: Peer = match (&wanted.cidr_ipv4, &wanted.cidr_ipv6, &wanted.referenced_group_id) {
        (Some(block), None, None) => permissions::ipv4(block)?,
        (None, Some(block), None) => permissions::ipv6(block)?,
        (None, None, Some(id)) => {
            let pair = UserIdGroupPair { group_id: Some(id.clone()), ..Default::default() };
            permissions::group(call, view, group, &pair)?
        }
        _ => {
            let text = "Exactly one of CidrIpv4, CidrIpv6 and ReferencedGroupId must be given.";
            return Err(ServiceError::new("InvalidParameterCombination", text));
        }
    };
    Ok(Permission { protocol, peer, description: wanted.description.clone() })
}

/// UpdateSecurityGroupRuleDescriptionsIngress.
pub(super) async fn describe_ingress(
    call: Call,
    input: UpdateSecurityGroupRuleDescriptionsIngressRequest,
) -> Result<UpdateSecurityGroupRuleDescriptionsIngressResult, ServiceError> {
    let resource = format!("security-group/{}", input.group_id.as_deref().unwrap_or("*"));
    let auth = begin(&call, &[resource], input.dry_run)?;
    let by_id: Vec<_> = descriptions(input.security_group_rule_descriptions);
    auth.transact(|tx| {
        let id = resolve(&call, tx, input.group_id, input.group_name)?;
        set_descriptions(&call, tx, &id, false, input.ip_permissions.as_deref().unwrap_or_default(), &by_id)
    })
    .await?;
    Ok(UpdateSecurityGroupRuleDescriptionsIngressResult { r#return: Some(true) })
}

/// UpdateSecurityGroupRuleDescriptionsEgress.
pub(super) async fn describe_egress(
    call: Call,
    input: UpdateSecurityGroupRuleDescriptionsEgressRequest,
) -> Result<UpdateSecurityGroupRuleDescriptionsEgressResult, ServiceError> {
    let resource = format!("security-group/{}", input.group_id.as_deref().unwrap_or("*"));
    let auth = begin(&call, &[resource], input.dry_run)?;
    let by_id: Vec<_> = descriptions(input.security_group_rule_descriptions);
    auth.transact(|tx| {
        let id = resolve(&call, tx, input.group_id, input.group_name)?;
        set_descriptions(&call, tx, &id, true, input.ip_permissions.as_deref().unwrap_or_default(), &by_id)
    })
    .await?;
    Ok(UpdateSecurityGroupRuleDescriptionsEgressResult { r#return: Some(true) })
}

fn descriptions(given: Option<Vec<api::ec2::SecurityGroupRuleDescription>>) -> Vec<(String, Option<String>)> {
    let given = given.unwrap_or_default().into_iter();
    given.map(|one| (one.security_group_rule_id.unwrap_or_default(), one.description)).collect()
}

fn set_descriptions(
    call: &Call,
    tx: &mut Transaction,
    id: &str,
    egress: bool,
    permissions: &[IpPermission],
    by_id: &[(String, Option<String>)],
) -> Result<(), ServiceError> {
    let mut group = SecurityGroup::clone(&*find::<SecurityGroup>(call, tx, id)?);
    for permission in permissions::read(call, tx, &group, permissions)? {
        let rule = group.rules.iter_mut().find(|rule| permission.is(rule, egress)).ok_or_else(|| {
            let text = "The specified rule does not exist in this security group.";
            ServiceError::new("InvalidPermission.NotFound", text)
        })?;
        rule.description = permission.description;
    }
    for (rule_id, description) in by_id {
        let rule = group.rules.iter_mut().find(|rule| rule.rule_id == *rule_id && rule.egress == egress);
        rule.ok_or_else(|| rule_not_found(rule_id))?.description.clone_from(description);
    }
    tx.put(group);
    Ok(())
}
