//! EC2's face of the network (ec2Query): VPCs, subnets, route tables, gateways, security groups, network interfaces,
//! instances with their volumes, images and launch templates, and the facts about regions and zones that tools ask for.
//!
//! Rules that need nothing but the nouns are in `domain::network`; the kernel follows through [`host_slice`].

mod allocation;
mod common;
mod credentials;
mod default_vpc;
mod facts;
mod gateways;
mod host_slice;
pub(crate) mod images;
mod instances;
mod interfaces;
mod launch_templates;
mod nouns;
pub mod observe;
mod permissions;
mod route_tables;
mod security_group_rules;
mod security_groups;
mod subnets;
mod tags;
mod volume_types;
mod volumes;
mod vpcs;

use domain::instances::{ConsoleOutput, Instance, LaunchTemplate, LaunchTemplateVersion, MachineImage, Volume};
use domain::network::{
    Address, DhcpOptions, InternetGateway, NatGateway, NetworkInterface, NetworkSettings, RouteTable, SecurityGroup,
    Subnet, Vpc,
};

pub use allocation::{NetworkError, NewInterface, allocate_network_interface, configure, release_network_interface};
pub use credentials::instance_credentials;
pub use default_vpc::ensure_region;
pub use host_slice::host_slice;
pub use instances::spot::interrupt as interrupt_spot_instance;

use crate::Call;

/// The service. Operations that are not here answer that they are not served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ec2;

/// The operations served, each by a function of the resource it is about.
macro_rules! serve {
    ($($operation:ident: $input:ty => $output:ty = $function:path;)+) => {
        impl api::ec2::Ec2 for Ec2 {
            type Call = Call;
            $(async fn $operation(&self, call: Call, input: $input) -> Result<$output, wire::ServiceError> {
                $function(call, input).await
            })+
        }
    };
}

serve! {
    allocate_address: api::ec2::AllocateAddressRequest => api::ec2::AllocateAddressResult = gateways::allocate;
    associate_address: api::ec2::AssociateAddressRequest => api::ec2::AssociateAddressResult = gateways::associate_address;
    associate_iam_instance_profile: api::ec2::AssociateIamInstanceProfileRequest => api::ec2::AssociateIamInstanceProfileResult = instances::profiles::associate;
    associate_route_table: api::ec2::AssociateRouteTableRequest => api::ec2::AssociateRouteTableResult = route_tables::associate;
    attach_internet_gateway: api::ec2::AttachInternetGatewayRequest => () = gateways::attach_internet;
    attach_volume: api::ec2::AttachVolumeRequest => api::ec2::VolumeAttachment = volumes::attach;
    authorize_security_group_egress: api::ec2::AuthorizeSecurityGroupEgressRequest => api::ec2::AuthorizeSecurityGroupEgressResult = security_group_rules::authorise_egress;
    authorize_security_group_ingress: api::ec2::AuthorizeSecurityGroupIngressRequest => api::ec2::AuthorizeSecurityGroupIngressResult = security_group_rules::authorise_ingress;
    create_default_vpc: api::ec2::CreateDefaultVpcRequest => api::ec2::CreateDefaultVpcResult = vpcs::create_default;
    create_internet_gateway: api::ec2::CreateInternetGatewayRequest => api::ec2::CreateInternetGatewayResult = gateways::create_internet;
    create_launch_template: api::ec2::CreateLaunchTemplateRequest => api::ec2::CreateLaunchTemplateResult = launch_templates::create;
    create_launch_template_version: api::ec2::CreateLaunchTemplateVersionRequest => api::ec2::CreateLaunchTemplateVersionResult = launch_templates::versions::create;
    create_nat_gateway: api::ec2::CreateNatGatewayRequest => api::ec2::CreateNatGatewayResult = gateways::create_nat;
    create_network_interface: api::ec2::CreateNetworkInterfaceRequest => api::ec2::CreateNetworkInterfaceResult = interfaces::create;
    create_route: api::ec2::CreateRouteRequest => api::ec2::CreateRouteResult = route_tables::create_route;
    create_route_table: api::ec2::CreateRouteTableRequest => api::ec2::CreateRouteTableResult = route_tables::create;
    create_security_group: api::ec2::CreateSecurityGroupRequest => api::ec2::CreateSecurityGroupResult = security_groups::create;
    create_subnet: api::ec2::CreateSubnetRequest => api::ec2::CreateSubnetResult = subnets::create;
    create_tags: api::ec2::CreateTagsRequest => () = tags::create;
    create_volume: api::ec2::CreateVolumeRequest => api::ec2::Volume = volumes::create;
    create_vpc: api::ec2::CreateVpcRequest => api::ec2::CreateVpcResult = vpcs::create;
    delete_internet_gateway: api::ec2::DeleteInternetGatewayRequest => () = gateways::delete_internet;
    delete_launch_template: api::ec2::DeleteLaunchTemplateRequest => api::ec2::DeleteLaunchTemplateResult = launch_templates::delete;
    delete_launch_template_versions: api::ec2::DeleteLaunchTemplateVersionsRequest => api::ec2::DeleteLaunchTemplateVersionsResult = launch_templates::versions::delete;
    delete_nat_gateway: api::ec2::DeleteNatGatewayRequest => api::ec2::DeleteNatGatewayResult = gateways::delete_nat;
    delete_network_interface: api::ec2::DeleteNetworkInterfaceRequest => () = interfaces::delete;
    delete_route: api::ec2::DeleteRouteRequest => () = route_tables::delete_route;
    delete_route_table: api::ec2::DeleteRouteTableRequest => () = route_tables::delete;
    delete_security_group: api::ec2::DeleteSecurityGroupRequest => api::ec2::DeleteSecurityGroupResult = security_groups::delete;
    delete_subnet: api::ec2::DeleteSubnetRequest => () = subnets::delete;
    delete_tags: api::ec2::DeleteTagsRequest => () = tags::delete;
    delete_volume: api::ec2::DeleteVolumeRequest => () = volumes::delete;
    delete_vpc: api::ec2::DeleteVpcRequest => () = vpcs::delete;
    deregister_image: api::ec2::DeregisterImageRequest => api::ec2::DeregisterImageResult = images::deregister;
    describe_account_attributes: api::ec2::DescribeAccountAttributesRequest => api::ec2::DescribeAccountAttributesResult = facts::account_attributes;
    describe_addresses: api::ec2::DescribeAddressesRequest => api::ec2::DescribeAddressesResult = gateways::list_addresses;
    describe_availability_zones: api::ec2::DescribeAvailabilityZonesRequest => api::ec2::DescribeAvailabilityZonesResult = facts::availability_zones;
    describe_dhcp_options: api::ec2::DescribeDhcpOptionsRequest => api::ec2::DescribeDhcpOptionsResult = vpcs::dhcp_options;
    describe_iam_instance_profile_associations: api::ec2::DescribeIamInstanceProfileAssociationsRequest => api::ec2::DescribeIamInstanceProfileAssociationsResult = instances::profiles::list;
    describe_images: api::ec2::DescribeImagesRequest => api::ec2::DescribeImagesResult = images::list;
    describe_instance_attribute: api::ec2::DescribeInstanceAttributeRequest => api::ec2::InstanceAttribute = instances::attributes::describe;
    describe_instance_credit_specifications: api::ec2::DescribeInstanceCreditSpecificationsRequest => api::ec2::DescribeInstanceCreditSpecificationsResult = instances::describe::credits;
    describe_instance_status: api::ec2::DescribeInstanceStatusRequest => api::ec2::DescribeInstanceStatusResult = instances::status::list;
    describe_instance_type_offerings: api::ec2::DescribeInstanceTypeOfferingsRequest => api::ec2::DescribeInstanceTypeOfferingsResult = instances::types::offerings;
    describe_instance_types: api::ec2::DescribeInstanceTypesRequest => api::ec2::DescribeInstanceTypesResult = instances::types::list;
    describe_instances: api::ec2::DescribeInstancesRequest => api::ec2::DescribeInstancesResult = instances::describe::list;
    describe_internet_gateways: api::ec2::DescribeInternetGatewaysRequest => api::ec2::DescribeInternetGatewaysResult = gateways::list_internet;
    describe_launch_template_versions: api::ec2::DescribeLaunchTemplateVersionsRequest => api::ec2::DescribeLaunchTemplateVersionsResult = launch_templates::versions::list;
    describe_launch_templates: api::ec2::DescribeLaunchTemplatesRequest => api::ec2::DescribeLaunchTemplatesResult = launch_templates::list;
    describe_managed_prefix_lists: api::ec2::DescribeManagedPrefixListsRequest => api::ec2::DescribeManagedPrefixListsResult = facts::managed_prefix_lists;
    describe_nat_gateways: api::ec2::DescribeNatGatewaysRequest => api::ec2::DescribeNatGatewaysResult = gateways::list_nat;
    describe_network_acls: api::ec2::DescribeNetworkAclsRequest => api::ec2::DescribeNetworkAclsResult = facts::network_acls;
    describe_network_interfaces: api::ec2::DescribeNetworkInterfacesRequest => api::ec2::DescribeNetworkInterfacesResult = interfaces::list;
    describe_prefix_lists: api::ec2::DescribePrefixListsRequest => api::ec2::DescribePrefixListsResult = facts::prefix_lists;
    describe_regions: api::ec2::DescribeRegionsRequest => api::ec2::DescribeRegionsResult = facts::regions;
    describe_route_tables: api::ec2::DescribeRouteTablesRequest => api::ec2::DescribeRouteTablesResult = route_tables::list;
    describe_security_group_rules: api::ec2::DescribeSecurityGroupRulesRequest => api::ec2::DescribeSecurityGroupRulesResult = security_group_rules::list;
    describe_security_groups: api::ec2::DescribeSecurityGroupsRequest => api::ec2::DescribeSecurityGroupsResult = security_groups::list;
    describe_subnets: api::ec2::DescribeSubnetsRequest => api::ec2::DescribeSubnetsResult = subnets::list;
    describe_tags: api::ec2::DescribeTagsRequest => api::ec2::DescribeTagsResult = tags::describe;
    describe_volumes: api::ec2::DescribeVolumesRequest => api::ec2::DescribeVolumesResult = volumes::list;
    describe_volumes_modifications: api::ec2::DescribeVolumesModificationsRequest => api::ec2::DescribeVolumesModificationsResult = volumes::list_modifications;
    describe_vpc_attribute: api::ec2::DescribeVpcAttributeRequest => api::ec2::DescribeVpcAttributeResult = vpcs::attribute;
    describe_vpcs: api::ec2::DescribeVpcsRequest => api::ec2::DescribeVpcsResult = vpcs::list;
    detach_internet_gateway: api::ec2::DetachInternetGatewayRequest => () = gateways::detach_internet;
    detach_volume: api::ec2::DetachVolumeRequest => api::ec2::VolumeAttachment = volumes::detach;
    disassociate_address: api::ec2::DisassociateAddressRequest => () = gateways::disassociate_address;
    disassociate_iam_instance_profile: api::ec2::DisassociateIamInstanceProfileRequest => api::ec2::DisassociateIamInstanceProfileResult = instances::profiles::disassociate;
    disassociate_route_table: api::ec2::DisassociateRouteTableRequest => () = route_tables::disassociate;
    get_console_output: api::ec2::GetConsoleOutputRequest => api::ec2::GetConsoleOutputResult = instances::console::output;
    modify_instance_attribute: api::ec2::ModifyInstanceAttributeRequest => () = instances::attributes::modify;
    modify_launch_template: api::ec2::ModifyLaunchTemplateRequest => api::ec2::ModifyLaunchTemplateResult = launch_templates::modify;
    modify_network_interface_attribute: api::ec2::ModifyNetworkInterfaceAttributeRequest => () = interfaces::modify_attribute;
    modify_security_group_rules: api::ec2::ModifySecurityGroupRulesRequest => api::ec2::ModifySecurityGroupRulesResult = security_group_rules::modify;
    modify_subnet_attribute: api::ec2::ModifySubnetAttributeRequest => () = subnets::modify_attribute;
    modify_volume: api::ec2::ModifyVolumeRequest => api::ec2::ModifyVolumeResult = volumes::modify;
    modify_vpc_attribute: api::ec2::ModifyVpcAttributeRequest => () = vpcs::modify_attribute;
    reboot_instances: api::ec2::RebootInstancesRequest => () = instances::power::reboot;
    register_image: api::ec2::RegisterImageRequest => api::ec2::RegisterImageResult = images::register;
    release_address: api::ec2::ReleaseAddressRequest => () = gateways::release;
    replace_iam_instance_profile_association: api::ec2::ReplaceIamInstanceProfileAssociationRequest => api::ec2::ReplaceIamInstanceProfileAssociationResult = instances::profiles::replace;
    replace_route: api::ec2::ReplaceRouteRequest => () = route_tables::replace_route;
    replace_route_table_association: api::ec2::ReplaceRouteTableAssociationRequest => api::ec2::ReplaceRouteTableAssociationResult = route_tables::replace_association;
    revoke_security_group_egress: api::ec2::RevokeSecurityGroupEgressRequest => api::ec2::RevokeSecurityGroupEgressResult = security_group_rules::revoke_egress;
    revoke_security_group_ingress: api::ec2::RevokeSecurityGroupIngressRequest => api::ec2::RevokeSecurityGroupIngressResult = security_group_rules::revoke_ingress;
    run_instances: api::ec2::RunInstancesRequest => api::ec2::Reservation = instances::run::run;
    start_instances: api::ec2::StartInstancesRequest => api::ec2::StartInstancesResult = instances::power::start;
    stop_instances: api::ec2::StopInstancesRequest => api::ec2::StopInstancesResult = instances::power::stop;
    terminate_instances: api::ec2::TerminateInstancesRequest => api::ec2::TerminateInstancesResult = instances::power::terminate;
    update_security_group_rule_descriptions_egress: api::ec2::UpdateSecurityGroupRuleDescriptionsEgressRequest => api::ec2::UpdateSecurityGroupRuleDescriptionsEgressResult = security_group_rules::describe_egress;
    update_security_group_rule_descriptions_ingress: api::ec2::UpdateSecurityGroupRuleDescriptionsIngressRequest => api::ec2::UpdateSecurityGroupRuleDescriptionsIngressResult = security_group_rules::describe_ingress;
}

/// The kinds of resources this service keeps.
pub fn kinds(kinds: store::Kinds) -> store::Kinds {
    kinds
        .durable::<Vpc>()
        .durable::<Subnet>()
        .durable::<DhcpOptions>()
        .durable::<RouteTable>()
        .durable::<InternetGateway>()
        .durable::<NatGateway>()
        .durable::<Address>()
        .durable::<NetworkSettings>()
        .durable::<SecurityGroup>()
        .durable::<NetworkInterface>()
        .durable::<Instance>()
        .durable::<Volume>()
        .durable::<MachineImage>()
        .durable::<LaunchTemplate>()
        .durable::<LaunchTemplateVersion>()
        .volatile::<ConsoleOutput>()
}

#[cfg(test)]
mod tests;
