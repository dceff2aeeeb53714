//! Services as responses have them. Counts are counted, not stored.

use api::ecs::*;
use domain::{
    Arn,
    balancing::classic::is_classic,
    ecs::{
        Compute, Deployment as StoredDeployment, DeploymentStatus, DesiredStatus,
        ServiceDeployment as ServiceDeploymentRecord, ServiceEvent as StoredEvent, ServiceStatus, Task,
        TaskLoadBalancer, TaskStatus, service::MAX_EVENTS,
    },
};
use store::Snapshot;

use super::{Stored, deployment::Configuration, rebalancing};
use crate::ecs::{
    common::{count, number, tags_shape, time},
    compute::{constraints_shape, strategy_shape},
    network,
};

/// What a deployment's tasks are doing.
#[derive(Default)]
struct Counts {
    running: usize,
    pending: usize,
    wanted: usize,
}

/// A service, with its tags if they were asked for.
pub(super) fn service(view: &Snapshot, stored: &Stored, with_tags: bool) -> Service {
    let deployments: Vec<Deployment> = stored.deployments.iter().map(|known| deployment(view, stored, known)).collect();
    let sum = |of: fn(&Deployment) -> Option<i32>| deployments.iter().filter_map(of).sum::<i32>();
    let (running, pending) = (sum(|known| known.running_count), sum(|known| known.pending_count));
    let primary = stored.primary();
    let fargate = primary.is_some_and(|primary| primary.compute.is_fargate());
    Service {
        service_arn: Some(stored.arn.to_string()),
        service_name: Some(stored.name.clone()),
        cluster_arn: Some(stored.cluster_arn.to_string()),
        load_balancers: Some(primary.map(|primary| balancers(&primary.load_balancers)).unwrap_or_default()),
        service_registries: Some(Vec::new()),
        status: Some(stored.status.as_str().to_owned()),
        desired_count: Some(number(stored.desired_count)),
        running_count: Some(running),
        pending_count: Some(pending),
        launch_type: primary.and_then(|primary| launch_type(&primary.compute)),
        capacity_provider_strategy: primary.and_then(|primary| strategy(&primary.compute)),
        platform_version: fargate.then(|| stored.platform_version.clone()),
        platform_family: primary.and_then(|primary| platform_family(&primary.compute)),
        task_definition: primary.map(|primary| primary.task_definition_arn.to_string()),
        deployment_configuration: Some(Configuration::of(stored).shape()),
        events: Some(events(view, stored)),
        created_at: Some(time(stored.created_at)),
        placement_constraints: Some(constraints_shape(&stored.placement.constraints)),
        placement_strategy: Some(strategy_shape(&stored.placement.strategy)),
        network_configuration: primary.and_then(|primary| primary.network.as_ref()).map(network::shape),
        health_check_grace_period_seconds: stored.health_check_grace_period_seconds.map(number),
        scheduling_strategy: Some(stored.scheduling_strategy.as_str().to_owned()),
        deployment_controller: Some(DeploymentController { r#type: Some("ECS".to_owned()) }),
        tags: with_tags.then(|| tags_shape(&stored.tags)),
        created_by: Some(stored.created_by.clone()),
        enable_ecs_managed_tags: Some(stored.enable_ecs_managed_tags),
        propagate_tags: Some(stored.propagate_tags.clone().unwrap_or_else(|| "NONE".to_owned())),
        enable_execute_command: Some(false),
        availability_zone_rebalancing: Some(rebalancing::as_str(stored.zone_rebalancing).to_owned()),
        current_service_deployment: open_deployment(view, stored),
        current_service_revisions: Some(current_revisions(view, stored)),
        // An INACTIVE one is told with what it ran, but it deploys nothing.
        deployments: Some(if stored.status == ServiceStatus::Inactive { Vec::new() } else { deployments }),
        ..Service::default()
    }
}

pub(super) fn balancers(load_balancers: &[TaskLoadBalancer]) -> Vec<LoadBalancer> {
    let one = |balancer: &TaskLoadBalancer| {
        let arn = &balancer.target_group_arn;
        let (target_group_arn, load_balancer_name) =
            if is_classic(arn) { (None, Some(arn.resource_name().to_owned())) } else { (Some(arn.to_string()), None) };
        LoadBalancer {
            target_group_arn,
            load_balancer_name,
            container_name: Some(balancer.container_name.clone()),
            container_port: Some(balancer.container_port.into()),
            ..LoadBalancer::default()
        }
    };
    load_balancers.iter().map(one).collect()
}

/// None where a capacity provider strategy was given.
pub(super) fn launch_type(compute: &Compute) -> Option<String> {
    compute.launch_type.map(|launch_type| launch_type.as_str().to_owned())
}

pub(super) fn platform_family(compute: &Compute) -> Option<String> {
    compute.is_fargate().then(|| domain::ecs::fargate::PLATFORM_FAMILY.to_owned())
}

pub(super) fn strategy(compute: &Compute) -> Option<Vec<CapacityProviderStrategyItem>> {
    compute.capacity_provider.as_ref().map(|choice| {
        vec![CapacityProviderStrategyItem {
            capacity_provider: Some(choice.name.clone()),
            weight: Some(number(choice.weight)),
            base: Some(number(choice.base)),
        }]
    })
}

/// The service deployment that goes on.
fn open_deployment(view: &Snapshot, stored: &Stored) -> Option<String> {
    let arn = stored.primary()?.service_deployment_arn.as_ref()?;
    let open = view.get::<ServiceDeploymentRecord>(arn.as_str()).is_some_and(|known| known.status.is_open());
    open.then(|| arn.to_string())
}

/// The revisions that have tasks or get some.
fn current_revisions(view: &Snapshot, stored: &Stored) -> Vec<ServiceCurrentRevisionSummary> {
    let summary = |known: &StoredDeployment| {
        let arn = known.revision_arn.as_ref()?;
        let ServiceRevisionSummary { arn, requested_task_count, running_task_count, pending_task_count, .. } =
            revision(view, Some(stored), arn);
        Some(ServiceCurrentRevisionSummary { arn, requested_task_count, running_task_count, pending_task_count })
    };
    stored.deployments.iter().filter_map(summary).collect()
}

/// What the tasks of a revision are doing.
pub(super) fn revision(view: &Snapshot, service: Option<&Stored>, arn: &Arn) -> ServiceRevisionSummary {
    let mut all = Counts::default();
    let deployments =
        service.into_iter().flat_map(|service| service.deployments.iter().map(move |known| (service, known)));
    for (service, known) in deployments.filter(|(_, known)| known.revision_arn.as_ref() == Some(arn)) {
        let counts = counts(view, service, &known.id);
        all.running += counts.running;
        all.pending += counts.pending;
        all.wanted += match known.status {
            DeploymentStatus::Primary => service.desired_count as usize,
            DeploymentStatus::Active => counts.wanted,
        };
    }
    ServiceRevisionSummary {
        arn: Some(arn.to_string()),
        requested_task_count: Some(count(all.wanted)),
        running_task_count: Some(count(all.running)),
        pending_task_count: Some(count(all.pending)),
        ..ServiceRevisionSummary::default()
    }
}

fn deployment(view: &Snapshot, service: &Stored, stored: &StoredDeployment) -> Deployment {
    let counts = counts(view, service, &stored.id);
    let desired = match stored.status {
        DeploymentStatus::Primary => number(service.desired_count),
        DeploymentStatus::Active => count(counts.wanted),
    };
    Deployment {
        id: Some(stored.id.clone()),
        status: Some(stored.status.as_str().to_owned()),
        task_definition: Some(stored.task_definition_arn.to_string()),
        desired_count: Some(desired),
        pending_count: Some(count(counts.pending)),
        running_count: Some(count(counts.running)),
        failed_tasks: Some(number(stored.failed_tasks)),
        created_at: Some(time(stored.created_at)),
        updated_at: Some(time(stored.updated_at)),
        capacity_provider_strategy: strategy(&stored.compute),
        launch_type: launch_type(&stored.compute),
        platform_version: stored.compute.platform_version.clone(),
        platform_family: platform_family(&stored.compute),
        network_configuration: stored.network.as_ref().map(network::shape),
        rollout_state: Some(stored.rollout_state.as_str().to_owned()),
        rollout_state_reason: Some(stored.rollout_state_reason.clone()),
        ..Deployment::default()
    }
}

fn counts(view: &Snapshot, service: &Stored, deployment: &str) -> Counts {
    let mut counts = Counts::default();
    for task in view.find::<Task>(Task::OF_SERVICE, service.arn.as_str()) {
        if task.deployment_id.as_deref() != Some(deployment) {
            continue;
        }
        counts.wanted += usize::from(task.desired_status == DesiredStatus::Running);
        counts.running += usize::from(task.last_status == TaskStatus::Running);
        counts.pending += usize::from(task.last_status.is_starting());
    }
    counts
}

/// The latest events, the newest first.
fn events(view: &Snapshot, stored: &Stored) -> Vec<ServiceEvent> {
    let first = stored.events.saturating_sub(MAX_EVENTS as u64);
    (first..stored.events)
        .rev()
        .filter_map(|number| view.get::<StoredEvent>(&StoredEvent::key_of(stored.arn.as_str(), number)))
        .map(|event| ServiceEvent {
            id: Some(event.id.clone()),
            created_at: Some(time(event.created_at)),
            message: Some(event.message.clone()),
        })
        .collect()
}
