//! Service events, in Amazon's words, and the writing of a service together with its events.

use domain::{
    Arn, IdSource, Timestamp,
    balancing::classic::is_classic,
    ecs::{Service, ServiceEvent, service::MAX_EVENTS},
};
use store::Transaction;

use crate::Refusal;

/// Where Amazon's texts send their reader.
const TROUBLESHOOTING: &str =
    "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.";

/// A service being changed, with the events that the change causes.
pub(crate) struct Edit {
    pub(crate) service: Service,
    before: Service,
    messages: Vec<String>,
}

impl Edit {
    pub(crate) fn of(tx: &Transaction, arn: &str) -> Option<Self> {
        let service = Service::clone(&*tx.get::<Service>(arn)?);
        Some(Self { before: service.clone(), service, messages: Vec::new() })
    }

    /// Says something about the service.
    pub(crate) fn say(&mut self, text: &str) {
        self.messages.push(format!("(service {}) {text}", self.service.name));
    }

    /// Writes the service if it changed, and its events.
    pub(crate) fn write(mut self, tx: &mut Transaction, ids: &mut IdSource, now: Timestamp) {
        for message in self.messages {
            let number = self.service.events;
            self.service.events += 1;
            if let Some(oldest) = number.checked_sub(MAX_EVENTS as u64) {
                tx.delete::<ServiceEvent>(&ServiceEvent::key_of(self.service.arn.as_str(), oldest));
            }
            let service_arn = self.service.arn.clone();
            tx.put(ServiceEvent { service_arn, number, id: ids.uuid(), created_at: now, message });
        }
        if self.service != self.before {
            tx.put(self.service);
        }
    }
}

pub(crate) fn tasks(ids: &[String]) -> String {
    format!("{} tasks: {}.", ids.len(), named(ids))
}

fn named(ids: &[String]) -> String {
    let named: Vec<String> = ids.iter().map(|id| format!("(task {id})")).collect();
    named.join(" ")
}

pub(crate) fn started(ids: &[String]) -> String {
    format!("has started {}", tasks(ids))
}

pub(crate) fn stopped(ids: &[String]) -> String {
    format!("has stopped {} running {}", ids.len(), tasks(ids).split_once(' ').map_or("", |(_, rest)| rest))
}

/// As `tasks`, for those that started in a zone because others have more.
pub(crate) fn started_to_rebalance(zone: &str, ids: &[String]) -> String {
    format!("has started {} tasks in {zone} to AZ Rebalance: {}.", ids.len(), named(ids))
}

pub(crate) fn stopped_to_rebalance(zone: &str, ids: &[String]) -> String {
    format!("has stopped {} running tasks in {zone} due to AZ rebalancing: {}.", ids.len(), named(ids))
}

pub(crate) fn not_balanced(counts: &[(String, usize)]) -> String {
    // Amazon's text says "tasks" once only.
    let parts = counts.iter().enumerate().map(|(at, (zone, tasks))| match at {
        0 => format!("{tasks} tasks in {zone}"),
        _ => format!("{tasks} in {zone}"),
    });
    format!("is not AZ balanced with {}. AZ Rebalancing in progress.", listed(parts.collect()))
}

pub(crate) fn balanced(counts: &[(String, usize)]) -> String {
    let parts = counts.iter().map(|(zone, tasks)| format!("{tasks} tasks in {zone}"));
    format!("is AZ balanced with {}.", listed(parts.collect()))
}

pub(crate) fn zone_is_full(zone: &str, refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoInstance(_) => {
            format!("is unable to place a task in {zone} because no container instance met all of its requirements.")
        }
        Refusal::NotPlaced(_) | Refusal::NotLaunched(_) => format!("is unable to place a task in {zone}."),
    }
}

fn listed(mut parts: Vec<String>) -> String {
    match (parts.pop(), parts.len()) {
        (None, _) => String::new(),
        (Some(last), 0) => last,
        (Some(last), 1) => format!("{} and {last}", parts.concat()),
        (Some(last), _) => format!("{}, and {last}", parts.join(", ")),
    }
}

pub(crate) fn draining(count: usize) -> String {
    format!("has begun draining connections on {count} tasks.")
}

pub(crate) fn registered(group: &Arn) -> String {
    format!("registered 1 {}", in_group(group))
}

pub(crate) fn deregistered(group: &Arn) -> String {
    format!("deregistered 1 {}", in_group(group))
}

fn in_group(group: &Arn) -> String {
    let what = if is_classic(group) { "instances" } else { "targets" };
    format!("{what} in {}", balancer(group))
}

/// A target group, or a Classic Load Balancer.
pub(crate) fn balancer(group: &Arn) -> String {
    if is_classic(group) { format!("(elb {})", group.resource_name()) } else { format!("(target-group {group})") }
}

pub(crate) fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotPlaced(reason) => {
            format!("was unable to place a task. Reason: {}. {TROUBLESHOOTING}", reason.trim_end_matches('.'))
        }
        Refusal::NoInstance(why) => format!("{why} {TROUBLESHOOTING}"),
        Refusal::NotLaunched(error) => format!("failed to launch a task with (error {error})."),
    }
}

pub(crate) fn unsteady_start() -> String {
    format!("is unable to consistently start tasks successfully. {TROUBLESHOOTING}")
}

pub(crate) fn completed(deployment: &str) -> String {
    format!("(deployment {deployment}) deployment completed.")
}

pub(crate) fn failed(deployment: &str) -> String {
    format!("(deployment {deployment}) deployment failed: tasks failed to start.")
}

pub(crate) fn rolling_back(deployment: &str) -> String {
    format!("rolling back to deployment {deployment}.")
}

pub(crate) const BLOCKED: &str = "was unable to stop or start tasks during a deployment because of the service deployment \
     configuration. Update the minimumHealthyPercent or maximumPercent value and try again.";

pub(crate) const STEADY: &str = "has reached a steady state.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_amazons() {
        let ids = ["a".to_owned(), "b".to_owned()];
        assert_eq!(started(&ids), "has started 2 tasks: (task a) (task b).");
        let zones = [("us-east-1a".to_owned(), 3), ("us-east-1b".to_owned(), 0), ("us-east-1c".to_owned(), 1)];
        let said = "is not AZ balanced with 3 tasks in us-east-1a, 0 in us-east-1b, and 1 in us-east-1c. AZ Rebalancing in progress.";
        assert_eq!(not_balanced(&zones), said);
        assert_eq!(balanced(&zones[..2]), "is AZ balanced with 3 tasks in us-east-1a and 0 tasks in us-east-1b.");
        let said = "has started 1 tasks in us-east-1b to AZ Rebalance: (task a).";
        assert_eq!(started_to_rebalance("us-east-1b", &ids[..1]), said);
        let said = "has stopped 2 running tasks in us-east-1a due to AZ rebalancing: (task a) (task b).";
        assert_eq!(stopped_to_rebalance("us-east-1a", &ids), said);
        assert_eq!(stopped(&ids[..1]), "has stopped 1 running tasks: (task a).");
    }
}
