//! No more faults: everything goes on until nothing more happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domain::{
    Arn,
    agent_protocol::FARGATE_CLUSTER,
    balancing::TargetRegistration,
    ecs::{
        ContainerInstance, ContainerInstanceStatus, DesiredStatus, RolloutState, SchedulingStrategy, Service,
        ServiceDeployment, ServiceEvent, ServiceStatus, Task, TaskStatus,
    },
};
use store::Snapshot;

use super::{World, agents::State};
use crate::{
    nouns,
    properties::{Checked, ensure, places},
};

/// Longer than any pause, delay or protection, and than a stopped task is remembered.
const QUIET: Duration = Duration::from_secs(4_000);
/// How often something may happen before that counts as never coming to rest.
const ROUNDS: usize = 4_000;
/// How many machines are added at most for what does not fit.
const MOST_ADDED: usize = 24;

impl World {
    pub fn settle(&mut self) -> Checked {
        self.faults = false;
        self.put_right()?;
        let away: Vec<Arn> = self.agents.keys().cloned().collect();
        away.iter().for_each(|arn| self.connect(arn));
        let mut until = self.now + QUIET;
        let mut added = 0;
        for _ in 0..ROUNDS {
            self.progress = false;
            self.agents_follow();
            self.deliver(usize::MAX)?;
            self.balancers_check()?;
            self.enqueue_changes();
            if self.is_due() {
                self.reconcile_some()?;
                continue;
            }
            if self.progress {
                continue;
            }
            if added < MOST_ADDED && self.waits_for_room() {
                added += 1;
                let arn = self.register(3);
                self.note(|| format!("{arn} is added"));
                if added % 8 == 0 {
                    let host = nouns::container_instance(&self.scope, FARGATE_CLUSTER, &mut self.ids, self.now);
                    let arn = host.arn.clone();
                    self.transact(|tx| tx.put(host));
                    self.agents.insert(arn.clone(), Default::default());
                    self.connect(&arn);
                }
                until = self.now + QUIET;
                continue;
            }
            match self.next_at().filter(|at| *at <= until) {
                Some(at) => self.now = at.max(self.now),
                None => return Ok(()),
            }
        }
        Err(format!("it never comes to rest: {}", self.outline()))
    }

    /// Whether a service has said that it has no place for a task.
    fn waits_for_room(&self) -> bool {
        let view = self.store.snapshot();
        view.find::<Service>(Service::UNPLACED, "yes").any(|service| {
            let unplaced = service.primary().is_some_and(|primary| primary.unplaced);
            // What has failed starts nothing more.
            let goes_on = service.primary().is_some_and(|primary| primary.rollout_state != RolloutState::Failed);
            unplaced && goes_on && service.scheduling_strategy == SchedulingStrategy::Replica
        })
    }

    /// Exactly what is wanted is there, all services say so, and every process is known.
    pub fn assert_settled(&self) -> Checked {
        let view = self.store.snapshot();
        for known in self.services.iter().filter(|known| !known.deleted) {
            let service = view.get::<Service>(&known.arn).ok_or("a service is gone")?;
            service_is_settled(&view, &service).map_err(|what| format!("{}: {what}", service.name))?;
        }
        self.assert_processes(&view)?;
        let targets = view.list::<TargetRegistration>("").map(|target| {
            ensure(target.draining_until.is_none(), || format!("{target:?} drains for ever"))?;
            Ok(1)
        });
        let targets: usize = targets.sum::<Checked<usize>>()?;
        let running = view.list::<Task>("").filter(|task| task.last_status == TaskStatus::Running);
        let expected: usize = running.map(|task| task.load_balancers.len()).sum();
        ensure(targets == expected, || format!("{targets} targets for {expected}"))
    }

    /// What runs is what is known to run: nothing was lost, nothing is there twice.
    fn assert_processes(&self, view: &Snapshot) -> Checked {
        let mut running = BTreeMap::new();
        for (arn, agent) in &self.agents {
            let alive = agent.processes.iter().filter(|(_, process)| !matches!(process.state, State::Ended(_)));
            for (task, _) in alive {
                ensure(running.insert(task.clone(), arn.clone()).is_none(), || format!("{task} runs twice"))?;
            }
        }
        let known = view.list::<Task>("").filter(|task| task.last_status != TaskStatus::Stopped);
        let known: BTreeMap<String, Arn> =
            known.filter_map(|task| Some((task.arn.to_string(), task.container_instance_arn.clone()?))).collect();
        ensure(running == known, || {
            let names = |of: &BTreeMap<String, Arn>| of.keys().cloned().collect::<BTreeSet<_>>();
            let (running, known) = (names(&running), names(&known));
            format!(
                "runs, but is not known: {:?}; is known, but does not run: {:?}",
                running.difference(&known).collect::<Vec<_>>(),
                known.difference(&running).collect::<Vec<_>>()
            )
        })
    }

    pub fn assert_gone(&self) -> Checked {
        let view = self.store.snapshot();
        for known in &self.services {
            let service = view.get::<Service>(&known.arn).ok_or("a service is gone")?;
            ensure(service.status == ServiceStatus::Inactive, || format!("{} is {:?}", service.name, service.status))?;
        }
        self.assert_processes(&view)?;
        let left = view.list::<Task>("").count();
        ensure(left == 0, || format!("{left} tasks are not forgotten"))?;
        let targets = view.count_all::<TargetRegistration>();
        ensure(targets == 0, || format!("{targets} targets are left"))
    }
}

fn service_is_settled(view: &Snapshot, service: &Service) -> Checked {
    let tasks: Vec<_> = view.find::<Task>(Task::OF_SERVICE, service.arn.as_str()).collect();
    let primary = service.primary().ok_or("no deployment")?;
    if primary.rollout_state == RolloutState::Failed {
        // The breaker ended it, and there was nothing to go back to, or it was not to.
        let breaker = &service.circuit_breaker;
        ensure(breaker.enable, || "failed without a breaker".into())?;
        ensure(!breaker.rollback || service.last_completed.is_none(), || "failed, and did not go back".into())?;
        let most = if service.scheduling_strategy == SchedulingStrategy::Replica {
            service.desired_count as usize
        } else {
            view.count::<ContainerInstance>(ContainerInstance::BY_CLUSTER, service.cluster_arn.as_str())
        };
        return ensure(tasks.len() <= most, || format!("{} tasks of {most}", tasks.len()));
    }
    let running =
        |task: &Task| task.last_status == TaskStatus::Running && task.desired_status == DesiredStatus::Running;
    ensure(tasks.iter().all(|task| running(task)), || "not all run".into())?;
    ensure(tasks.iter().all(|task| task.deployment_id.as_ref() == Some(&primary.id)), || "old tasks are left".into())?;
    let leaves = |task: &Task| {
        let place = task.container_instance_arn.as_ref().and_then(|arn| view.get::<ContainerInstance>(arn.as_str()));
        place.is_some_and(|place| {
            place.status != ContainerInstanceStatus::Active && places::is_last(view, service, &place)
        })
    };
    ensure(!tasks.iter().any(|task| leaves(task)), || "a task was left on an instance that drains".into())?;
    match service.scheduling_strategy {
        SchedulingStrategy::Replica => {
            let desired = service.desired_count as usize;
            ensure(tasks.len() == desired, || format!("{} tasks where {desired} are wanted", tasks.len()))?;
        }
        SchedulingStrategy::Daemon => {
            places::one_each(view, service, &tasks)?;
            // One that may not leave yet keeps the service from being steady.
            if tasks.len() > service.desired_count as usize {
                return Ok(());
            }
        }
    }
    ensure(service.deployments.len() == 1, || format!("{} deployments", service.deployments.len()))?;
    ensure(primary.rollout_state == RolloutState::Completed, || "the deployment is not complete".into())?;
    ensure(service.steady, || "it is not steady".into())?;
    ensure(service.last_completed == primary.revision_arn, || {
        "another revision counts as the last complete one".into()
    })?;
    let open = primary.service_deployment_arn.as_ref().and_then(|arn| view.get::<ServiceDeployment>(arn.as_str()));
    ensure(open.is_some_and(|known| !known.status.is_open()), || "its service deployment goes on".into())?;
    let prefix = ServiceEvent::prefix(service.arn.as_str());
    let events = view.list_before::<ServiceEvent>(&prefix, None);
    let mut last = events.filter(|event| event.message.contains("has started") || event.message.contains("steady"));
    ensure(last.next().is_some_and(|event| event.message.ends_with("has reached a steady state.")), || {
        "its events do not end with a steady state".into()
    })
}
