//! What users do to services and their tasks.

use std::time::Duration;

use domain::{
    IdSource,
    ecs::{Service, StopCode, Task},
};

use super::World;
use crate::nouns::deploy;

impl World {
    /// One of them changes their mind.
    pub(super) fn user_acts(&mut self) {
        let arn = self.services[self.ids.below(self.services.len())].clone();
        let now = self.now;
        match self.ids.below(4) {
            0 => {
                let desired = u32::try_from(self.ids.below(7)).unwrap();
                self.transact(|tx| tx.update::<Service>(&arn, |service| service.desired_count = desired));
            }
            1 => {
                let revision = u32::try_from(1 + self.ids.below(3)).unwrap();
                let mut ids = IdSource::from_seed(u64::try_from(self.ids.below(usize::MAX)).unwrap());
                self.transact(|tx| {
                    let mut service = Service::clone(&*tx.get::<Service>(&arn).unwrap());
                    let balancers = service.primary().unwrap().load_balancers.clone();
                    let (revision, deployment) = deploy(&mut service, revision, balancers, &mut ids, now);
                    tx.put(service);
                    tx.put(revision);
                    tx.put(deployment);
                });
            }
            what => {
                let tasks: Vec<String> = {
                    let view = self.store.snapshot();
                    view.find::<Task>(Task::OF_SERVICE, &arn).map(|task| task.arn.to_string()).collect()
                };
                if what == 2 {
                    let until = now + Duration::from_secs(60 * self.ids.below(10) as u64);
                    for task in &tasks {
                        if self.ids.below(2) == 0 {
                            continue;
                        }
                        self.transact(|tx| tx.update::<Task>(task, |task| task.protected_until = Some(until)));
                    }
                } else if let Some(task) = tasks.get(self.ids.below(tasks.len())) {
                    self.transact(|tx| {
                        tx.update::<Task>(task, |task| {
                            task.request_stop(StopCode::UserInitiated, "x", now);
                        })
                    });
                }
            }
        }
    }
}
