//! EC2's words, codes and tags of each kind of resource.

use domain::{
    Tags,
    instances::{Instance, LaunchTemplate, MachineImage, Volume},
    network::{
        Address, DhcpOptions, InternetGateway, NatGateway, NetworkInterface, RouteTable, SecurityGroup, Subnet, Vpc,
    },
};
use wire::ServiceError;

use super::common::Noun;

macro_rules! noun {
    ($type:ty, $id:ident, $name:literal, $code:literal, $word:literal) => {
        impl Noun for $type {
            const TYPE: &'static str = $name;
            const NOT_FOUND: &'static str = $code;
            const WORD: &'static str = $word;
            fn id(&self) -> &str {
                &self.$id
            }
            fn tags(&self) -> &Tags {
                &self.tags
            }
            fn tags_mut(&mut self) -> &mut Tags {
                &mut self.tags
            }
        }
    };
}

noun!(Vpc, vpc_id, "vpc", "InvalidVpcID.NotFound", "vpc ID");
noun!(Subnet, subnet_id, "subnet", "InvalidSubnetID.NotFound", "subnet ID");
noun!(SecurityGroup, group_id, "security-group", "InvalidGroup.NotFound", "security group");
noun!(RouteTable, route_table_id, "route-table", "InvalidRouteTableID.NotFound", "routeTable ID");
noun!(
    InternetGateway,
    internet_gateway_id,
    "internet-gateway",
    "InvalidInternetGatewayID.NotFound",
    "internetGateway ID"
);
noun!(
    NetworkInterface,
    network_interface_id,
    "network-interface",
    "InvalidNetworkInterfaceID.NotFound",
    "networkInterface ID"
);
noun!(Address, allocation_id, "elastic-ip", "InvalidAllocationID.NotFound", "allocation ID");
noun!(DhcpOptions, dhcp_options_id, "dhcp-options", "InvalidDhcpOptionID.NotFound", "dhcpOption ID");
noun!(Instance, instance_id, "instance", "InvalidInstanceID.NotFound", "instance ID");
noun!(MachineImage, image_id, "image", "InvalidAMIID.NotFound", "image ID");
noun!(Volume, volume_id, "volume", "InvalidVolume.NotFound", "volume");

impl Noun for LaunchTemplate {
    const TYPE: &'static str = "launch-template";
    const NOT_FOUND: &'static str = "InvalidLaunchTemplateId.NotFound";
    const WORD: &'static str = "launch template ID";
    fn id(&self) -> &str {
        &self.launch_template_id
    }
    fn tags(&self) -> &Tags {
        &self.tags
    }
    fn tags_mut(&mut self) -> &mut Tags {
        &mut self.tags
    }
    fn not_found(id: &str) -> ServiceError {
        let text = format!("The specified launch template, with template ID {id:.64}, does not exist.");
        ServiceError::new(Self::NOT_FOUND, text)
    }
}

impl Noun for NatGateway {
    const TYPE: &'static str = "natgateway";
    const NOT_FOUND: &'static str = "NatGatewayNotFound";
    const WORD: &'static str = "Nat Gateway";
    fn id(&self) -> &str {
        &self.nat_gateway_id
    }
    fn tags(&self) -> &Tags {
        &self.tags
    }
    fn tags_mut(&mut self) -> &mut Tags {
        &mut self.tags
    }
    fn not_found(id: &str) -> ServiceError {
        ServiceError::new(Self::NOT_FOUND, format!("The Nat Gateway {id:.64} was not found"))
    }
}
