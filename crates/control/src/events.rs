//! Service events, in Amazon's words, and the writing of a service together with its events.

use domain::{
    IdSource, Timestamp,
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
    let named: Vec<String> = ids.iter().map(|id| format!("(task {id})")).collect();
    format!("{} tasks: {}.", ids.len(), named.join(" "))
}

pub(crate) fn started(ids: &[String]) -> String {
    format!("has started {}", tasks(ids))
}

pub(crate) fn stopped(ids: &[String]) -> String {
    format!("has stopped {} running {}", ids.len(), tasks(ids).split_once(' ').map_or("", |(_, rest)| rest))
}

pub(crate) fn draining(count: usize) -> String {
    format!("has begun draining connections on {count} tasks.")
}

pub(crate) fn registered(group: &str) -> String {
    format!("registered 1 targets in (target-group {group})")
}

pub(crate) fn deregistered(group: &str) -> String {
    format!("deregistered 1 targets in (target-group {group})")
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
        assert_eq!(stopped(&ids[..1]), "has stopped 1 running tasks: (task a).");
    }
}
