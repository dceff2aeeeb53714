//! Network load balancers: TCP connections carried to targets as they are. [`Table`] is the part of the routing that says
//! where they go, [`flow`] carries them, [`header`] is the PROXY protocol.
//!
//! A flow's addresses and ports decide on its target, by rendezvous hashing: no state, the same on every worker, and when
//! a target goes only its own flows go elsewhere.
//! Mirrors <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/introduction.html>.

pub mod flow;
pub mod header;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use domain::balancing::{
    HealthState, TcpTargetGroup,
    network::is_network,
    slice::{SliceItem, TargetGroupItem},
};
use tokio::sync::watch;

/// Where the connections of each listener go. Immutable, as the routing is.
#[derive(Debug)]
pub struct Table {
    /// Whether there are no listeners but these.
    alone: bool,
    listeners: HashMap<u16, usize>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    arn: String,
    settings: TcpTargetGroup,
    targets: Vec<Target>,
    /// Indexes of those that get connections.
    eligible: Vec<usize>,
    /// The same per node, where it is not the same for all.
    zones: Vec<(IpAddr, Vec<usize>)>,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    address: SocketAddr,
    /// Found unhealthy while others are healthy.
    shunned: bool,
}

/// A target as a flow remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chosen {
    /// The target group's ARN.
    pub group: String,
    /// The target.
    pub address: SocketAddr,
    /// Whether the connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether the connection comes from the client's address.
    pub preserve_client_ip: bool,
}

/// The ends of a client's connection.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Ends {
    /// The client's.
    pub client: SocketAddr,
    /// Ours.
    pub node: SocketAddr,
}

impl Group {
    fn compile(
        item: &TargetGroupItem,
        forwarding: &domain::balancing::network::TcpForwarding,
        health: &dyn Fn(&str, IpAddr, u16) -> HealthState,
    ) -> Self {
        let state = |index: usize| {
            let target = item.targets.get(index)?;
            (!target.draining).then(|| health(&item.arn, target.address, target.port))
        };
        let with = |wanted: fn(HealthState) -> bool| -> Vec<usize> {
            (0..item.targets.len()).filter(|index| state(*index).is_some_and(wanted)).collect()
        };
        let healthy = with(|state| state == HealthState::Healthy);
        let open = healthy.is_empty() && !item.fail_closed;
        // Fail open: without a single healthy target all of them get connections.
        let eligible = if open { with(|_| true) } else { healthy };
        let target = |(index, target): (usize, &domain::balancing::slice::TargetItem)| Target {
            address: SocketAddr::new(target.address, target.port),
            shunned: !open && state(index) == Some(HealthState::Unhealthy),
        };
        let targets: Vec<Target> = item.targets.iter().enumerate().map(target).collect();
        let zones = forwarding.zones.iter().map(|zone| {
            let within = |index: &usize| {
                let address = targets.get(*index).map(|target| (target.address.ip(), target.address.port()));
                address.is_some_and(|address| zone.targets.contains(&address))
            };
            (IpAddr::from(zone.node), eligible.iter().copied().filter(within).collect())
        });
        let zones = zones.collect();
        Self { arn: item.arn.clone(), settings: forwarding.settings.clone(), targets, eligible, zones }
    }

    fn choose(&self, ends: Ends) -> Option<Chosen> {
        // A node in whose zone no target can be used is none that clients would find at Amazon: it uses the others'.
        let zone = self.zones.iter().find(|(node, among)| *node == ends.node.ip() && !among.is_empty());
        let among = zone.map_or(&self.eligible, |(_, among)| among);
        let rank = |address: SocketAddr| {
            let mut hasher = DefaultHasher::new();
            if self.settings.source_ip_stickiness {
                ends.client.ip().hash(&mut hasher);
            } else {
                ends.hash(&mut hasher);
            }
            address.hash(&mut hasher);
            hasher.finish()
        };
        let addresses = among.iter().filter_map(|index| self.targets.get(*index)).map(|target| target.address);
        let address = addresses.max_by_key(|address| rank(*address))?;
        let TcpTargetGroup { proxy_protocol, preserve_client_ip, .. } = self.settings;
        Some(Chosen { group: self.arn.clone(), address, proxy_protocol, preserve_client_ip })
    }
}

impl Table {
    /// Compiles the slice of a network load balancer, or what a classic one has of TCP listeners; none of another.
    pub fn compile<'a>(
        items: impl Iterator<Item = &'a SliceItem> + Clone,
        health: &dyn Fn(&str, IpAddr, u16) -> HealthState,
    ) -> Option<Self> {
        let network = |item: &SliceItem| matches!(item, SliceItem::LoadBalancer(item) if is_network(&item.arn));
        let alone = items.clone().any(network);
        let group = |item: &SliceItem| match item {
            SliceItem::TargetGroup(item) => Some(Group::compile(item, item.tcp.as_ref()?, health)),
            _ => None,
        };
        let groups: Vec<Group> = items.clone().filter_map(group).collect();
        if !alone && groups.is_empty() {
            return None;
        }
        let listener = |item: &SliceItem| match item {
            SliceItem::Listener(item) => {
                let mut named = item.default_action.target_groups();
                let index = named.find_map(|arn| groups.iter().position(|group| group.arn == arn))?;
                Some((item.port, index))
            }
            _ => None,
        };
        Some(Self { alone, listeners: items.filter_map(listener).collect(), groups })
    }

    /// Whether what is accepted on `port` is a connection to carry, and not one with requests.
    pub fn carries(&self, port: u16) -> bool {
        self.alone || self.listeners.contains_key(&port)
    }

    /// The target of a connection accepted on `port`; none if there is none.
    pub fn choose(&self, port: u16, ends: Ends) -> Option<Chosen> {
        self.groups.get(*self.listeners.get(&port)?)?.choose(ends)
    }

    /// Whether connections to a target chosen earlier go on.
    fn keeps(&self, chosen: &Chosen) -> bool {
        // Those of a group that is no longer used finish what they have.
        let Some(group) = self.groups.iter().find(|group| group.arn == chosen.group) else { return true };
        match group.targets.iter().find(|target| target.address == chosen.address) {
            // Its deregistration delay is over.
            None => !group.settings.deregistration_termination,
            Some(target) => !(target.shunned && group.settings.unhealthy_termination),
        }
    }
}

/// A worker's open flows by their target. One whose entry is gone is cut.
#[derive(Debug, Default)]
pub struct Flows(RefCell<HashMap<Chosen, watch::Sender<()>>>);

impl Flows {
    /// Enters a flow. What it gets changes when the flow is to be cut.
    fn enter(&self, chosen: &Chosen) -> watch::Receiver<()> {
        let mut flows = self.0.borrow_mut();
        flows.entry(chosen.clone()).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Cuts those that `table` does not keep, and forgets targets without flows.
    pub fn settle(&self, table: Option<&Table>) {
        let keeps = |chosen: &Chosen| table.is_none_or(|table| table.keeps(chosen));
        self.0.borrow_mut().retain(|chosen, flows| flows.receiver_count() > 0 && keeps(chosen));
    }
}
