//! UpdateService: some changes take effect at once, others make a new deployment.

use api::ecs::*;
use domain::{
    Scope,
    balancing::classic::is_classic,
    ecs::{Cluster, NetworkMode, ServiceStatus},
};
use store::Transaction;
use wire::ServiceError;

use super::{
    Stored, auth_arn, balancers, deployment, find, history, rebalancing, scheduling, shapes, unserved::Unserved,
};
use crate::{
    Authorised, Call,
    ecs::{
        common::{Given, invalid, no_cluster, refuse},
        compute, network, task_definitions,
    },
};

pub(in crate::ecs) async fn update(
    call: Call,
    input: UpdateServiceRequest,
) -> Result<UpdateServiceResponse, ServiceError> {
    let text = input.service.clone().unwrap_or_default();
    let auth = call.authorise(&[auth_arn(&call.scope, input.cluster.as_deref(), &text)])?;
    check(input.clone())?;
    if let Some(definition) = input.task_definition.as_deref()
        && let Some(definition) = task_definitions::find(&auth.snapshot(), &auth.scope, definition)
    {
        let roles = definition.task_role_arn.iter().chain(&definition.execution_role_arn);
        roles.into_iter().try_for_each(|role| auth.authorise_action("iam:PassRole", &[role]))?;
    }
    auth.transact(|tx| {
        let found = find(tx, &auth.scope, input.cluster.as_deref(), &text)?;
        if found.status != ServiceStatus::Active {
            return Err(error::service_not_active_exception("Service was not ACTIVE."));
        }
        let mut service = Stored::clone(&found);
        apply(tx, &auth, &mut service, &input)?;
        if service != *found {
            tx.put(service.clone());
        }
        Ok(UpdateServiceResponse { service: Some(shapes::service(tx, &service, true)) })
    })
    .await
}

/// Checks what can be checked without the state.
fn check(input: UpdateServiceRequest) -> Result<(), ServiceError> {
    // Without `..`: a member added to the API must be dealt with here.
    let UpdateServiceRequest {
        cluster: _,
        service: _,
        desired_count: _,
        task_definition: _,
        capacity_provider_strategy,
        deployment_configuration: _,
        availability_zone_rebalancing,
        network_configuration: _,
        placement_constraints: _,
        placement_strategy: _,
        platform_version: _,
        force_new_deployment: _,
        health_check_grace_period_seconds: _,
        deployment_controller,
        enable_execute_command,
        enable_ecs_managed_tags: _,
        load_balancers: _,
        propagate_tags: _,
        service_registries,
        service_connect_configuration,
        volume_configurations,
        vpc_lattice_configurations,
        gateway_connectors,
        monitoring,
    } = input;
    refuse(&[("capacityProviderStrategy", capacity_provider_strategy.given())])?;
    Unserved {
        enable_execute_command,
        service_registries,
        service_connect_configuration,
        volume_configurations,
        vpc_lattice_configurations,
        gateway_connectors,
        monitoring,
    }
    .refuse()?;
    rebalancing::read(availability_zone_rebalancing.as_deref())?;
    deployment::controller(deployment_controller)
}

fn apply(
    tx: &mut Transaction,
    auth: &Authorised,
    service: &mut Stored,
    input: &UpdateServiceRequest,
) -> Result<(), ServiceError> {
    let now = auth.now();
    let Some(before) = service.primary().cloned() else {
        return Err(error::service_not_active_exception("Service was not ACTIVE."));
    };
    let configuration =
        deployment::configuration(input.deployment_configuration.clone(), deployment::Configuration::of(service))?;
    scheduling::check(service.scheduling_strategy, input.desired_count, &configuration)?;
    let shares = configuration.shares;
    (service.minimum_healthy_percent, service.maximum_percent) = (shares.minimum, shares.maximum);
    service.circuit_breaker = configuration.circuit_breaker;
    let definition = match input.task_definition.as_deref() {
        Some(text) => task_definitions::active(tx, &auth.scope, text)?,
        None => task_definitions::find(tx, &auth.scope, before.task_definition_arn.as_str())
            .ok_or_else(|| super::super::common::client("TaskDefinition not found."))?,
    };
    // The launch type stays; the task definition may be another, which it must be able to run.
    let version = input.platform_version.as_deref().filter(|version| !version.is_empty());
    let kind = before.compute.host_kind().as_str();
    let cluster = tx.get::<Cluster>(service.cluster_arn.as_str()).ok_or_else(no_cluster)?;
    compute::compute(&cluster, &definition, Some(kind), None, version)?;
    let asked = compute::placement(
        &before.compute,
        input.placement_constraints.as_deref(),
        input.placement_strategy.as_deref(),
    )?;
    scheduling::check_place(service.scheduling_strategy, &before.compute, &asked)?;
    // An empty list takes away what there was; none leaves it. Neither makes a new deployment.
    if input.placement_constraints.is_some() {
        service.placement.constraints = asked.constraints;
    }
    if input.placement_strategy.is_some() {
        service.placement.strategy = asked.strategy;
    }
    let network = match (&input.network_configuration, &before.network) {
        (None, Some(before)) if definition.network_mode == NetworkMode::Awsvpc => Some(before.clone()),
        (given, _) => network::check(tx, &auth.scope, definition.network_mode, given.clone())?,
    };
    let load_balancers = match changed_balancers(&auth.scope, &before, input.load_balancers.as_deref()) {
        None => before.load_balancers.clone(),
        Some(given) => {
            if !auth.platform().options.allow_load_balancer_updates {
                return Err(invalid(
                    "Unable to update load balancers on an existing service: a load balancer has to be added when the service is created. Start Longshore with --allow-load-balancer-updates to allow it.",
                ));
            }
            balancers::check(tx, &auth.scope, given.to_vec(), &definition, network.as_ref(), &before.compute)?
        }
    };
    let asked = rebalancing::read(input.availability_zone_rebalancing.as_deref())?;
    let (had, host) = (Some(service.zone_rebalancing), before.compute.host_kind());
    service.zone_rebalancing = rebalancing::choose(asked, had, service, host, &definition, &load_balancers)?;
    if let Some(seconds) = input.health_check_grace_period_seconds {
        service.health_check_grace_period_seconds =
            deployment::grace_period(Some(seconds), !load_balancers.is_empty())?;
    }
    if input.propagate_tags.is_some() {
        service.propagate_tags = deployment::propagate_tags(input.propagate_tags.clone())?;
    }
    if let Some(managed) = input.enable_ecs_managed_tags {
        service.enable_ecs_managed_tags = managed;
    }
    if let Some(count) = input.desired_count {
        service.desired_count = deployment::desired_count(count)?;
    }
    // A container that a target group names must be in the new revision too.
    if definition.arn != before.task_definition_arn {
        for balancer in &load_balancers {
            let there = definition.container(&balancer.container_name).is_some_and(|container| {
                container.port_mappings.iter().any(|mapping| mapping.container_port == balancer.container_port)
            });
            if !there {
                return Err(invalid(format!(
                    "The container {} did not have a container port {} defined.",
                    balancer.container_name, balancer.container_port
                )));
            }
            if is_classic(&balancer.target_group_arn) {
                balancers::check_classic(&definition, &balancer.container_name, balancer.container_port)?;
            }
        }
    }
    let mut other_version = false;
    if let Some(version) = version {
        other_version = version != service.platform_version;
        version.clone_into(&mut service.platform_version);
    }
    let renew = other_version
        || input.force_new_deployment == Some(true)
        || definition.arn != before.task_definition_arn
        || network != before.network
        || load_balancers != before.load_balancers;
    if renew {
        let mut ids = auth.platform().ids();
        let compute = before.compute.clone();
        let runs = history::Runs { definition: definition.arn.clone(), network, load_balancers, compute };
        history::begin(tx, service, runs, &mut ids, now);
    } else if input.desired_count.is_some()
        && let Some(primary) = service.deployments.iter_mut().find(|known| known.id == before.id)
    {
        primary.updated_at = now;
    }
    Ok(())
}

/// The load balancers of a request, if they are others than the service has.
fn changed_balancers<'a>(
    scope: &Scope,
    before: &domain::ecs::Deployment,
    given: Option<&'a [LoadBalancer]>,
) -> Option<&'a [LoadBalancer]> {
    let given = given?;
    let known = |balancer: &domain::ecs::TaskLoadBalancer| {
        (balancer.target_group_arn.to_string(), balancer.container_name.clone(), i32::from(balancer.container_port))
    };
    let mut has: Vec<_> = before.load_balancers.iter().map(|balancer| Some(known(balancer))).collect();
    let mut asked: Vec<_> = given.iter().map(|given| balancers::as_given(scope, given)).collect();
    has.sort();
    asked.sort();
    (has != asked).then_some(given)
}
