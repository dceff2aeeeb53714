//! Elastic Load Balancing of 2012 (awsQuery): Classic Load Balancers with HTTP and TCP listeners for EC2 instances.
//!
//! HTTPS and SSL listeners, policies, and access logs are refused by name. Their traffic is carried by the same processes as that
//! of [`crate::elbv2`], which computes what these follow; the two services keep the same nouns.
//! <https://docs.aws.amazon.com/elasticloadbalancing/2012-06-01/APIReference/>

mod attributes;
mod find;
mod health;
mod instances;
mod listeners;
mod load_balancers;
mod places;
mod tags;

use api::elb::*;
use wire::ServiceError;

use crate::Call;

/// The service. What it keeps are kinds of [`crate::elbv2`].
pub struct Elb;

type Answer<T> = Result<T, ServiceError>;

impl api::elb::Elb for Elb {
    type Call = Call;

    async fn create_load_balancer(&self, call: Call, input: CreateAccessPointInput) -> Answer<CreateAccessPointOutput> {
        load_balancers::create(call, input).await
    }
    async fn describe_load_balancers(
        &self,
        call: Call,
        input: DescribeAccessPointsInput,
    ) -> Answer<DescribeAccessPointsOutput> {
        load_balancers::describe(&call, input)
    }
    async fn delete_load_balancer(&self, call: Call, input: DeleteAccessPointInput) -> Answer<DeleteAccessPointOutput> {
        load_balancers::delete(call, input).await
    }

    async fn create_load_balancer_listeners(
        &self,
        call: Call,
        input: CreateLoadBalancerListenerInput,
    ) -> Answer<CreateLoadBalancerListenerOutput> {
        listeners::create(call, input).await
    }
    async fn delete_load_balancer_listeners(
        &self,
        call: Call,
        input: DeleteLoadBalancerListenerInput,
    ) -> Answer<DeleteLoadBalancerListenerOutput> {
        listeners::delete(call, input).await
    }

    async fn attach_load_balancer_to_subnets(
        &self,
        call: Call,
        input: AttachLoadBalancerToSubnetsInput,
    ) -> Answer<AttachLoadBalancerToSubnetsOutput> {
        places::attach(call, input).await
    }
    async fn enable_availability_zones_for_load_balancer(
        &self,
        call: Call,
        input: AddAvailabilityZonesInput,
    ) -> Answer<AddAvailabilityZonesOutput> {
        places::enable_zones(call, input).await
    }
    async fn apply_security_groups_to_load_balancer(
        &self,
        call: Call,
        input: ApplySecurityGroupsToLoadBalancerInput,
    ) -> Answer<ApplySecurityGroupsToLoadBalancerOutput> {
        places::apply_security_groups(call, input).await
    }

    async fn configure_health_check(
        &self,
        call: Call,
        input: ConfigureHealthCheckInput,
    ) -> Answer<ConfigureHealthCheckOutput> {
        health::configure(call, input).await
    }
    async fn describe_instance_health(
        &self,
        call: Call,
        input: DescribeEndPointStateInput,
    ) -> Answer<DescribeEndPointStateOutput> {
        instances::describe_health(&call, input)
    }
    async fn register_instances_with_load_balancer(
        &self,
        call: Call,
        input: RegisterEndPointsInput,
    ) -> Answer<RegisterEndPointsOutput> {
        instances::register(call, input).await
    }
    async fn deregister_instances_from_load_balancer(
        &self,
        call: Call,
        input: DeregisterEndPointsInput,
    ) -> Answer<DeregisterEndPointsOutput> {
        instances::deregister(call, input).await
    }

    async fn describe_load_balancer_attributes(
        &self,
        call: Call,
        input: DescribeLoadBalancerAttributesInput,
    ) -> Answer<DescribeLoadBalancerAttributesOutput> {
        attributes::describe(&call, input)
    }
    async fn modify_load_balancer_attributes(
        &self,
        call: Call,
        input: ModifyLoadBalancerAttributesInput,
    ) -> Answer<ModifyLoadBalancerAttributesOutput> {
        attributes::modify(call, input).await
    }

    async fn add_tags(&self, call: Call, input: AddTagsInput) -> Answer<AddTagsOutput> {
        tags::add(call, input).await
    }
    async fn remove_tags(&self, call: Call, input: RemoveTagsInput) -> Answer<RemoveTagsOutput> {
        tags::remove(call, input).await
    }
    async fn describe_tags(&self, call: Call, input: DescribeTagsInput) -> Answer<DescribeTagsOutput> {
        tags::describe(&call, input)
    }
}
