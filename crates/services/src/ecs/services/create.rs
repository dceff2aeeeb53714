//! CreateService.

use api::ecs::*;
use domain::ecs::{SchedulingStrategy, ServiceEvent, ServiceStatus, names};
use wire::ServiceError;

use super::{Stored, balancers, deployment, history, rebalancing, scheduling, shapes, unserved::Unserved};
use crate::{
    Call,
    ecs::{
        common::{Given, cluster, cluster_arn, invalid, tags},
        compute, network, task_definitions,
    },
};

pub(in crate::ecs) async fn create(
    call: Call,
    input: CreateServiceRequest,
) -> Result<CreateServiceResponse, ServiceError> {
    let name = input.service_name.clone().unwrap_or_default();
    let cluster_text = input.cluster.clone();
    let of = cluster_arn(&call.scope, cluster_text.as_deref());
    let of = of.rsplit('/').next().unwrap_or_default();
    let auth = call.authorise(&[names::service(&call.scope, of, &name)])?;
    if !names::is_valid(&name) {
        return Err(invalid(
            "Service name can be up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens.",
        ));
    }
    let checked = checked(input.clone())?;
    let new_tags = tags(input.tags)?;
    let definition_text = input.task_definition.ok_or_else(|| invalid("TaskDefinition cannot be null or empty."))?;
    if let Some(definition) = task_definitions::find(&auth.snapshot(), &auth.scope, &definition_text) {
        let roles = definition.task_role_arn.iter().chain(&definition.execution_role_arn);
        roles.into_iter().try_for_each(|role| auth.authorise_action("iam:PassRole", &[role]))?;
    }
    let now = auth.now();
    let platform = auth.platform().clone();
    auth.transact(|tx| {
        let cluster = cluster(tx, &auth.scope, cluster_text.as_deref())?;
        let definition = task_definitions::active(tx, &auth.scope, &definition_text)?;
        let compute = compute::compute(
            &cluster,
            &definition,
            input.launch_type.as_deref(),
            input.capacity_provider_strategy.as_deref(),
            input.platform_version.as_deref(),
        )?;
        let placement =
            compute::placement(&compute, input.placement_constraints.as_deref(), input.placement_strategy.as_deref())?;
        scheduling::check_place(checked.scheduling, &compute, &placement)?;
        let network = network::check(tx, &auth.scope, definition.network_mode, input.network_configuration.clone())?;
        let balancers = input.load_balancers.clone().unwrap_or_default();
        let load_balancers = balancers::check(tx, &auth.scope, balancers, &definition, network.as_ref(), &compute)?;
        let grace_period =
            deployment::grace_period(input.health_check_grace_period_seconds, !load_balancers.is_empty())?;
        let arn = names::service(&auth.scope, &cluster.name, &name);
        let existing = tx.get::<Stored>(arn.as_str());
        match existing.as_ref().map(|existing| existing.status) {
            Some(ServiceStatus::Active) => {
                let same = existing.filter(|existing| {
                    input.client_token.is_some()
                        && existing.client_token == input.client_token
                        && existing.primary().is_some_and(|primary| primary.task_definition_arn == definition.arn)
                });
                return match same {
                    Some(existing) => Ok(CreateServiceResponse { service: Some(shapes::service(tx, &existing, true)) }),
                    None => Err(invalid("Creation of service was not idempotent.")),
                };
            }
            Some(ServiceStatus::Draining) => {
                return Err(invalid("Unable to Start a service that is still Draining."));
            }
            Some(ServiceStatus::Inactive) => {
                let old: Vec<u64> =
                    tx.list::<ServiceEvent>(&ServiceEvent::prefix(arn.as_str())).map(|event| event.number).collect();
                for number in old {
                    tx.delete::<ServiceEvent>(&ServiceEvent::key_of(arn.as_str(), number));
                }
            }
            None => {}
        }
        let mut ids = platform.ids();
        let mut service = Stored {
            arn,
            scope: auth.scope.clone(),
            cluster_arn: cluster.arn.clone(),
            name: name.clone(),
            status: ServiceStatus::Active,
            scheduling_strategy: checked.scheduling,
            desired_count: checked.desired_count,
            platform_version: compute::shown_platform_version(input.platform_version.as_deref()),
            placement,
            zone_rebalancing: false,
            rebalancing: None,
            minimum_healthy_percent: checked.configuration.shares.minimum,
            maximum_percent: checked.configuration.shares.maximum,
            health_check_grace_period_seconds: grace_period,
            enable_ecs_managed_tags: checked.managed_tags,
            propagate_tags: checked.propagate_tags.clone(),
            tags: new_tags,
            created_at: now,
            created_by: auth.principal.arn().to_string(),
            client_token: input.client_token.clone(),
            circuit_breaker: checked.configuration.circuit_breaker.clone(),
            deployments: Vec::new(),
            last_completed: None,
            steady: false,
            events: 0,
        };
        let asked = checked.zone_rebalancing;
        service.zone_rebalancing =
            rebalancing::choose(asked, None, &service, compute.host_kind(), &definition, &load_balancers)?;
        let runs = history::Runs { definition: definition.arn.clone(), network, load_balancers, compute };
        history::begin(tx, &mut service, runs, &mut ids, now);
        tx.put(service.clone());
        Ok(CreateServiceResponse { service: Some(shapes::service(tx, &service, true)) })
    })
    .await
}

struct Checked {
    scheduling: SchedulingStrategy,
    zone_rebalancing: Option<bool>,
    desired_count: u32,
    configuration: deployment::Configuration,
    managed_tags: bool,
    propagate_tags: Option<String>,
}

/// Checks what can be checked without the state.
fn checked(input: CreateServiceRequest) -> Result<Checked, ServiceError> {
    // Without `..`: a member added to the API must be dealt with here.
    let CreateServiceRequest {
        cluster: _,
        service_name: _,
        task_definition: _,
        availability_zone_rebalancing,
        load_balancers: _,
        service_registries,
        desired_count,
        client_token,
        launch_type: _,
        capacity_provider_strategy: _,
        platform_version: _,
        role,
        deployment_configuration,
        placement_constraints: _,
        placement_strategy: _,
        network_configuration: _,
        health_check_grace_period_seconds: _,
        scheduling_strategy,
        deployment_controller,
        tags: _,
        enable_ecs_managed_tags,
        propagate_tags,
        enable_execute_command,
        service_connect_configuration,
        volume_configurations,
        vpc_lattice_configurations,
        gateway_connectors,
        monitoring,
    } = input;
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
    let zone_rebalancing = rebalancing::read(availability_zone_rebalancing.as_deref())?;
    deployment::controller(deployment_controller)?;
    if role.given() {
        return Err(invalid("You cannot specify an IAM role for services that require a service linked role."));
    }
    let scheduling = scheduling::strategy(scheduling_strategy.as_deref())?;
    let configuration =
        deployment::configuration(deployment_configuration, scheduling::default_configuration(scheduling))?;
    scheduling::check(scheduling, desired_count, &configuration)?;
    let desired_count = match scheduling {
        // Its reconciler counts the instances.
        SchedulingStrategy::Daemon => 0,
        SchedulingStrategy::Replica => deployment::desired_count(
            desired_count.ok_or_else(|| invalid("desiredCount is required when schedulingStrategy is REPLICA."))?,
        )?,
    };
    if client_token.is_some_and(|token| token.len() > 36) {
        return Err(invalid("clientToken can have at most 36 characters."));
    }
    Ok(Checked {
        scheduling,
        zone_rebalancing,
        desired_count,
        configuration,
        managed_tags: enable_ecs_managed_tags.unwrap_or_default(),
        propagate_tags: deployment::propagate_tags(propagate_tags)?,
    })
}
