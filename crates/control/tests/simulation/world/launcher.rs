//! Makes tasks as `services::ecs::launch` does: the host by the real placement, on the fleets that follow the store, then an
//! interface where the task has a network. Whatever placement refuses is asked again of the reference.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use control::{Launcher, Refusal};
use domain::{
    Arn, IdSource, Timestamp,
    ecs::{NewTask, Task, TaskInterface, TaskNetwork},
};
use placement::{Demand, Fleets};
use store::Transaction;

use super::populate::ZONES;
use crate::{
    planted::{self, Bug},
    properties::places,
};

/// Where tasks are placed, and what was noticed meanwhile.
pub struct Places {
    fleets: Fleets,
    bug: Option<Bug>,
    noticed: Mutex<Noticed>,
    addresses: AtomicU16,
}

#[derive(Default)]
pub struct Noticed {
    /// Reasons for refusals.
    pub refused: Vec<String>,
    /// A refusal that was wrong.
    pub wrong: Option<String>,
}

impl Places {
    pub fn new(bug: Option<Bug>) -> Self {
        Self { fleets: Fleets::new(), bug, noticed: Mutex::default(), addresses: AtomicU16::new(1) }
    }

    /// What was noticed since this was last asked.
    pub fn noticed(&self) -> Noticed {
        std::mem::take(&mut *self.noticed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn choose(&self, tx: &Transaction, new: &NewTask<'_>, ids: &mut IdSource) -> Result<Arn, Refusal> {
        if let Some(chosen) = self.bug.and_then(|bug| planted::choose(bug, tx, new)) {
            if chosen.is_err() {
                let fits =
                    if new.compute.is_fargate() { places::on_fargate(tx, new) } else { places::on_instances(tx, new) };
                self.refuse("a planted bug".to_owned(), fits);
            }
            return chosen;
        }
        if new.compute.is_fargate() {
            let hosts = placement::fargate_hosts(tx);
            let host = placement::place_on_fargate(&hosts, new.memory);
            return host.map(|host| host.arn.clone()).map_err(|error| {
                self.refuse(format!("fargate: {error}"), places::on_fargate(tx, new));
                Refusal::NotPlaced(error.to_string())
            });
        }
        let demand = Demand::of(new, |_| None).map_err(|error| Refusal::NotLaunched(error.to_string()))?;
        let by_default = placement::create_service_default();
        let strategy = if new.placement.strategy.is_empty() { &by_default[..] } else { &new.placement.strategy };
        let chosen = self.fleets.ask(tx, &new.cluster.arn, |fleet| {
            let chosen = match &new.container_instance_arn {
                Some(arn) => fleet.place_on(arn, &demand),
                None => fleet.place(&demand, strategy, ids),
            };
            chosen.map(|instance| instance.arn().clone())
        });
        chosen.map_err(|refusal| {
            let reasons: BTreeSet<&str> = refusal.left_out.iter().map(|one| one.reason.as_str()).collect();
            let fits = places::on_instances(tx, new);
            reasons.into_iter().for_each(|reason| self.refuse(reason.to_owned(), fits.clone()));
            Refusal::NoInstance(refusal.to_string())
        })
    }

    fn refuse(&self, reason: String, but: Option<Arn>) {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(but) = but {
            noticed.wrong = Some(format!("placement refused with {reason}, though {but} has room"));
        }
        noticed.refused.push(reason);
    }
}

impl Launcher for Places {
    fn launch(
        &self,
        tx: &mut Transaction,
        new: NewTask<'_>,
        network: Option<&TaskNetwork>,
        ids: &mut IdSource,
        now: Timestamp,
    ) -> Result<Task, Refusal> {
        let host = self.choose(tx, &new, ids)?;
        let mut task = Task::new(NewTask { container_instance_arn: Some(host), ..new }, ids, now);
        if network.is_some() {
            let [high, low] = self.addresses.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            task.interface = Some(TaskInterface {
                attachment_id: ids.uuid(),
                network_interface_id: ids.ec2("eni"),
                subnet_id: "subnet-1".into(),
                availability_zone: ZONES[ids.below(3)].into(),
                mac_address: "0a:00:00:00:00:00".into(),
                private_address: Ipv4Addr::new(10, 0, high, low),
                private_dns_name: String::new(),
                attached: false,
            });
        }
        tx.put(task.clone());
        Ok(task)
    }

    fn release(&self, _: &mut Transaction, _: &Task) {}
}
