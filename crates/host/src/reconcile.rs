//! Making the kernel agree with the slice. Level-triggered: the same steps serve a change, a restart and the regular
//! look at everything; what is right is not touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

use domain::network::{
    Cidr,
    host::{HostReport, InterfaceItem, InterfaceState, VpcItem},
    names,
};

use crate::{
    desired::{Desired, DesiredVpc},
    interface::{self, Role},
    netns, nft, outside,
    router::{self, Listeners, Uplink},
    ruleset::{self, Ruleset},
};

/// Interfaces made at the same time: more only wait for the kernel's one lock.
const PARALLEL: usize = 8;

/// What is known to be in the kernel of one VPC.
#[derive(Default)]
struct Known {
    /// The router as it was last ensured.
    vpc: Option<(VpcItem, Uplink)>,
    /// The table as it was last applied; `None`: unknown, replace it.
    rules: Option<Ruleset>,
    interfaces: BTreeMap<String, InterfaceItem>,
    listening: bool,
}

/// What a reconciliation did.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Reports by key.
    pub(crate) reports: Vec<(String, HostReport)>,
    /// New routers' sockets, which must be served.
    pub(crate) listeners: Vec<(String, Listeners)>,
    /// Routers that are gone.
    pub(crate) removed: Vec<String>,
    /// What failed, for the log and for the report on the host; it is tried again soon.
    pub(crate) problems: Vec<String>,
}

/// Reconciles; remembers what it has done only to do less.
pub(crate) struct Reconciler {
    platform: String,
    endpoint_port: u16,
    known: BTreeMap<String, Known>,
    outside: Option<(Cidr, BTreeMap<String, BTreeSet<Ipv4Addr>>)>,
    /// Whether to look for links that nothing wants, too: after a start, and now and then.
    thorough: bool,
}

impl Reconciler {
    pub(crate) fn new(platform: String, endpoint_port: u16) -> Self {
        Self { platform, endpoint_port, known: BTreeMap::new(), outside: None, thorough: true }
    }

    /// Forgets what may have been changed by others, so that the next reconciliation looks at it.
    pub(crate) fn distrust(&mut self) {
        let table = names::table(&self.platform);
        self.thorough = true;
        if !outside::has_table(&self.platform) {
            self.outside = None;
        }
        for (vpc_id, known) in &mut self.known {
            known.vpc = None;
            let links = router::interface_links(&self.platform, vpc_id).unwrap_or_default();
            known.interfaces.retain(|id, _| {
                links.contains(&names::interface_link(id)) && netns::is_ready(&interface::path(&self.platform, id))
            });
            let path = router::path(&self.platform, vpc_id);
            let listed = netns::within(&path, || Ok(nft::list(&["list", "table", "inet", &table]))).unwrap_or_default();
            if !listed.contains("chain leaving") {
                known.rules = None;
            }
        }
    }

    /// Takes an interface's namespace away, so that the next reconciliation makes another in its place.
    pub(crate) fn renew(&mut self, interface_id: &str) -> io::Result<()> {
        for known in self.known.values_mut() {
            known.interfaces.remove(interface_id);
        }
        interface::remove(&self.platform, interface_id)
    }

    /// Makes the kernel agree. Blocks; must run in the host's network namespace.
    pub(crate) fn reconcile(&mut self, desired: &Desired, since: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        for key in &desired.malformed {
            outcome.problems.push(format!("{key} is not what it should be and was left out"));
        }
        let Some((block, uplink)) = desired.block.and_then(|block| Some((block, Uplink::of(block)?))) else {
            if !desired.vpcs.is_empty() {
                outcome.problems.push("the platform's public address block is not known".to_owned());
            }
            if desired.confirmed {
                self.remove_others(&Desired::default(), &mut outcome);
            }
            return outcome;
        };
        let adopting = !desired.confirmed && self.has_routers();
        for (vpc_id, vpc) in &desired.vpcs {
            if let Err(error) = self.ensure_router(vpc_id, vpc, uplink, &mut outcome) {
                outcome.problems.push(format!("the router of {vpc_id}: {error}"));
            }
        }
        if adopting {
            // What runs was made from a slice at least as new as the one on the disk: nothing of it is touched before the
            // server has spoken. Routers answer again, and that is all.
            return outcome;
        }
        if let Err(error) = self.ensure_outside(desired, block, uplink) {
            self.outside = None;
            outcome.problems.push(format!("the way out of the VPCs: {error}"));
        }
        for (vpc_id, vpc) in &desired.vpcs {
            self.reconcile_vpc(vpc_id, vpc, desired, since, &mut outcome);
        }
        if desired.confirmed {
            self.remove_others(desired, &mut outcome);
        }
        outcome
    }

    /// Whether an earlier process has left routers.
    fn has_routers(&self) -> bool {
        let prefix = format!("{}vpc-", names::netns_prefix(&self.platform));
        netns::list(&prefix).is_ok_and(|routers| !routers.is_empty())
    }

    fn ensure_router(
        &mut self,
        vpc_id: &str,
        vpc: &DesiredVpc,
        uplink: Uplink,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let known = self.known.entry(vpc_id.to_owned()).or_default();
        if known.vpc.as_ref() == Some(&(vpc.item.clone(), uplink)) {
            return Ok(());
        }
        if !netns::is_ready(&router::path(&self.platform, vpc_id)) {
            // A router that is new, or that somebody removed with all that was in it.
            *known = Known::default();
        }
        router::ensure(&self.platform, &vpc.item, uplink)?;
        if !known.listening {
            let listeners = router::listen(&self.platform, &vpc.item, self.endpoint_port)?;
            outcome.listeners.push((vpc_id.to_owned(), listeners));
            known.listening = true;
        }
        known.vpc = Some((vpc.item.clone(), uplink));
        Ok(())
    }

    fn ensure_outside(&mut self, desired: &Desired, block: Cidr, uplink: Uplink) -> io::Result<()> {
        let public: BTreeMap<_, _> =
            desired.vpcs.iter().map(|(vpc_id, vpc)| (vpc_id.clone(), vpc.public_addresses())).collect();
        let wanted = (block, public);
        if self.outside.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if self.outside.as_ref().is_none_or(|(known, _)| *known != block) {
            outside::ensure_forwarding(&self.platform, block)?;
        }
        outside::ensure(&self.platform, block, uplink, &wanted.1)?;
        self.outside = Some(wanted);
        Ok(())
    }

    /// Table and interfaces of one VPC, side by side: an interface gets its name only when the table knows it.
    fn reconcile_vpc(
        &mut self,
        vpc_id: &str,
        vpc: &DesiredVpc,
        desired: &Desired,
        since: Instant,
        outcome: &mut Outcome,
    ) {
        let Some(known) = self.known.get_mut(vpc_id).filter(|known| known.vpc.is_some()) else { return };
        let next = ruleset::compile(
            &vpc.item,
            &vpc.groups,
            vpc.interfaces.values(),
            &desired.speak_for_others,
            self.endpoint_port,
        );
        let table = names::table(&self.platform);
        let script = match &known.rules {
            Some(rules) if rules.has_same_base(&next) => rules.update(&next, &table),
            _ => next.replace(&table),
        };
        let missing: Vec<&InterfaceItem> = vpc
            .interfaces
            .values()
            .filter(|item| known.interfaces.get(&item.interface_id).is_none_or(|known| !is_same_link(known, item)))
            .collect();
        let path = router::path(&self.platform, vpc_id);
        let gate = Gate::default();
        let platform = self.platform.as_str();
        let made: Vec<(&InterfaceItem, io::Result<()>, f64)> = thread::scope(|scope| {
            scope.spawn(|| {
                // Always opens the gate: a panic within is an error outside.
                let applied = netns::within(&path, || nft::apply(&script));
                gate.open(applied.map_err(|error| error.to_string()));
            });
            let mut made = Vec::with_capacity(missing.len());
            for items in missing.chunks(PARALLEL) {
                let making: Vec<_> = items
                    .iter()
                    .map(|item| {
                        let gate = &gate;
                        let role = Role {
                            unprivileged_ports: desired.unprivileged_ports.contains(&item.interface_id),
                            speaks_for_others: desired.speak_for_others.contains(&item.interface_id),
                        };
                        scope.spawn(move || {
                            let result = interface::ensure(platform, item, role, || gate.pass());
                            (*item, result, since.elapsed().as_secs_f64() * 1000.0)
                        })
                    })
                    .collect();
                made.extend(making.into_iter().filter_map(|thread| thread.join().ok()));
            }
            made
        });
        match gate.outcome() {
            Ok(()) => known.rules = Some(next),
            Err(error) => {
                known.rules = None;
                outcome.problems.push(format!("the security groups of {vpc_id}: {error}"));
            }
        }
        for (item, result, milliseconds) in made {
            let (state, reason) = match result {
                Ok(()) => {
                    known.interfaces.insert(item.interface_id.clone(), item.clone());
                    (InterfaceState::Attached, None)
                }
                Err(error) => {
                    outcome.problems.push(format!("the interface {}: {error}", item.interface_id));
                    (InterfaceState::Failed, Some(error.to_string()))
                }
            };
            let report = HostReport::Interface { interface_id: item.interface_id.clone(), state, reason, milliseconds };
            outcome.reports.push((format!("eni/{}", item.interface_id), report));
        }
    }

    /// Removes what the slice does not have: interfaces, routers and, now and then, links left in routers.
    fn remove_others(&mut self, desired: &Desired, outcome: &mut Outcome) {
        let prefix = names::netns_prefix(&self.platform);
        let wanted: BTreeSet<&str> =
            desired.vpcs.values().flat_map(|vpc| vpc.interfaces.keys()).map(String::as_str).collect();
        let existing = match netns::list(&prefix) {
            Ok(existing) => existing,
            Err(error) => {
                outcome.problems.push(format!("the network namespaces: {error}"));
                return;
            }
        };
        let mut failed = |what: &str, result: io::Result<()>| {
            if let Err(error) = result {
                outcome.problems.push(format!("{what} cannot be removed: {error}"));
            }
        };
        let (mut routers, mut interfaces) = (BTreeSet::new(), BTreeSet::new());
        for name in &existing {
            match name.strip_prefix(&prefix) {
                Some(id) if id.starts_with("vpc-") => _ = routers.insert(id.to_owned()),
                Some(id) if id.starts_with("eni-") && !wanted.contains(id) => _ = interfaces.insert(id.to_owned()),
                _ => {}
            }
        }
        for known in self.known.values_mut() {
            known.interfaces.retain(|id, _| wanted.contains(id.as_str()));
        }
        for id in interfaces {
            failed(&id, interface::remove(&self.platform, &id));
        }
        if std::mem::take(&mut self.thorough) {
            for (vpc_id, vpc) in &desired.vpcs {
                let links = vpc.interfaces.keys().map(|id| names::interface_link(id)).collect();
                failed(vpc_id, router::remove_links(&self.platform, vpc_id, &links));
                let marks =
                    vpc.interfaces.values().filter(|item| desired.speak_for_others.contains(&item.interface_id));
                let marks = marks.map(|item| interface::mark(item.address)).collect();
                failed(vpc_id, router::remove_rules(&self.platform, vpc_id, &marks));
            }
        }
        for vpc_id in routers.iter().filter(|vpc_id| !desired.vpcs.contains_key(*vpc_id)) {
            failed(vpc_id, router::remove(&self.platform, vpc_id));
            self.known.remove(vpc_id);
            outcome.removed.push(vpc_id.clone());
        }
    }
}

/// Whether two items need the same link; groups and ways out are the table's.
fn is_same_link(one: &InterfaceItem, other: &InterfaceItem) -> bool {
    one.mac_address == other.mac_address
        && one.address == other.address
        && one.prefix == other.prefix
        && one.gateway == other.gateway
        && one.vpc_id == other.vpc_id
}

/// Lets threads wait for the outcome of another.
#[derive(Default)]
struct Gate {
    outcome: Mutex<Option<Result<(), String>>>,
    opened: Condvar,
}

impl Gate {
    fn open(&self, outcome: Result<(), String>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.opened.notify_all();
    }

    fn outcome(&self) -> Result<(), String> {
        let mut guard = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = guard.as_ref() {
                return outcome.clone();
            }
            guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pass(&self) -> io::Result<()> {
        self.outcome().map_err(io::Error::other)
    }
}
