//! What must hold once everything is quiet.

use std::{collections::BTreeSet, sync::Arc};

use domain::{
    balancing::TargetRegistration,
    ecs::{RolloutState, Service, ServiceDeployment, Task, TaskStatus},
};

use super::{HOST_TASKS, World};
use crate::nouns::ZONES;

impl World {
    pub fn assert_settled(&self) {
        let view = self.store.snapshot();
        let mut expected = BTreeSet::new();
        let wanted: u32 = view.list::<Service>("").map(|service| service.desired_count).sum();
        for arn in &self.services {
            let service = view.get::<Service>(arn).unwrap();
            let tasks: Vec<_> = view.find::<Task>(Task::OF_SERVICE, arn).collect();
            let name = &service.name;
            expected.extend(tasks.iter().map(|task| task.arn.to_string()));
            let primary = service.primary().unwrap();
            if primary.rollout_state == RolloutState::Failed {
                // The breaker ended it, and there was nothing to go back to, or it was not to.
                let breaker = &service.circuit_breaker;
                assert!(breaker.enable, "{name}: {}", self.describe());
                assert!(!breaker.rollback || service.last_completed.is_none(), "{name}: {}", self.describe());
                assert!(tasks.len() <= service.desired_count as usize, "{name}: {}", self.describe());
                continue;
            }
            assert_eq!(tasks.len(), service.desired_count as usize, "{name}: {}", self.describe());
            assert!(tasks.iter().all(|task| task.last_status == TaskStatus::Running), "{name}: {}", self.describe());
            assert_eq!(service.deployments.len(), 1, "{name}: {}", self.describe());
            assert_eq!(primary.rollout_state, RolloutState::Completed, "{name}");
            assert!(tasks.iter().all(|task| task.deployment_id.as_deref() == Some(&primary.id)), "{name}");
            assert!(service.steady, "{name} is not steady");
            assert_eq!(service.last_completed, primary.revision_arn, "{name}");
            let in_zone = |zone: &str| {
                let here = |task: &&Arc<Task>| task.interface.as_ref().unwrap().availability_zone == zone;
                tasks.iter().filter(here).count()
            };
            let counts: Vec<usize> = ZONES.iter().map(|zone| in_zone(zone)).collect();
            if service.zone_rebalancing && (service.maximum() as usize) > tasks.len() && wanted < HOST_TASKS {
                assert!(counts[0].abs_diff(counts[1]) <= 1, "{name}: {counts:?} are in the zones");
                assert_eq!(service.rebalancing, None, "{name} is balanced");
            }
            let begun = primary.service_deployment_arn.as_ref().unwrap();
            let begun = view.get::<ServiceDeployment>(begun.as_str()).unwrap();
            assert!(!begun.status.is_open(), "{name}: {begun:?} stays open");
        }
        let running: BTreeSet<String> = self.host.running().map(str::to_owned).collect();
        assert_eq!(running, expected, "what runs is not what is known to run");
        let registered = view.list::<TargetRegistration>("").filter(|target| target.draining_until.is_none()).count();
        assert_eq!(registered, view.find::<Task>(Task::OF_SERVICE, &self.services[0]).count(), "targets");
    }
}
