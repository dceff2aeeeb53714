//! ListTasks: by cluster and any further filters. One index gives the candidates, the other filters are looked at on
//! each of them, so that the cost is that of the narrowest filter.

use api::ecs::*;
use domain::ecs::{DesiredStatus, names};
use wire::ServiceError;

use super::Stored;
use crate::{
    Call,
    ecs::common::{cluster, cluster_arn, invalid, page, page_size, refuse},
};

pub(in crate::ecs) async fn list(call: Call, input: ListTasksRequest) -> Result<ListTasksResponse, ServiceError> {
    let ListTasksRequest {
        cluster: of,
        container_instance,
        family,
        next_token,
        max_results,
        started_by,
        service_name,
        desired_status,
        launch_type,
        daemon_name,
    } = input;
    let auth = call.authorise(&[cluster_arn(&call.scope, of.as_deref())])?;
    refuse(&[("daemonName", daemon_name.is_some())])?;
    let size = page_size(max_results, 100, 100)?;
    let view = auth.snapshot();
    let cluster = cluster(&view, &auth.scope, of.as_deref())?;
    let desired = match desired_status.as_deref() {
        None | Some("RUNNING") => DesiredStatus::Running,
        Some("STOPPED") => DesiredStatus::Stopped,
        // ECS never desires it.
        Some("PENDING") => return Ok(ListTasksResponse { task_arns: Some(Vec::new()), next_token: None }),
        Some(other) => return Err(invalid(format!("Invalid desiredStatus: {other}"))),
    };
    let service = service_name
        .map(|text| {
            names::in_cluster(&auth.scope, &cluster.name, "service", &text)
                .filter(|arn| view.contains::<domain::ecs::Service>(arn))
                .ok_or_else(|| api::ecs::error::service_not_found_exception("Service not found."))
        })
        .transpose()?;
    let instance = container_instance
        .map(|text| {
            names::in_cluster(&auth.scope, &cluster.name, "container-instance", &text).ok_or_else(|| {
                invalid("Invalid identifier: the container instance is neither an id nor an ARN of this cluster.")
            })
        })
        .transpose()?;
    let (arn, status) = (&cluster.arn, desired.as_str());
    let (index, value) = if let Some(service) = &service {
        (Stored::BY_SERVICE, format!("{service} {status}"))
    } else if let Some(instance) = &instance {
        (Stored::BY_CONTAINER_INSTANCE, format!("{instance} {status}"))
    } else if let Some(started_by) = &started_by {
        (Stored::BY_STARTED_BY, format!("{arn} {started_by} {status}"))
    } else if let Some(family) = &family {
        (Stored::BY_FAMILY, format!("{arn} {family} {status}"))
    } else {
        (Stored::BY_CLUSTER, format!("{arn} {status}"))
    };
    let given = next_token.as_deref().filter(|token| !token.is_empty());
    let after = given.and_then(|token| wire::page::position(&operation::LIST_TASKS, token)).unwrap_or_default();
    let arns = view
        .find_after::<Stored>(index, value, &after)
        .filter(|task| task.cluster_arn == *arn)
        .filter(|task| {
            service.as_ref().is_none_or(|of| task.service_arn.as_ref().is_some_and(|arn| arn.as_str() == of))
        })
        .filter(|task| {
            instance
                .as_ref()
                .is_none_or(|on| task.container_instance_arn.as_ref().is_some_and(|arn| arn.as_str() == on))
        })
        .filter(|task| started_by.as_ref().is_none_or(|by| task.started_by.as_ref() == Some(by)))
        .filter(|task| family.as_ref().is_none_or(|family| task.family == *family))
        .filter(|task| launch_type.as_ref().is_none_or(|kind| task.launch_type.as_str() == kind))
        .map(|task| task.arn.to_string());
    let (task_arns, next_token) = page(&operation::LIST_TASKS, arns, next_token.as_deref(), size)?;
    Ok(ListTasksResponse { task_arns: Some(task_arns), next_token })
}
