//! Services. What they ask for is written here; the reconcilers make it so.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Service.html>

mod balancers;
mod create;
mod deployment;
pub(super) mod history;
mod rebalancing;
mod scheduling;
mod shapes;
mod unserved;
mod update;

use std::sync::Arc;

use api::ecs::*;
use domain::{
    Scope,
    ecs::{LaunchType, SchedulingStrategy, ServiceStatus, names},
};
use store::Snapshot;
use wire::ServiceError;

use super::common::{cluster, cluster_arn, invalid, missing, page, page_size, refuse};
use crate::Call;

pub(super) use create::create;
pub(super) use update::update;

type Stored = domain::ecs::Service;

/// The ARN of the service that a request means, for authorising.
fn auth_arn(scope: &Scope, cluster: Option<&str>, text: &str) -> String {
    let cluster = cluster_arn(scope, cluster);
    let name = cluster.rsplit('/').next().unwrap_or_default();
    names::in_cluster(scope, name, "service", text).unwrap_or_else(|| text.to_owned())
}

/// The service that a request means, INACTIVE ones included.
fn find(view: &Snapshot, scope: &Scope, of: Option<&str>, text: &str) -> Result<Arc<Stored>, ServiceError> {
    let cluster = cluster(view, scope, of)?;
    names::in_cluster(scope, &cluster.name, "service", text)
        .and_then(|arn| view.get::<Stored>(&arn))
        .ok_or_else(|| error::service_not_found_exception("Service not found."))
}

pub(super) async fn delete(call: Call, input: DeleteServiceRequest) -> Result<DeleteServiceResponse, ServiceError> {
    let text = input.service.unwrap_or_default();
    let auth = call.authorise(&[auth_arn(&call.scope, input.cluster.as_deref(), &text)])?;
    auth.transact(|tx| {
        let found = find(tx, &auth.scope, input.cluster.as_deref(), &text)?;
        let mut service = Stored::clone(&found);
        if service.status == ServiceStatus::Active {
            let scaled = service.scheduling_strategy == SchedulingStrategy::Replica && service.desired_count > 0;
            if scaled && input.force != Some(true) {
                return Err(invalid("The service cannot be stopped while it is scaled above 0."));
            }
            history::give_up(tx, &service, "The service was deleted.", auth.now());
            service.status = ServiceStatus::Draining;
            service.desired_count = 0;
            tx.put(service.clone());
        }
        Ok(DeleteServiceResponse { service: Some(shapes::service(tx, &service, true)) })
    })
    .await
}

pub(super) async fn describe(
    call: Call,
    input: DescribeServicesRequest,
) -> Result<DescribeServicesResponse, ServiceError> {
    let asked = input.services.unwrap_or_default();
    let arns: Vec<String> = asked.iter().map(|text| auth_arn(&call.scope, input.cluster.as_deref(), text)).collect();
    let auth = call.authorise(&arns)?;
    if asked.is_empty() {
        return Err(invalid("Services cannot be empty."));
    }
    if asked.len() > 10 {
        return Err(invalid("Services cannot be more than 10."));
    }
    let with_tags = input.include.is_some_and(|include| include.iter().any(|part| part == "TAGS"));
    let view = auth.snapshot();
    let cluster = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    let (mut services, mut failures) = (Vec::new(), Vec::new());
    for text in asked {
        let arn = names::in_cluster(&auth.scope, &cluster.name, "service", &text);
        match arn.as_ref().and_then(|arn| view.get::<Stored>(arn)) {
            Some(service) => services.push(shapes::service(&view, &service, with_tags)),
            None => failures.push(missing(arn.unwrap_or(text))),
        }
    }
    Ok(DescribeServicesResponse { services: Some(services), failures: Some(failures) })
}

pub(super) async fn list(call: Call, input: ListServicesRequest) -> Result<ListServicesResponse, ServiceError> {
    let ListServicesRequest {
        cluster: of,
        next_token,
        max_results,
        launch_type,
        scheduling_strategy,
        resource_management_type,
    } = input;
    let auth = call.authorise(&[cluster_arn(&call.scope, of.as_deref())])?;
    refuse(&[("resourceManagementType", resource_management_type.is_some())])?;
    let size = page_size(max_results, 10, 100)?;
    let view = auth.snapshot();
    let cluster = cluster(&view, &auth.scope, of.as_deref())?;
    let arns = view
        .find::<Stored>(Stored::BY_CLUSTER, cluster.arn.as_str())
        .filter(|service| {
            scheduling_strategy.as_deref().is_none_or(|strategy| strategy == service.scheduling_strategy.as_str())
        })
        .filter(|service| {
            let kind = service.primary().and_then(|primary| primary.compute.launch_type);
            launch_type.is_none() || kind.map(LaunchType::as_str) == launch_type.as_deref()
        })
        .map(|service| service.arn.to_string());
    let (service_arns, next_token) = page(&operation::LIST_SERVICES, arns, next_token.as_deref(), size)?;
    Ok(ListServicesResponse { service_arns: Some(service_arns), next_token })
}
