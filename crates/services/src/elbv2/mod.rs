//! Elastic Load Balancing v2 (awsQuery): application load balancers with HTTP and HTTPS listeners, network load balancers
//! with TCP listeners, and target groups of addresses or EC2 instances.
//!
//! Gateway load balancers, TLS, UDP, and other targets are refused by name until their issues.
//! The traffic itself is the `balancer` crate's: [`slice`] computes what its processes follow, [`observe_balancer`] takes
//! what they report. <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/>

mod actions;
mod attributes;
mod certificates;
mod conditions;
mod find;
mod limits;
mod listeners;
pub(crate) mod load_balancers;
mod names;
mod network;
mod observe;
mod rules;
mod slice;
mod ssl_policies;
mod tags;
mod target_choice;
mod target_groups;
pub(crate) mod targets;
pub(crate) mod zones;

use api::elbv2::*;
use domain::balancing;
use store::Kinds;
use wire::ServiceError;

pub use observe::observe_balancer;
pub use slice::{balancer_slice, host_items};
pub use targets::target_health;

use crate::Call;

/// The service.
pub struct Elbv2;

/// The kinds of resources that this service keeps.
pub fn kinds(kinds: Kinds) -> Kinds {
    kinds
        .durable::<balancing::LoadBalancer>()
        .durable::<balancing::Listener>()
        .durable::<balancing::Rule>()
        .durable::<balancing::TargetGroup>()
        .durable::<balancing::TargetRegistration>()
        .volatile::<balancing::ObservedHealth>()
}

type Answer<T> = Result<T, ServiceError>;

impl api::elbv2::Elbv2 for Elbv2 {
    type Call = Call;

    async fn create_load_balancer(
        &self,
        call: Call,
        input: CreateLoadBalancerInput,
    ) -> Answer<CreateLoadBalancerOutput> {
        load_balancers::create(call, input).await
    }
    async fn describe_load_balancers(
        &self,
        call: Call,
        input: DescribeLoadBalancersInput,
    ) -> Answer<DescribeLoadBalancersOutput> {
        load_balancers::describe(&call, input)
    }
    async fn delete_load_balancer(
        &self,
        call: Call,
        input: DeleteLoadBalancerInput,
    ) -> Answer<DeleteLoadBalancerOutput> {
        load_balancers::delete(call, input).await
    }
    async fn set_subnets(&self, call: Call, input: SetSubnetsInput) -> Answer<SetSubnetsOutput> {
        zones::set_subnets(call, input).await
    }
    async fn set_security_groups(&self, call: Call, input: SetSecurityGroupsInput) -> Answer<SetSecurityGroupsOutput> {
        zones::set_security_groups(call, input).await
    }
    async fn set_ip_address_type(&self, call: Call, input: SetIpAddressTypeInput) -> Answer<SetIpAddressTypeOutput> {
        load_balancers::set_ip_address_type(&call, input)
    }

    async fn describe_load_balancer_attributes(
        &self,
        call: Call,
        input: DescribeLoadBalancerAttributesInput,
    ) -> Answer<DescribeLoadBalancerAttributesOutput> {
        attributes::describe_load_balancer(&call, input)
    }
    async fn modify_load_balancer_attributes(
        &self,
        call: Call,
        input: ModifyLoadBalancerAttributesInput,
    ) -> Answer<ModifyLoadBalancerAttributesOutput> {
        attributes::modify_load_balancer(call, input).await
    }
    async fn describe_target_group_attributes(
        &self,
        call: Call,
        input: DescribeTargetGroupAttributesInput,
    ) -> Answer<DescribeTargetGroupAttributesOutput> {
        attributes::describe_target_group(&call, input)
    }
    async fn modify_target_group_attributes(
        &self,
        call: Call,
        input: ModifyTargetGroupAttributesInput,
    ) -> Answer<ModifyTargetGroupAttributesOutput> {
        attributes::modify_target_group(call, input).await
    }
    async fn describe_listener_attributes(
        &self,
        call: Call,
        input: DescribeListenerAttributesInput,
    ) -> Answer<DescribeListenerAttributesOutput> {
        attributes::describe_listener(&call, input)
    }
    async fn modify_listener_attributes(
        &self,
        call: Call,
        input: ModifyListenerAttributesInput,
    ) -> Answer<ModifyListenerAttributesOutput> {
        attributes::modify_listener(&call, input)
    }

    async fn create_target_group(&self, call: Call, input: CreateTargetGroupInput) -> Answer<CreateTargetGroupOutput> {
        target_groups::create(call, input).await
    }
    async fn describe_target_groups(
        &self,
        call: Call,
        input: DescribeTargetGroupsInput,
    ) -> Answer<DescribeTargetGroupsOutput> {
        target_groups::describe(&call, input)
    }
    async fn modify_target_group(&self, call: Call, input: ModifyTargetGroupInput) -> Answer<ModifyTargetGroupOutput> {
        target_groups::modify(call, input).await
    }
    async fn delete_target_group(&self, call: Call, input: DeleteTargetGroupInput) -> Answer<DeleteTargetGroupOutput> {
        target_groups::delete(call, input).await
    }

    async fn register_targets(&self, call: Call, input: RegisterTargetsInput) -> Answer<RegisterTargetsOutput> {
        targets::register(call, input).await
    }
    async fn deregister_targets(&self, call: Call, input: DeregisterTargetsInput) -> Answer<DeregisterTargetsOutput> {
        targets::deregister(call, input).await
    }
    async fn describe_target_health(
        &self,
        call: Call,
        input: DescribeTargetHealthInput,
    ) -> Answer<DescribeTargetHealthOutput> {
        targets::describe_health(&call, input)
    }

    async fn create_listener(&self, call: Call, input: CreateListenerInput) -> Answer<CreateListenerOutput> {
        listeners::create(call, input).await
    }
    async fn describe_listeners(&self, call: Call, input: DescribeListenersInput) -> Answer<DescribeListenersOutput> {
        listeners::describe(&call, input)
    }
    async fn modify_listener(&self, call: Call, input: ModifyListenerInput) -> Answer<ModifyListenerOutput> {
        listeners::modify(call, input).await
    }
    async fn delete_listener(&self, call: Call, input: DeleteListenerInput) -> Answer<DeleteListenerOutput> {
        listeners::delete(call, input).await
    }

    async fn add_listener_certificates(
        &self,
        call: Call,
        input: AddListenerCertificatesInput,
    ) -> Answer<AddListenerCertificatesOutput> {
        certificates::add(call, input).await
    }
    async fn remove_listener_certificates(
        &self,
        call: Call,
        input: RemoveListenerCertificatesInput,
    ) -> Answer<RemoveListenerCertificatesOutput> {
        certificates::remove(call, input).await
    }
    async fn describe_listener_certificates(
        &self,
        call: Call,
        input: DescribeListenerCertificatesInput,
    ) -> Answer<DescribeListenerCertificatesOutput> {
        certificates::describe(&call, input)
    }
    async fn describe_ssl_policies(
        &self,
        call: Call,
        input: DescribeSSLPoliciesInput,
    ) -> Answer<DescribeSSLPoliciesOutput> {
        ssl_policies::describe(&call, input)
    }

    async fn create_rule(&self, call: Call, input: CreateRuleInput) -> Answer<CreateRuleOutput> {
        rules::create(call, input).await
    }
    async fn describe_rules(&self, call: Call, input: DescribeRulesInput) -> Answer<DescribeRulesOutput> {
        rules::describe(&call, input)
    }
    async fn modify_rule(&self, call: Call, input: ModifyRuleInput) -> Answer<ModifyRuleOutput> {
        rules::modify(call, input).await
    }
    async fn delete_rule(&self, call: Call, input: DeleteRuleInput) -> Answer<DeleteRuleOutput> {
        rules::delete(call, input).await
    }
    async fn set_rule_priorities(&self, call: Call, input: SetRulePrioritiesInput) -> Answer<SetRulePrioritiesOutput> {
        rules::set_priorities(call, input).await
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

    async fn describe_account_limits(
        &self,
        call: Call,
        input: DescribeAccountLimitsInput,
    ) -> Answer<DescribeAccountLimitsOutput> {
        limits::describe(&call, input)
    }
}
