//! Where an instance goes: its subnet, security groups and addresses, from what was said and the default VPC.

use std::{net::Ipv4Addr, sync::Arc};

use domain::{
    instances::LaunchData,
    network::{Subnet, Vpc},
};
use store::Snapshot;
use wire::ServiceError;

use crate::{
    Call,
    ec2::{
        allocation::check_groups,
        common::{find, invalid_value},
        gateways::parse_address,
        security_groups::resolve,
    },
};

/// Where an instance goes.
pub(super) struct Place {
    pub(super) subnet: Arc<Subnet>,
    pub(super) groups: Vec<String>,
    pub(super) public_address: bool,
    pub(super) private_address: Option<Ipv4Addr>,
    pub(super) delete_on_termination: bool,
    pub(super) description: String,
}

fn combination(text: &str) -> ServiceError {
    ServiceError::new("InvalidParameterCombination", text)
}

/// Finds it, and refuses what does not go together.
pub(super) fn place(call: &Call, view: &Snapshot, data: &LaunchData) -> Result<Place, ServiceError> {
    let interface = data.interface.clone().unwrap_or_default();
    if data.interface.is_some() {
        if data.subnet_id.is_some() {
            let text = "Network interfaces and an instance-level subnet ID may not be specified on the same request";
            return Err(combination(text));
        }
        if !data.security_group_ids.is_empty() || !data.security_groups.is_empty() {
            let text =
                "Network interfaces and an instance-level security groups may not be specified on the same request";
            return Err(combination(text));
        }
        if data.private_address.is_some() {
            let text = "Network interfaces and an instance-level private address may not be specified on the same \
                request";
            return Err(combination(text));
        }
    }
    let asked = interface.subnet_id.as_ref().or(data.subnet_id.as_ref());
    if asked.is_some() && !data.security_groups.is_empty() {
        return Err(combination("The parameter groupName cannot be used with the parameter subnet"));
    }
    let zone = data.availability_zone.as_deref();
    if let Some(zone) = zone.filter(|zone| !call.scope.availability_zones().iter().any(|known| known == zone)) {
        let text = format!("Invalid availability zone: [{zone:.64}]");
        return Err(ServiceError::new("InvalidParameterValue", text));
    }
    let subnet = match asked {
        Some(id) => {
            let subnet = find::<Subnet>(call, view, id)?;
            if let Some(zone) = zone.filter(|zone| *zone != subnet.availability_zone) {
                let why = format!("Subnet '{id}' is in the availability zone {}", subnet.availability_zone);
                return Err(invalid_value(zone, "availabilityZone", &why));
            }
            subnet
        }
        None => default_subnet(call, view, zone)?,
    };
    let mut groups = if data.interface.is_some() { interface.groups } else { data.security_group_ids.clone() };
    for name in &data.security_groups {
        groups.push(resolve(call, view, None, Some(name.clone()))?);
    }
    let address = interface.private_address.as_ref().or(data.private_address.as_ref());
    Ok(Place {
        groups: check_groups(view, &subnet, groups)?,
        public_address: interface.associate_public_address.unwrap_or(subnet.map_public_ip_on_launch),
        private_address: address.map(|text| parse_address(text, "privateIpAddress")).transpose()?,
        delete_on_termination: interface.delete_on_termination.unwrap_or(true),
        description: interface.description.unwrap_or_default(),
        subnet,
    })
}

/// The default VPC's default subnet of a zone; of the first zone that has one when none was said.
fn default_subnet(call: &Call, view: &Snapshot, zone: Option<&str>) -> Result<Arc<Subnet>, ServiceError> {
    let vpc = view.list::<Vpc>(&call.scope.prefix()).find(|vpc| vpc.is_default).ok_or_else(|| {
        let text = "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.";
        ServiceError::new("VPCIdNotSpecified", text)
    })?;
    let subnets = view.find::<Subnet>("vpc", vpc.vpc_id.as_str()).filter(|subnet| subnet.default_for_az);
    let wanted = subnets.filter(|subnet| zone.is_none_or(|zone| subnet.availability_zone == zone));
    wanted.min_by(|one, other| one.availability_zone.cmp(&other.availability_zone)).ok_or_else(|| match zone {
        Some(zone) => ServiceError::new("InvalidInput", format!("No default subnet for availability zone: '{zone}'.")),
        None => {
            let text = format!("No subnets found for the default VPC '{}'. Please specify a subnet.", vpc.vpc_id);
            ServiceError::new("MissingInput", text)
        }
    })
}
