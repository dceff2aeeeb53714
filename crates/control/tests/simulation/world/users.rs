//! What users do to services and tasks, written to the store as the API's handlers write it.

use std::time::Duration;

use domain::{
    Arn, IdSource, Timestamp,
    ecs::{
        Cluster, Compute, DesiredStatus, LaunchType, NewTask, Placement, RolloutState, SchedulingStrategy, Service,
        ServiceDeployment, ServiceDeploymentStatus, ServiceRevision, ServiceStatus, StopCode, Task, TaskDefinition,
        TaskLoadBalancer, TaskNetwork, names,
    },
};
use store::Transaction;

use super::{World, populate::Like};
use crate::{
    coverage::{Fault, Size},
    nouns,
    properties::Checked,
};

/// What a deployment's tasks are.
pub struct Runs {
    pub family: String,
    pub revision: u32,
    pub balancers: Vec<TaskLoadBalancer>,
    pub compute: Compute,
}

/// Begins to deploy something.
pub fn begin(
    service: &mut Service,
    runs: &Runs,
    ids: &mut IdSource,
    now: Timestamp,
) -> (ServiceRevision, ServiceDeployment) {
    let revision = ServiceRevision {
        arn: ServiceRevision::new_arn(service, ids),
        service_arn: service.arn.clone(),
        cluster_arn: service.cluster_arn.clone(),
        task_definition_arn: names::task_definition(&service.scope, &runs.family, runs.revision),
        network: runs.compute.is_fargate().then(TaskNetwork::default),
        load_balancers: runs.balancers.clone(),
        compute: runs.compute.clone(),
        image_digests: Default::default(),
        created_at: now,
    };
    let begun = service.begin(&revision, ids, now);
    (revision, begun)
}

/// Says of what is on its way that it will not arrive.
fn give_up(tx: &mut Transaction, service: &Service, reason: &str, now: Timestamp) {
    let Some(primary) = service.primary() else { return };
    let arn = primary.service_deployment_arn.as_ref().map(Arn::as_str).unwrap_or_default();
    if tx.get::<ServiceDeployment>(arn).is_some_and(|known| known.status.is_open()) {
        let failed = primary.failed_tasks;
        tx.update::<ServiceDeployment>(arn, |open| open.give_up(reason, failed, now));
    }
}

impl World {
    fn living(&self) -> Vec<String> {
        self.services.iter().filter(|known| !known.deleted).map(|known| known.arn.clone()).collect()
    }

    /// One of them changes their mind.
    pub(super) fn user_acts(&mut self) -> Checked {
        let living = self.living();
        let Some(arn) = living.get(self.ids.below(living.len())).cloned() else { return Ok(()) };
        let Some(service) = self.store.snapshot().get::<Service>(&arn) else { return Ok(()) };
        let replica = service.scheduling_strategy == SchedulingStrategy::Replica;
        match self.ids.below(25) {
            0..4 if replica => {
                let desired = 1 + u32::try_from(self.ids.below(9)).unwrap();
                self.fault(Fault::DesiredChanged);
                self.scale(&arn, desired)
            }
            4 if replica => {
                self.fault(Fault::ScaledToZero);
                self.scale(&arn, 0)
            }
            5..8 => self.deploy(&arn, None),
            8..11 => {
                let good = 1 + u32::try_from(self.ids.below(2)).unwrap();
                self.deploy(&arn, Some(good))
            }
            11..14 => {
                let bad = 3 + u32::try_from(self.ids.below(3)).unwrap();
                self.fault(Fault::BadDeployment);
                self.deploy(&arn, Some(bad))
            }
            14..16 => self.stop_deployment(&arn),
            16..18 => self.protect(&arn),
            18..20 => self.stop_a_task(&arn),
            20 if living.len() >= 4 && self.services.len() < 6 => {
                self.fault(Fault::ServiceDeleted);
                self.delete(&arn)?;
                let like = [Like::Web, Like::Api, Like::Batch][self.ids.below(3)];
                self.create(like);
                Ok(())
            }
            21 => {
                self.fault(Fault::TagMoved);
                self.tag += 1;
                Ok(())
            }
            _ => self.run_task(),
        }
    }

    /// Whichever service is next gets a new deployment that works.
    pub(super) fn deploy_again(&mut self) -> Checked {
        let living = self.living();
        let Some(arn) = living.get(self.ids.below(living.len())).cloned() else { return Ok(()) };
        let revision = 1 + u32::try_from(self.ids.below(2)).unwrap();
        self.deploy(&arn, Some(revision))
    }

    pub(super) fn scale(&mut self, arn: &str, desired: u32) -> Checked {
        self.note(|| format!("{arn} shall have {desired}"));
        self.write(|tx| {
            tx.update::<Service>(arn, |service| service.desired_count = desired);
        })
    }

    /// UpdateService with another task definition, or with the same and forceNewDeployment.
    pub(super) fn deploy(&mut self, arn: &str, revision: Option<u32>) -> Checked {
        let view = self.store.snapshot();
        let service = view.get::<Service>(arn).filter(|service| service.status == ServiceStatus::Active);
        let Some(primary) = service.as_ref().and_then(|service| service.primary()) else { return Ok(()) };
        let known = self.services.iter().find(|known| known.arn == arn);
        let family = known.map(|known| known.family.clone()).unwrap_or_default();
        let current = primary.task_definition_arn.resource_name().rsplit(':').next().and_then(|text| text.parse().ok());
        let current: u32 = current.unwrap_or(1);
        let revision = revision.unwrap_or(current);
        let fault = match (revision == current, primary.rollout_state) {
            (true, _) => Fault::ForcedDeployment,
            (false, RolloutState::InProgress) => Fault::NewDefinitionMidDeployment,
            (false, _) => Fault::NewDefinition,
        };
        let (balancers, compute) = (primary.load_balancers.clone(), primary.compute.clone());
        let runs = Runs { family, revision, balancers, compute };
        self.fault(fault);
        self.coverage.add(Size::Deployments, 1);
        self.note(|| format!("{arn} gets revision {revision}"));
        let (now, mut ids) = (self.now, IdSource::from_seed(self.number()));
        self.write(|tx| {
            let Some(service) = tx.get::<Service>(arn) else { return };
            let mut service = Service::clone(&service);
            give_up(tx, &service, "The service deployment was stopped because a newer one was started.", now);
            let (revision, begun) = begin(&mut service, &runs, &mut ids, now);
            tx.put(revision);
            tx.put(begun);
            tx.put(service);
        })
    }

    /// StopServiceDeployment.
    fn stop_deployment(&mut self, arn: &str) -> Checked {
        let view = self.store.snapshot();
        let Some(service) = view.get::<Service>(arn) else { return Ok(()) };
        let during = service.primary().and_then(|primary| primary.service_deployment_arn.as_ref());
        let during = during.and_then(|during| view.get::<ServiceDeployment>(during.as_str()));
        let Some(during) = during.filter(|known| known.status == ServiceDeploymentStatus::InProgress) else {
            return Ok(());
        };
        let before = service.last_completed.as_ref().filter(|before| **before != during.target);
        let Some(before) = before.and_then(|before| view.get::<ServiceRevision>(before.as_str())) else {
            return Ok(());
        };
        self.fault(Fault::DeploymentStopped);
        let (now, mut ids) = (self.now, IdSource::from_seed(self.number()));
        self.write(|tx| {
            let mut service = Service::clone(&service);
            let mut stopped = ServiceDeployment::clone(&during);
            let failed = service.primary_mut().map_or(0, |primary| {
                primary.rollout_state = RolloutState::Failed;
                primary.failed_tasks
            });
            service.roll_back(&before, "stopped", &mut ids, now);
            stopped.roll_back(before.arn.clone(), "stopped", failed, now);
            tx.put(service);
            tx.put(stopped);
        })
    }

    pub(super) fn delete(&mut self, arn: &str) -> Checked {
        self.services.iter_mut().filter(|known| known.arn == arn).for_each(|known| known.deleted = true);
        self.note(|| format!("{arn} is deleted"));
        let now = self.now;
        self.write(|tx| {
            let Some(service) = tx.get::<Service>(arn) else { return };
            give_up(tx, &service, "The service was deleted.", now);
            tx.put(Service { status: ServiceStatus::Draining, desired_count: 0, ..(*service).clone() });
        })
    }

    pub(super) fn delete_all(&mut self) -> Checked {
        self.living().iter().try_for_each(|arn| self.delete(arn))
    }

    pub(super) fn scale_to_zero(&mut self) -> Checked {
        let view = self.store.snapshot();
        for arn in self.living() {
            let service = view.get::<Service>(&arn);
            if service.is_some_and(|service| service.scheduling_strategy == SchedulingStrategy::Replica) {
                self.scale(&arn, 0)?;
            }
        }
        Ok(())
    }

    fn tasks_of(&self, arn: &str) -> Vec<String> {
        let view = self.store.snapshot();
        view.find::<Task>(Task::OF_SERVICE, arn)
            .filter(|task| task.desired_status == DesiredStatus::Running)
            .map(|task| task.arn.to_string())
            .collect()
    }

    /// UpdateTaskProtection.
    fn protect(&mut self, arn: &str) -> Checked {
        let tasks = self.tasks_of(arn);
        let until = self.now + Duration::from_secs(60 * self.ids.below(8) as u64);
        let chosen: Vec<_> = tasks.into_iter().filter(|_| self.ids.below(2) == 0).collect();
        self.fault(Fault::TasksProtected);
        self.note(|| format!("protected until {until:?}: {chosen:?}"));
        self.write(|tx| {
            for task in &chosen {
                tx.update::<Task>(task, |task| task.protected_until = Some(until));
            }
        })
    }

    fn stop_a_task(&mut self, arn: &str) -> Checked {
        let tasks = self.tasks_of(arn);
        let Some(task) = tasks.get(self.ids.below(tasks.len())) else { return Ok(()) };
        self.fault(Fault::TaskStopped);
        self.note(|| format!("{task} is stopped by its user"));
        let now = self.now;
        self.write(|tx| {
            tx.update::<Task>(task, |task| {
                task.request_stop(StopCode::UserInitiated, "x", now);
            });
        })
    }

    /// RunTask: a task of nobody's service, which a daemon on a draining instance waits for.
    fn run_task(&mut self) -> Checked {
        let places = self.places.clone();
        let (now, scope, mut ids) = (self.now, self.scope.clone(), IdSource::from_seed(self.number()));
        let family = self.services[3].family.clone();
        self.write(|tx| {
            let definition = tx.get::<TaskDefinition>(names::task_definition(&scope, &family, 1).as_str());
            let cluster = tx.get::<Cluster>(names::cluster(&scope, "default").as_str());
            let (Some(definition), Some(cluster)) = (definition, cluster) else { return };
            let new = NewTask {
                cluster: &cluster,
                definition: &definition,
                cpu: 64,
                memory: 128,
                overrides: Default::default(),
                compute: &Compute::by_launch_type(LaunchType::Ec2),
                placement: &Placement::default(),
                group: "other".into(),
                started_by: None,
                service: None,
                container_instance_arn: None,
                zone: None,
                gpu_ids: Vec::new(),
                load_balancers: Vec::new(),
                image_digests: Default::default(),
                tags: Default::default(),
            };
            // Where there is no room, RunTask says so.
            drop(control::Launcher::launch(&*places, tx, new, None, &mut ids, now));
        })
    }

    /// No user leaves a deployment for ever that cannot work, unless a circuit breaker watches it.
    pub(super) fn put_right(&mut self) -> Checked {
        let view = self.store.snapshot();
        for arn in self.living() {
            let Some(service) = view.get::<Service>(&arn) else { continue };
            let bad = |arn: &Arn| nouns::works(arn) != nouns::Works::Well;
            let Some(primary) = service.primary() else { continue };
            let last = service.last_completed.as_ref().and_then(|last| view.get::<ServiceRevision>(last.as_str()));
            let back_to_bad = last.is_some_and(|last| bad(&last.task_definition_arn));
            let ends = nouns::works(&primary.task_definition_arn) == nouns::Works::Exits;
            let watched = service.failure_threshold().is_some() && service.desired_count > 0 && !back_to_bad && !ends;
            if bad(&primary.task_definition_arn) && !watched && primary.rollout_state != RolloutState::Failed {
                self.deploy(&arn, Some(1))?;
            } else if primary.rollout_state == RolloutState::Failed && self.ids.below(2) == 0 {
                self.deploy(&arn, Some(2))?;
            }
        }
        // Percentages of few tasks can round to a deadlock, which the service says; its user helps.
        for arn in self.living() {
            let service = self.store.snapshot().get::<Service>(&arn);
            let Some(service) = service.filter(|one| one.scheduling_strategy == SchedulingStrategy::Replica) else {
                continue;
            };
            let mut helped = Service::clone(&service);
            while helped.desired_count > 0 && helped.minimum_healthy() >= helped.maximum() {
                helped.desired_count += 1;
            }
            if helped.desired_count != service.desired_count {
                self.scale(&arn, helped.desired_count)?;
            }
        }
        Ok(())
    }
}
