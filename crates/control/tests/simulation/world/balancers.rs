//! The balancers find targets healthy whose container runs, and now and then one that does not answer.

use std::{collections::BTreeSet, net::IpAddr};

use domain::{
    balancing::{HealthReason, HealthState, ObservedHealth, TargetHealth, TargetRegistration},
    ecs::{ContainerInstance, LaunchType, Task},
    instances::Instance,
    network::NetworkInterface,
};
use store::Snapshot;

use super::{World, agents::State};
use crate::{coverage::Fault, properties::Checked};

/// Where a task is found, as its balancers know it.
pub fn address(view: &Snapshot, task: &Task) -> Option<IpAddr> {
    if task.launch_type == LaunchType::Fargate {
        return Some(task.interface.as_ref()?.private_address.into());
    }
    let host = view.get::<ContainerInstance>(task.container_instance_arn.as_ref()?.as_str())?;
    let machine = view.find::<Instance>(Instance::BY_ID, host.ec2_instance_id.as_deref()?).next()?;
    let interface = view.get::<NetworkInterface>(&machine.scope.key(&machine.interface_id))?;
    Some(interface.private_address.into())
}

impl World {
    pub(super) fn balancers_check(&mut self) -> Checked {
        self.remove_drained()?;
        let view = self.store.snapshot();
        let mut running: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
        for (task, process) in self.agents.values().flat_map(|agent| &agent.processes) {
            let task = view.get::<Task>(task).filter(|task| !task.load_balancers.is_empty());
            let Some(task) = task.filter(|_| process.state == State::Running) else { continue };
            let port = if task.launch_type == LaunchType::Fargate { 80 } else { process.host_port };
            running.extend(address(&view, &task).map(|address| (address, port)));
        }
        let mut news = Vec::new();
        for target in view.list::<TargetRegistration>("") {
            let known = view.get::<ObservedHealth>(&TargetRegistration::key_of(
                &target.target_group,
                target.address,
                target.port,
            ));
            let mut health = match (running.contains(&(target.address, target.port)), &known) {
                (true, _) => TargetHealth::HEALTHY,
                (false, Some(seen)) if seen.health == TargetHealth::HEALTHY => unhealthy(),
                (false, Some(seen)) if seen.health.state == HealthState::Unhealthy => unhealthy(),
                (false, _) => TargetHealth::CHECKING,
            };
            if self.faults && self.ids.below(self.mistaken) == 0 {
                self.fault(Fault::TargetUnhealthy);
                health = unhealthy();
            }
            if known.is_none_or(|known| known.health != health) {
                let (target_group, address, port) = (target.target_group.clone(), target.address, target.port);
                news.push(ObservedHealth { target_group, address, port, health });
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        self.progress = true;
        self.note(|| format!("{news:?}"));
        self.write(|tx| news.into_iter().for_each(|one| tx.put(one)))
    }
}

fn unhealthy() -> TargetHealth {
    TargetHealth { state: HealthState::Unhealthy, reason: Some(HealthReason::Timeout) }
}
