//! The control plane: keys wait in the real queue, the real reconcilers plan, the real committer applies, and all of it can
//! die between any two commits.

use control::{Key, Plan, Step, watching};
use domain::{
    balancing::TargetRegistration,
    ecs::{AgentConnection, ContainerInstance, ContainerInstanceStatus},
};
use futures_util::FutureExt;
use store::{Changes, Snapshot, Store};

use super::{World, kinds, machines};
use crate::{
    coverage::{Coverage, Fault},
    planted,
    properties::{self, Checked},
};

/// How many keys the driver plans for in one transaction.
const BATCH: usize = 128;

impl World {
    /// The control plane dies: what is durable stays, everything else is gone, and every agent is away.
    pub(super) fn crash(&mut self, fault: Fault) -> Checked {
        self.fault(fault);
        self.store = Store::open(self.journal.clone(), kinds()).unwrap();
        self.watch = self.store.watch();
        self.queue = Default::default();
        if !planted::forgets(self.bug) {
            for key in watching::everything(&self.store.snapshot()) {
                self.queue.push(key, self.now);
            }
        }
        for agent in self.agents.values_mut() {
            agent.connected = false;
        }
        let absences: Vec<_> = self
            .store
            .snapshot()
            .list::<ContainerInstance>("")
            .filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
            .map(|instance| machines::absence(&instance, self.now, self.lost_after))
            .collect();
        self.transact(|tx| absences.into_iter().for_each(|absence| tx.put(absence)));
        // Some are back at once.
        let agents: Vec<_> = self.agents.keys().cloned().collect();
        for arn in agents {
            if self.ids.below(3) > 0 {
                self.connect(&arn);
            }
        }
        Ok(())
    }

    pub(super) fn enqueue_changes(&mut self) {
        while let Some(Some(changes)) = self.watch.next().now_or_never() {
            let view = self.store.snapshot();
            let keys: Vec<Key> = match &changes {
                Changes::Keys(changes) => {
                    let heard = changes.iter().filter(|change| planted::hears(self.bug, change));
                    heard.flat_map(|change| watching::concerned(&view, change)).collect()
                }
                Changes::Lagged => watching::everything(&view),
            };
            keys.into_iter().for_each(|key| self.queue.push(key, self.now));
        }
    }

    /// Whether a key is due.
    pub(super) fn is_due(&self) -> bool {
        self.queue.next_at().is_some_and(|at| at <= self.now)
    }

    /// Plans for some keys and commits, in one transaction or several, with something else in between now and then.
    pub(super) fn reconcile_some(&mut self) -> Checked {
        self.enqueue_changes();
        let most = if self.faults { [1, 2, 4, 8, 16, BATCH][self.ids.below(6)] } else { BATCH };
        let keys = self.queue.take(self.now, most);
        let view = self.store.snapshot();
        let plans: Vec<(Key, Plan)> = keys.into_iter().map(|key| (key.clone(), self.plan(&view, &key))).collect();
        let mut steps = Vec::new();
        for (key, plan) in plans {
            if let Some(at) = plan.again_at.filter(|_| !planted::oversleeps(self.bug)) {
                self.queue.push(key.clone(), at);
            }
            steps.extend(plan.step);
        }
        if self.faults && !steps.is_empty() {
            match self.ids.below(40) {
                0..5 => {
                    self.fault(Fault::OvertakenPlan);
                    self.agents_follow();
                    self.deliver(8)?;
                    // Verdicts that change while a plan waits are rare, and matter.
                    self.mistaken = 4;
                    self.balancers_check()?;
                    self.mistaken = 40;
                }
                5 => {
                    self.fault(Fault::OvertakenPlan);
                    self.user_acts()?;
                }
                6..8 => {
                    self.fault(Fault::OvertakenPlan);
                    self.machine_acts()?;
                }
                8 => return self.crash(Fault::CrashWithPlans),
                _ => {}
            }
        }
        self.commit(&steps)
    }

    fn plan(&mut self, view: &Snapshot, key: &Key) -> Plan {
        match self.bug {
            None => control::reconcile(view, key, self.now),
            Some(bug) => {
                let now = self.now;
                planted::plan(bug, &self.store, &self.runtime, view, key, now)
            }
        }
    }

    /// Applies steps in one transaction, as the driver does, and looks at what each has done.
    fn commit(&mut self, steps: &[Step]) -> Checked {
        if steps.is_empty() {
            return Ok(());
        }
        self.progress = true;
        let now = self.now;
        let mut queue = std::mem::take(&mut self.queue);
        let mut ids = domain::IdSource::from_seed(self.number());
        let (places, bug) = (self.places.clone(), self.bug);
        let mut outcome = Ok(());
        let mut told = Vec::new();
        let tell = self.trace.is_some();
        let mut coverage = Coverage::default();
        let written = self.write(|tx| {
            for step in steps {
                let before = Snapshot::clone(tx);
                planted::commit(bug, tx, step, &*places, &mut queue, &mut ids, now);
                coverage.decided(step, &before, tx);
                if outcome.is_ok() {
                    outcome = properties::of_step(&before, tx, step, now);
                }
                if tell {
                    told.push(format!("{step:?}"));
                }
            }
        });
        self.queue = queue;
        self.coverage.merge(coverage);
        told.into_iter().for_each(|text| self.note(|| text));
        let noticed = self.places.noticed();
        noticed.refused.iter().for_each(|reason| self.coverage.refused(reason));
        outcome?;
        written?;
        noticed.wrong.map_or(Ok(()), Err)
    }

    /// Removes targets that have drained, as the loop beside the driver does.
    pub(super) fn remove_drained(&mut self) -> Checked {
        let due = control::targets::drained::reconcile(&self.store.snapshot(), self.now);
        if due.over.is_empty() {
            return Ok(());
        }
        self.progress = true;
        let now = self.now;
        self.write(|tx| control::targets::drained::remove(tx, now))
    }

    /// When time alone changes something.
    pub(super) fn next_at(&self) -> Option<domain::Timestamp> {
        let drained = control::targets::drained::reconcile(&self.store.snapshot(), self.now).next;
        drained.into_iter().chain(self.queue.next_at()).min()
    }

    /// How many agents are connected and how many targets there are, for traces.
    pub(super) fn outline(&self) -> String {
        let view = self.store.snapshot();
        let targets = view.count_all::<TargetRegistration>();
        format!("{} agents connected, {targets} targets", view.count_all::<AgentConnection>())
    }
}
