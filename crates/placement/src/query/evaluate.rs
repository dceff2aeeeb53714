//! What an expression says of one container instance.

use std::cmp::Ordering;

use domain::{Timestamp, ecs::Attribute};

use super::{Bound, Expression, Order, Subject, Test, parse::version};

/// A container instance as expressions see it.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// Built-in attributes and those that people gave it.
    pub attributes: &'a [Attribute],
    /// Whether its agent is connected.
    pub agent_connected: bool,
    /// E.g. `1.92.0`; empty if not known.
    pub agent_version: &'a str,
    /// `i-…`, if it is one of EC2's.
    pub ec2_instance_id: Option<&'a str>,
    /// When it registered.
    pub registered_at: Timestamp,
    /// How many of its tasks are RUNNING.
    pub running_tasks: usize,
    /// The groups of its tasks that are not STOPPED, such as `service:web`.
    pub task_groups: &'a [String],
}

pub(super) fn matches(expression: &Expression, instance: &Instance<'_>) -> bool {
    match expression {
        Expression::And(parts) => parts.iter().all(|part| matches(part, instance)),
        Expression::Or(parts) => parts.iter().any(|part| matches(part, instance)),
        Expression::Not(inside) => !matches(inside, instance),
        Expression::Test(subject, test) => holds(subject, test, instance),
    }
}

fn holds(subject: &Subject, test: &Test, instance: &Instance<'_>) -> bool {
    match subject {
        Subject::Attribute(name) => {
            let found = instance.attributes.iter().find(|attribute| attribute.name == *name);
            match (test, found) {
                (Test::Exists(wanted), found) => *wanted == found.is_some(),
                // Nothing but `!exists` is true of what is not there, inequality included.
                (_, None) => false,
                (test, Some(attribute)) => of_text(test, attribute.value.as_deref().unwrap_or_default()),
            }
        }
        Subject::AgentConnected => of_connection(test, instance.agent_connected),
        Subject::Ec2InstanceId => instance.ec2_instance_id.is_some_and(|id| of_text(test, id)),
        Subject::TaskGroup => {
            // It has several values, and of none of them may hold what is negated.
            let of = |group: &String| of_text(test, group);
            if is_negated(test) { instance.task_groups.iter().all(of) } else { instance.task_groups.iter().any(of) }
        }
        Subject::AgentVersion => of_version(test, instance.agent_version),
        Subject::RegisteredAt => of_time(test, instance.registered_at),
        Subject::RunningTasksCount => of_number(test, instance.running_tasks),
    }
}

pub(super) fn of_connection(test: &Test, connected: bool) -> bool {
    of_text(test, if connected { "true" } else { "false" })
}

pub(super) fn of_version(test: &Test, own: &str) -> bool {
    let Test::Order(order, Bound::Version(bound)) = test else { return false };
    version(own).is_some_and(|own| is_in_order(Some(compare_versions(&own, bound)), *order))
}

pub(super) fn of_time(test: &Test, time: Timestamp) -> bool {
    let Test::Order(order, Bound::Time(bound)) = test else { return false };
    is_in_order(Some(time.cmp(bound)), *order)
}

pub(super) fn of_number(test: &Test, number: usize) -> bool {
    let Test::Order(order, Bound::Number(bound)) = test else { return false };
    is_in_order((number as f64).partial_cmp(bound), *order)
}

pub(super) fn is_negated(test: &Test) -> bool {
    matches!(test, Test::In { negated: true, .. } | Test::Matches { negated: true, .. })
}

pub(super) fn of_text(test: &Test, value: &str) -> bool {
    match test {
        Test::Exists(wanted) => *wanted,
        Test::In { list, negated } => list.iter().any(|item| item == value) != *negated,
        Test::Matches { pattern, negated } => pattern.is_match(value) != *negated,
        Test::Order(order, Bound::Text(bound)) => {
            let ordering = match (value.parse::<f64>(), bound.parse::<f64>()) {
                (Ok(value), Ok(bound)) => value.partial_cmp(&bound),
                _ => Some(value.cmp(bound)),
            };
            is_in_order(ordering, *order)
        }
        Test::Order(..) => false,
    }
}

/// Parts that are missing count as 0: 1.92 is 1.92.0.
fn compare_versions(one: &[u64], other: &[u64]) -> Ordering {
    let part = |version: &[u64], at: usize| version.get(at).copied().unwrap_or(0);
    let parts = (0..one.len().max(other.len())).map(|at| part(one, at).cmp(&part(other, at)));
    parts.fold(Ordering::Equal, Ordering::then)
}

fn is_in_order(ordering: Option<Ordering>, order: Order) -> bool {
    match order {
        Order::Equal => ordering == Some(Ordering::Equal),
        Order::NotEqual => ordering != Some(Ordering::Equal),
        Order::Greater => ordering == Some(Ordering::Greater),
        Order::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        Order::Less => ordering == Some(Ordering::Less),
        Order::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
    }
}
