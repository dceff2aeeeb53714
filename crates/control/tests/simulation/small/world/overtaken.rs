//! What happens between a plan and its commit.

use control::{Key, Step, reconcile};
use domain::{
    balancing::{HealthReason, HealthState, ObservedHealth, TargetHealth, TargetRegistration},
    ecs::{DesiredStatus, Task},
};

use super::World;

impl World {
    /// Of a service behind a load balancer one task fails its checks; until the plan to replace it is committed it has
    /// recovered, and another one fails. Returns what is wanted of both afterwards.
    pub fn one_recovers_while_another_fails(&mut self) -> [DesiredStatus; 2] {
        let service = self.services[0].clone();
        let tasks: Vec<_> = self.store.snapshot().find::<Task>(Task::OF_SERVICE, &service).take(2).collect();
        let [one, other] = [&tasks[0], &tasks[1]];
        self.judge(one, false);
        let view = self.store.snapshot();
        let step = reconcile(&view, &Key::Service(service), self.now).step.unwrap();
        let Step::Service(plan) = &step else { panic!("{step:?}") };
        assert_eq!(plan.stop.iter().map(|stop| stop.task.as_str()).collect::<Vec<_>>(), [one.arn.as_str()]);
        self.judge(one, true);
        self.judge(other, false);
        self.commit(&step);
        let view = self.store.snapshot();
        [one, other].map(|task| view.get::<Task>(task.arn.as_str()).unwrap().desired_status)
    }

    fn judge(&self, task: &Task, passes: bool) {
        let target = &task.load_balancers[0];
        let (target_group, port) = (target.target_group_arn.clone(), target.container_port);
        let address = task.interface.as_ref().unwrap().private_address.into();
        let timeout = TargetHealth { state: HealthState::Unhealthy, reason: Some(HealthReason::Timeout) };
        let health = if passes { TargetHealth::HEALTHY } else { timeout };
        self.transact(|tx| {
            assert!(tx.contains::<TargetRegistration>(&TargetRegistration::key_of(&target_group, address, port)));
            tx.put(ObservedHealth { target_group, address, port, health });
        });
    }
}
