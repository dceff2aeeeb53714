//! Giving out network interfaces and public addresses: what RunTask, load balancers, NAT gateways and
//! CreateNetworkInterface have in common. Only the store changes here; the kernel follows by itself.

use std::{collections::BTreeSet, net::Ipv4Addr};

use domain::{
    IdSource, Scope, Tags, Timestamp,
    network::{
        Address, Cidr, NetworkInterface, NetworkInterfaceOwner, NetworkSettings, PublicAddress, SecurityGroup, Subnet,
    },
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

/// Security groups that one interface can have.
const MAX_GROUPS: usize = 5;
/// Public addresses at the start of the block that are the platform's own: the network, the host, and room.
const OWN_PUBLIC: u32 = 5;

/// Why an interface or an address cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No such subnet in this account and region.
    #[error("The subnet ID '{0}' does not exist")]
    SubnetNotFound(String),
    /// No such security group in this account and region.
    #[error("The security group '{0}' does not exist")]
    GroupNotFound(String),
    /// Subnet and security group are of different VPCs.
    #[error("Security group {group} and subnet {subnet} belong to different networks.")]
    DifferentNetworks {
        /// The group.
        group: String,
        /// The subnet.
        subnet: String,
    },
    /// More than five security groups.
    #[error("The maximum number of security groups per interface has been reached.")]
    TooManyGroups,
    /// All addresses of the subnet are in use.
    #[error("The specified subnet does not have enough free addresses to satisfy the request.")]
    SubnetFull,
    /// The address asked for is outside the subnet or reserved.
    #[error("Address {0} does not fall within the subnet's address range")]
    AddressOutside(Ipv4Addr),
    /// The address asked for is in use.
    #[error("The specified address is already in use.")]
    AddressInUse,
    /// All public addresses are in use.
    #[error("Insufficient addresses are available in the public block {0} of this platform")]
    NoPublicAddress(Cidr),
    /// The platform was started without network settings, which is a mistake in the program.
    #[error("the platform has no public address block")]
    NoSettings,
}

impl NetworkError {
    /// EC2's code for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SubnetNotFound(_) => "InvalidSubnetID.NotFound",
            Self::GroupNotFound(_) => "InvalidGroup.NotFound",
            Self::DifferentNetworks { .. } => "InvalidParameter",
            Self::TooManyGroups => "SecurityGroupsPerInterfaceLimitExceeded",
            Self::SubnetFull => "InsufficientFreeAddressesInSubnet",
            Self::AddressOutside(_) => "InvalidParameterValue",
            Self::AddressInUse => "InvalidIPAddress.InUse",
            Self::NoPublicAddress(_) => "InsufficientAddressCapacity",
            Self::NoSettings => "InternalError",
        }
    }
}

impl From<NetworkError> for ServiceError {
    fn from(error: NetworkError) -> Self {
        ServiceError::new(error.code(), error.to_string())
    }
}

/// An interface to make.
#[derive(Clone, Debug)]
pub struct NewInterface {
    /// Where.
    pub subnet_id: String,
    /// One to five groups of the subnet's VPC; none means the VPC's default group.
    pub security_groups: Vec<String>,
    /// Whether it gets a public address for as long as it exists.
    pub assign_public_address: bool,
    /// The private address wanted; `None` takes a free one.
    pub private_address: Option<Ipv4Addr>,
    /// Free text.
    pub description: String,
    /// For whom.
    pub owner: NetworkInterfaceOwner,
    /// Whether a service made it, so that users may not delete it.
    pub requester_managed: bool,
    /// Its tags.
    pub tags: Tags,
}

/// Sets the platform's public block, at every start: the default one of the platform's id unless another is given. What
/// was given out stays given out.
pub fn configure(tx: &mut Transaction, platform: &str, public_block: Option<Cidr>) {
    let public_block = public_block.unwrap_or_else(|| domain::network::public_block(platform));
    let settings = NetworkSettings { public_block };
    if tx.get::<NetworkSettings>(NetworkSettings::KEY).as_deref() != Some(&settings) {
        tx.put(settings);
    }
}

/// Makes a network interface: a free address of the subnet, a MAC address, security groups, a public address if asked
/// for. Nothing is written when it fails.
pub fn allocate_network_interface(
    tx: &mut Transaction,
    scope: &Scope,
    new: NewInterface,
    ids: &mut IdSource,
    now: Timestamp,
) -> Result<NetworkInterface, NetworkError> {
    let subnet = tx
        .get::<Subnet>(&scope.key(&new.subnet_id))
        .ok_or_else(|| NetworkError::SubnetNotFound(new.subnet_id.clone()))?;
    let security_groups = check_groups(tx, &subnet, new.security_groups)?;
    let private_address = private_address(tx, &subnet, new.private_address, ids)?;
    let public_address = match new.assign_public_address {
        true => {
            Some(PublicAddress { address: free_public_address(tx, ids)?, allocation_id: None, association_id: None })
        }
        false => None,
    };
    let interface = NetworkInterface {
        scope: scope.clone(),
        network_interface_id: ids.ec2("eni"),
        vpc_id: subnet.vpc_id.clone(),
        subnet_id: subnet.subnet_id.clone(),
        availability_zone: subnet.availability_zone.clone(),
        mac_address: NetworkInterface::new_mac_address(ids),
        private_address,
        security_groups,
        public_address,
        description: new.description,
        attachment_id: match new.owner {
            NetworkInterfaceOwner::User => None,
            _ => Some(ids.ec2("eni-attach")),
        },
        owner: new.owner,
        requester_managed: new.requester_managed,
        source_dest_check: true,
        created_at: now,
        client_token: None,
        tags: new.tags,
    };
    tx.put(interface.clone());
    Ok(interface)
}

/// Removes an interface and gives its addresses back; an elastic IP stays allocated. Nothing happens when there is no
/// such interface.
pub fn release_network_interface(tx: &mut Transaction, scope: &Scope, network_interface_id: &str) {
    let key = scope.key(network_interface_id);
    let Some(interface) = tx.get::<NetworkInterface>(&key) else { return };
    if let Some(allocation) = interface.public_address.as_ref().and_then(|public| public.allocation_id.as_ref()) {
        tx.update::<Address>(&scope.key(allocation), |address| {
            address.association_id = None;
            address.network_interface_id = None;
        });
    }
    tx.delete::<NetworkInterface>(&key);
}

/// The groups an interface in this subnet gets, in the order given: the VPC's default group when none are given.
pub(super) fn check_groups(
    view: &Snapshot,
    subnet: &Subnet,
    mut groups: Vec<String>,
) -> Result<Vec<String>, NetworkError> {
    if groups.is_empty() {
        let default = view.find::<SecurityGroup>("vpc", subnet.vpc_id.as_str()).find(|group| group.is_default());
        return Ok(default.map(|group| group.group_id.clone()).into_iter().collect());
    }
    let mut seen = BTreeSet::new();
    groups.retain(|group| seen.insert(group.clone()));
    if groups.len() > MAX_GROUPS {
        return Err(NetworkError::TooManyGroups);
    }
    for id in &groups {
        let group =
            view.get::<SecurityGroup>(&subnet.scope.key(id)).ok_or_else(|| NetworkError::GroupNotFound(id.clone()))?;
        if group.vpc_id != subnet.vpc_id {
            return Err(NetworkError::DifferentNetworks { group: id.clone(), subnet: subnet.subnet_id.clone() });
        }
    }
    Ok(groups)
}

fn private_address(
    view: &Snapshot,
    subnet: &Subnet,
    wanted: Option<Ipv4Addr>,
    ids: &mut IdSource,
) -> Result<Ipv4Addr, NetworkError> {
    let taken: BTreeSet<Ipv4Addr> = view
        .find::<NetworkInterface>("subnet", subnet.subnet_id.as_str())
        .map(|interface| interface.private_address)
        .collect();
    match wanted {
        Some(address) if !subnet.is_assignable(address) => Err(NetworkError::AddressOutside(address)),
        Some(address) if taken.contains(&address) => Err(NetworkError::AddressInUse),
        Some(address) => Ok(address),
        None => {
            let places = usize::try_from(subnet.cidr.size()).unwrap_or(1);
            subnet.free_address(&taken, ids.below(places)).map_err(|_| NetworkError::SubnetFull)
        }
    }
}

/// How many addresses of a subnet no interface has.
pub(super) fn available_addresses(view: &Snapshot, subnet: &Subnet) -> u64 {
    let used = view.count::<NetworkInterface>("subnet", subnet.subnet_id.as_str()) as u64;
    subnet.cidr.size().saturating_sub(Subnet::RESERVED).saturating_sub(used)
}

/// A public address that nothing has.
pub(super) fn free_public_address(view: &Snapshot, ids: &mut IdSource) -> Result<Ipv4Addr, NetworkError> {
    let settings = view.get::<NetworkSettings>(NetworkSettings::KEY).ok_or(NetworkError::NoSettings)?;
    let block = settings.public_block;
    let count = u32::try_from(block.size().saturating_sub(u64::from(OWN_PUBLIC) + 1)).unwrap_or(u32::MAX);
    if count == 0 {
        return Err(NetworkError::NoPublicAddress(block));
    }
    let start = u32::try_from(ids.below(count as usize)).unwrap_or(0);
    (0..count)
        .filter_map(|step| block.nth(OWN_PUBLIC + (start + step) % count))
        .find(|address| {
            let text = address.to_string();
            view.count::<NetworkInterface>("public", text.as_str()) == 0 && view.count::<Address>("public", text) == 0
        })
        .ok_or(NetworkError::NoPublicAddress(block))
}
