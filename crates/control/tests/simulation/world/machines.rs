//! Machines and the connections of their agents.

use std::time::Duration;

use domain::{
    Arn, Timestamp,
    agent_protocol::FARGATE_CLUSTER,
    ecs::{AgentAbsence, AgentConnection, ContainerInstance, ContainerInstanceStatus, Task},
    instances::{Instance, Machine, Observed, Power},
};

use super::{PATIENCE, World, agents::Agent, populate::ZONES};
use crate::{
    coverage::{Fault, Size},
    nouns,
    properties::Checked,
};

/// CPU units and MiB of a machine, by size: tight, so that not everything fits everywhere.
const SIZES: [(u32, u32); 4] = [(320, 768), (512, 768), (512, 1024), (1024, 2048)];

pub fn absence(instance: &ContainerInstance, since: Timestamp, lost_after: Option<Duration>) -> AgentAbsence {
    let lost_at = lost_after.filter(|_| !instance.is_fargate()).map(|after| since + after);
    AgentAbsence { container_instance_arn: instance.arn.clone(), since, patience: PATIENCE, lost_at }
}

fn is_fargate(arn: &Arn) -> bool {
    arn.resource_path().starts_with(FARGATE_CLUSTER)
}

impl World {
    /// A new machine registers a container instance.
    pub(super) fn register(&mut self, size: usize) -> Arn {
        self.machines += 1;
        let number = self.machines;
        let zone = ZONES[usize::from(number) % 3];
        let class = if number.is_multiple_of(2) { "a" } else { "b" };
        let (machine, interface) = nouns::machine(&self.scope, zone, number, self.now);
        let (cpu, memory) = SIZES[size];
        let known = nouns::container_instance(&self.scope, "default", &mut self.ids, self.now);
        let instance = ContainerInstance {
            ec2_instance_id: Some(machine.instance_id.clone()),
            attributes: nouns::attributes(zone, class),
            cpu,
            memory,
            ..known
        };
        let arn = instance.arn.clone();
        self.coverage.add(Size::Instances, 1);
        self.transact(|tx| {
            tx.put(machine);
            tx.put(interface);
            tx.put(instance);
        });
        self.agents.insert(arn.clone(), Default::default());
        self.connect(&arn);
        arn
    }

    /// An agent connects and says all it knows.
    pub(super) fn connect(&mut self, arn: &Arn) {
        let Some(agent) = self.agents.get_mut(arn).filter(|agent| !agent.connected) else { return };
        agent.connected = true;
        agent.forget_what_was_told();
        self.progress = true;
        let connection = AgentConnection {
            container_instance_arn: arn.clone(),
            connected_at: self.now,
            connection_id: String::new(),
            patience: PATIENCE,
        };
        self.transact(|tx| {
            tx.put(connection);
            tx.delete::<AgentAbsence>(arn.as_str());
        });
    }

    fn disconnect(&mut self, arn: &Arn) -> Checked {
        let Some(agent) = self.agents.get_mut(arn).filter(|agent| agent.connected) else { return Ok(()) };
        agent.connected = false;
        self.absent(arn)
    }

    fn absent(&mut self, arn: &Arn) -> Checked {
        let (now, lost_after) = (self.now, self.lost_after);
        self.write(|tx| {
            tx.delete::<AgentConnection>(arn.as_str());
            if let Some(instance) = tx.get::<ContainerInstance>(arn.as_str())
                && instance.status != ContainerInstanceStatus::Inactive
            {
                tx.put(absence(&instance, now, lost_after));
            }
        })
    }

    /// Something happens to a machine, its agent, or what is wanted of its instance.
    pub(super) fn machine_acts(&mut self) -> Checked {
        let all: Vec<Arn> = self.agents.keys().cloned().collect();
        let Some(arn) = all.get(self.ids.below(all.len())).cloned() else { return Ok(()) };
        let fargate = is_fargate(&arn);
        let connected = self.agents.get(&arn).is_some_and(|agent| agent.connected);
        match self.ids.below(20) {
            0..5 if connected => {
                self.fault(Fault::AgentLost);
                self.disconnect(&arn)
            }
            0..9 => {
                let away = self.agents.iter().find(|(_, agent)| !agent.connected).map(|(arn, _)| arn.clone());
                if let Some(arn) = away {
                    self.fault(Fault::AgentBack);
                    self.connect(&arn);
                }
                Ok(())
            }
            9..11 => {
                // Its containers are gone; the agent is back in a moment.
                self.fault(Fault::MachineRebooted);
                if let Some(agent) = self.agents.get_mut(&arn) {
                    agent.end_all();
                }
                self.disconnect(&arn)
            }
            _ if fargate => Ok(()),
            11..14 => self.terminate(&arn),
            14..17 => {
                self.fault(Fault::InstanceDrained);
                self.set(&arn, ContainerInstanceStatus::Draining)
            }
            _ => {
                let view = self.store.snapshot();
                let draining = |arn: &&Arn| {
                    let instance = view.get::<ContainerInstance>(arn.as_str());
                    instance.is_some_and(|one| one.status == ContainerInstanceStatus::Draining)
                };
                let Some(arn) = all.iter().find(draining) else { return Ok(()) };
                self.fault(Fault::InstanceActive);
                self.set(arn, ContainerInstanceStatus::Active)
            }
        }
    }

    /// The machine is gone for good, and what ran on it. A new one comes in its place.
    fn terminate(&mut self, arn: &Arn) -> Checked {
        self.agents.remove(arn);
        let deregistered = self.ids.below(2) == 0;
        self.fault(if deregistered { Fault::MachineDeregistered } else { Fault::MachineTerminated });
        if deregistered {
            let key = arn.to_string();
            self.write(|tx| {
                tx.delete::<AgentConnection>(&key);
                tx.delete::<AgentAbsence>(&key);
            })?;
            self.set(arn, ContainerInstanceStatus::Inactive)?;
        } else {
            let now = self.now;
            let arn = arn.to_string();
            self.write(|tx| {
                let id = tx.get::<ContainerInstance>(&arn).and_then(|instance| instance.ec2_instance_id.clone());
                let machine = id.and_then(|id| tx.find::<Instance>(Instance::BY_ID, id).next());
                if let Some(machine) = machine {
                    let observed = Observed { boot: 1, machine: Machine::Off, reason: None, at: now };
                    let power = Power::Terminated;
                    tx.put(Instance { power, observed: Some(observed), ended_at: Some(now), ..(*machine).clone() });
                }
            })?;
        }
        if !deregistered {
            self.absent(arn)?;
        }
        let size = self.ids.below(3);
        self.register(size);
        Ok(())
    }

    /// One thing happens to a machine that has tasks, or to one of its tasks.
    pub(super) fn nudge(&mut self) -> Checked {
        let view = self.store.snapshot();
        let tasks = |arn: &Arn| view.count::<Task>(Task::ON_INSTANCE, arn.as_str());
        let used: Vec<Arn> = self.agents.keys().filter(|arn| !is_fargate(arn) && tasks(arn) > 1).cloned().collect();
        let Some(arn) = used.get(self.ids.below(used.len())).cloned() else { return Ok(()) };
        match self.ids.below(4) {
            0 => self.terminate(&arn),
            1 => {
                self.fault(Fault::MachineRebooted);
                self.agents.get_mut(&arn).into_iter().for_each(Agent::end_all);
                Ok(())
            }
            _ => {
                self.fault(Fault::InstanceDrained);
                self.set(&arn, ContainerInstanceStatus::Draining)
            }
        }
    }

    fn set(&mut self, arn: &Arn, status: ContainerInstanceStatus) -> Checked {
        self.note(|| format!("{arn} is {status:?}"));
        self.write(|tx| {
            tx.update::<ContainerInstance>(arn.as_str(), |one| one.status = status);
        })
    }
}
