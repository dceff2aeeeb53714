//! Service deployments and service revisions: what was deployed, when, and what became of it.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html>

use std::collections::BTreeSet;

use api::ecs::*;
use domain::{
    Arn, IdSource, Scope, Timestamp,
    ecs::{
        Compute, ServiceDeployment as StoredDeployment, ServiceDeploymentStatus, ServiceRevision as StoredRevision,
        ServiceStatus, TaskDefinition, TaskLoadBalancer, TaskNetwork, deployment::MOST_REMEMBERED, names,
    },
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{Stored, auth_arn, deployment::Configuration, find, shapes};
use crate::{
    Call,
    ecs::{
        common::{client, invalid, missing, number, page, page_size, refuse, time},
        network,
    },
};

/// The most ARNs of one request.
const MOST_ASKED: usize = 20;

/// What a deployment's tasks are.
pub(super) struct Runs {
    pub(super) definition: Arn,
    pub(super) network: Option<TaskNetwork>,
    pub(super) load_balancers: Vec<TaskLoadBalancer>,
    pub(super) compute: Compute,
}

/// Begins to deploy something new. What is on its way is given up.
pub(super) fn begin(tx: &mut Transaction, service: &mut Stored, runs: Runs, ids: &mut IdSource, now: Timestamp) {
    give_up(tx, service, "The service deployment was stopped because a newer one was started.", now);
    let revision = StoredRevision {
        arn: StoredRevision::new_arn(service, ids),
        service_arn: service.arn.clone(),
        cluster_arn: service.cluster_arn.clone(),
        task_definition_arn: runs.definition,
        network: runs.network,
        load_balancers: runs.load_balancers,
        compute: runs.compute,
        image_digests: Default::default(),
        created_at: now,
    };
    let begun = service.begin(&revision, ids, now);
    tx.put(revision);
    tx.put(begun);
    forget_oldest(tx, service);
}

/// Says of what is on its way that it will not arrive.
pub(super) fn give_up(tx: &mut Transaction, service: &Stored, reason: &str, now: Timestamp) {
    let Some(primary) = service.primary() else { return };
    let known = primary.service_deployment_arn.as_ref().and_then(|arn| tx.get::<StoredDeployment>(arn.as_str()));
    if let Some(open) = known.filter(|known| known.status.is_open()) {
        let mut open = StoredDeployment::clone(&open);
        open.give_up(reason, primary.failed_tasks, now);
        tx.put(open);
    }
}

/// Keeps the history short. What deployments and records still speak of stays.
fn forget_oldest(tx: &mut Transaction, service: &Stored) {
    let mut records: Vec<_> = tx.list::<StoredDeployment>(&StoredDeployment::prefix(service)).collect();
    records.sort_by_key(|known| known.created_at);
    let surplus = records.len().saturating_sub(MOST_REMEMBERED);
    let kept = records.split_off(surplus);
    records.iter().for_each(|old| tx.delete::<StoredDeployment>(old.arn.as_str()));
    if surplus == 0 {
        return;
    }
    let spoken_of = kept.iter().flat_map(|known| {
        let back_to = known.rollback.as_ref().map(|rollback| &rollback.revision_arn);
        known.sources.iter().chain([&known.target]).chain(back_to)
    });
    let running = service.deployments.iter().filter_map(|known| known.revision_arn.as_ref());
    let needed: BTreeSet<Arn> = spoken_of.chain(running).chain(&service.last_completed).cloned().collect();
    let revisions: Vec<_> = tx.list::<StoredRevision>(&StoredRevision::prefix(service)).collect();
    for revision in revisions.iter().filter(|revision| !needed.contains(&revision.arn)) {
        tx.delete::<StoredRevision>(revision.arn.as_str());
    }
}

/// The service whose deployment or revision an ARN names.
fn service_of(scope: &Scope, text: &str, kind: &str) -> Result<Arn, ServiceError> {
    let arn: Option<Arn> = text.parse().ok();
    let path = arn.as_ref().filter(|arn| arn.service() == "ecs" && arn.resource_type() == kind).map(Arn::resource_path);
    let parts: Vec<&str> = path.unwrap_or_default().split('/').collect();
    match parts[..] {
        [cluster, service, _] => Ok(names::service(scope, cluster, service)),
        _ => Err(invalid(format!("Invalid {} ARN: {text}", kind.replace('-', " ")))),
    }
}

fn services_of(scope: &Scope, asked: &[String], kind: &str) -> Result<Vec<Arn>, ServiceError> {
    if asked.is_empty() || asked.len() > MOST_ASKED {
        return Err(invalid(format!("1 to {MOST_ASKED} ARNs can be given.")));
    }
    asked.iter().map(|text| service_of(scope, text, kind)).collect()
}

pub(in crate::ecs) async fn list(
    call: Call,
    input: ListServiceDeploymentsRequest,
) -> Result<ListServiceDeploymentsResponse, ServiceError> {
    let ListServiceDeploymentsRequest { service, cluster, status, created_at, next_token, max_results } = input;
    let text = service.unwrap_or_default();
    let auth = call.authorise(&[auth_arn(&call.scope, cluster.as_deref(), &text)])?;
    let size = page_size(max_results, 20, 100)?;
    let view = auth.snapshot();
    let service = find(&view, &auth.scope, cluster.as_deref(), &text)?;
    let wanted = status.unwrap_or_default();
    let within = created_at.unwrap_or_default();
    let mut found: Vec<_> = view
        .list::<StoredDeployment>(&StoredDeployment::prefix(&service))
        .filter(|known| wanted.is_empty() || wanted.iter().any(|status| status == known.status.as_str()))
        .filter(|known| within.after.is_none_or(|after| time(known.created_at) > after))
        .filter(|known| within.before.is_none_or(|before| time(known.created_at) < before))
        .collect();
    // The newest first.
    found.sort_by(|one, other| (other.created_at, &other.arn).cmp(&(one.created_at, &one.arn)));
    let arns = found.iter().map(|known| known.arn.to_string());
    let (arns, next_token) = page(&operation::LIST_SERVICE_DEPLOYMENTS, arns, next_token.as_deref(), size)?;
    let briefs = arns.iter().filter_map(|arn| view.get::<StoredDeployment>(arn)).map(|known| brief(&known)).collect();
    Ok(ListServiceDeploymentsResponse { service_deployments: Some(briefs), next_token })
}

fn brief(known: &StoredDeployment) -> ServiceDeploymentBrief {
    ServiceDeploymentBrief {
        service_deployment_arn: Some(known.arn.to_string()),
        service_arn: Some(known.service_arn.to_string()),
        cluster_arn: Some(known.cluster_arn.to_string()),
        started_at: Some(time(known.created_at)),
        created_at: Some(time(known.created_at)),
        finished_at: known.finished_at.map(time),
        target_service_revision_arn: Some(known.target.to_string()),
        status: Some(known.status.as_str().to_owned()),
        status_reason: known.status_reason.clone(),
    }
}

pub(in crate::ecs) async fn describe_deployments(
    call: Call,
    input: DescribeServiceDeploymentsRequest,
) -> Result<DescribeServiceDeploymentsResponse, ServiceError> {
    let asked = input.service_deployment_arns.unwrap_or_default();
    let auth = call.authorise(&services_of(&call.scope, &asked, "service-deployment")?)?;
    let view = auth.snapshot();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in asked {
        match view.get::<StoredDeployment>(&arn) {
            Some(known) => found.push(deployment(&view, &known)),
            None => failures.push(missing(arn)),
        }
    }
    Ok(DescribeServiceDeploymentsResponse { service_deployments: Some(found), failures: Some(failures) })
}

fn deployment(view: &Snapshot, known: &StoredDeployment) -> ServiceDeployment {
    let service = view.get::<Stored>(known.service_arn.as_str());
    let summary = |revision: &Arn| shapes::revision(view, service.as_deref(), revision);
    let configuration = Configuration {
        shares: super::deployment::Shares { minimum: known.minimum_healthy_percent, maximum: known.maximum_percent },
        circuit_breaker: known.circuit_breaker.clone(),
    };
    let current = service.as_deref().and_then(|service| {
        let primary = service.primary()?;
        let here = primary.service_deployment_arn.as_ref() == Some(&known.arn);
        (here && known.rollback.is_none()).then_some(primary.failed_tasks)
    });
    let desired = service.as_ref().map_or(0, |service| service.desired_count);
    ServiceDeployment {
        service_deployment_arn: Some(known.arn.to_string()),
        service_arn: Some(known.service_arn.to_string()),
        cluster_arn: Some(known.cluster_arn.to_string()),
        created_at: Some(time(known.created_at)),
        started_at: Some(time(known.created_at)),
        finished_at: known.finished_at.map(time),
        stopped_at: known.stopped_at.map(time),
        updated_at: Some(time(known.updated_at)),
        source_service_revisions: Some(known.sources.iter().map(summary).collect()),
        target_service_revision: Some(summary(&known.target)),
        status: Some(known.status.as_str().to_owned()),
        status_reason: known.status_reason.clone(),
        deployment_configuration: Some(configuration.shape()),
        rollback: known.rollback.as_ref().map(|rollback| Rollback {
            reason: Some(rollback.reason.clone()),
            started_at: Some(time(rollback.started_at)),
            service_revision_arn: Some(rollback.revision_arn.to_string()),
        }),
        deployment_circuit_breaker: Some(ServiceDeploymentCircuitBreaker {
            status: Some(known.breaker_status.as_str().to_owned()),
            failure_count: Some(number(current.unwrap_or(0).max(known.failures))),
            threshold: Some(number(known.circuit_breaker.threshold.of(desired))),
        }),
        ..ServiceDeployment::default()
    }
}

pub(in crate::ecs) async fn describe_revisions(
    call: Call,
    input: DescribeServiceRevisionsRequest,
) -> Result<DescribeServiceRevisionsResponse, ServiceError> {
    let asked = input.service_revision_arns.unwrap_or_default();
    let auth = call.authorise(&services_of(&call.scope, &asked, "service-revision")?)?;
    let view = auth.snapshot();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in asked {
        match view.get::<StoredRevision>(&arn) {
            Some(known) => found.push(revision(&view, &known)),
            None => failures.push(missing(arn)),
        }
    }
    Ok(DescribeServiceRevisionsResponse { service_revisions: Some(found), failures: Some(failures) })
}

fn revision(view: &Snapshot, known: &StoredRevision) -> ServiceRevision {
    let definition = view.get::<TaskDefinition>(known.task_definition_arn.as_str());
    let containers = definition.as_deref().map_or(&[][..], |definition| &definition.container_definitions);
    let images = containers.iter().map(|container| ContainerImage {
        container_name: Some(container.name.clone()),
        image: Some(container.image.clone()),
        image_digest: known.image_digests.get(&container.name).cloned(),
    });
    ServiceRevision {
        service_revision_arn: Some(known.arn.to_string()),
        service_arn: Some(known.service_arn.to_string()),
        cluster_arn: Some(known.cluster_arn.to_string()),
        task_definition: Some(known.task_definition_arn.to_string()),
        capacity_provider_strategy: shapes::strategy(&known.compute),
        launch_type: shapes::launch_type(&known.compute),
        platform_version: known.compute.platform_version.clone(),
        platform_family: shapes::platform_family(&known.compute),
        load_balancers: Some(shapes::balancers(&known.load_balancers)),
        network_configuration: known.network.as_ref().map(network::shape),
        container_images: Some(images.collect()),
        guard_duty_enabled: Some(false),
        created_at: Some(time(known.created_at)),
        ..ServiceRevision::default()
    }
}

pub(in crate::ecs) async fn stop(
    call: Call,
    input: StopServiceDeploymentRequest,
) -> Result<StopServiceDeploymentResponse, ServiceError> {
    let arn = input.service_deployment_arn.unwrap_or_default();
    let service_arn = service_of(&call.scope, &arn, "service-deployment")?;
    let auth = call.authorise(&[&service_arn])?;
    refuse(&[("stopType other than ROLLBACK", input.stop_type.is_some_and(|kind| kind != "ROLLBACK"))])?;
    let now = auth.now();
    let platform = auth.platform().clone();
    auth.transact(|tx| {
        let known = tx.get::<StoredDeployment>(&arn);
        let known =
            known.ok_or_else(|| error::service_deployment_not_found_exception("Service deployment not found."))?;
        let service = tx.get::<Stored>(service_arn.as_str()).filter(|service| service.status == ServiceStatus::Active);
        let service = service.ok_or_else(|| error::service_not_found_exception("Service not found."))?;
        if known.status != ServiceDeploymentStatus::InProgress {
            return Err(client(format!("The service deployment is {} and cannot be stopped.", known.status.as_str())));
        }
        let before = service.last_completed.as_ref().filter(|before| **before != known.target);
        let Some(before) = before.and_then(|before| tx.get::<StoredRevision>(before.as_str())) else {
            return Err(client("There is no completed service deployment to roll back to."));
        };
        let reason = "Service deployment rolled back because of a StopServiceDeployment request";
        let mut ids = platform.ids();
        let mut service = Stored::clone(&service);
        let mut stopped = StoredDeployment::clone(&known);
        let failed = service.primary_mut().map_or(0, |primary| {
            primary.rollout_state = domain::ecs::RolloutState::Failed;
            primary.rollout_state_reason = format!("{reason}.");
            primary.failed_tasks
        });
        service.roll_back(&before, reason, &mut ids, now);
        stopped.roll_back(before.arn.clone(), reason, failed, now);
        tx.put(service);
        tx.put(stopped);
        Ok(StopServiceDeploymentResponse { service_deployment_arn: Some(arn) })
    })
    .await
}
