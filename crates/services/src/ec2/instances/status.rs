//! DescribeInstanceStatus: an instance whose first process runs passes Amazon's checks.

use api::ec2::{
    DescribeInstanceStatusRequest, DescribeInstanceStatusResult, InstanceStatus, InstanceStatusDetails,
    InstanceStatusSummary,
};
use domain::instances::{Instance, InstanceState};
use wire::ServiceError;

use super::{named, shape};
use crate::{
    Call,
    ec2::{
        common::{Filterable, Query, begin, describe, unsupported},
        facts::zone_id,
    },
};

const FILTERS: Filterable<Instance> = Filterable {
    names: &[
        "availability-zone",
        "availability-zone-id",
        "instance-state-code",
        "instance-state-name",
        "instance-status.status",
        "instance-status.reachability",
        "system-status.status",
        "system-status.reachability",
    ],
    values: |_, instance, name| {
        let state = instance.state();
        vec![match name {
            "availability-zone" => instance.availability_zone.clone(),
            "availability-zone-id" => zone_id(&instance.availability_zone),
            "instance-state-code" => state.code().to_string(),
            "instance-state-name" => state.name().to_owned(),
            "instance-status.reachability" | "system-status.reachability" => reachability(state).to_owned(),
            _ => status(state).to_owned(),
        }]
    },
};

fn status(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Running => "ok",
        InstanceState::Pending => "initializing",
        _ => "not-applicable",
    }
}

fn reachability(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Running => "passed",
        InstanceState::Pending => "initializing",
        _ => "",
    }
}

fn summary(state: InstanceState) -> InstanceStatusSummary {
    let details = match reachability(state) {
        "" => Vec::new(),
        word => vec![InstanceStatusDetails {
            impaired_since: None,
            name: Some("reachability".into()),
            status: Some(word.to_owned()),
        }],
    };
    InstanceStatusSummary { status: Some(status(state).to_owned()), details: Some(details) }
}

/// DescribeInstanceStatus: of running instances, or of all when asked.
pub(in crate::ec2) async fn list(
    call: Call,
    input: DescribeInstanceStatusRequest,
) -> Result<DescribeInstanceStatusResult, ServiceError> {
    if input.include_managed_resources == Some(true) {
        return Err(unsupported("include_managed_resources"));
    }
    let auth = begin(&call, &[], input.dry_run)?;
    let view = auth.snapshot();
    let ids = input.instance_ids.unwrap_or_default();
    if !ids.is_empty() {
        named(&call, &view, &ids)?;
    }
    let mut filters = input.filters.unwrap_or_default();
    if input.include_all_instances != Some(true) {
        let running = vec![InstanceState::Running.name().to_owned()];
        filters.push(api::ec2::Filter { name: Some("instance-state-name".into()), values: Some(running) });
    }
    let query =
        Query { ids: Some(ids), filters: Some(filters), max_results: input.max_results, next_token: input.next_token };
    let (instances, next_token) = describe(&call, &view, query, &FILTERS)?;
    let shown = instances.iter().map(|instance| {
        let state = instance.state();
        InstanceStatus {
            availability_zone: Some(instance.availability_zone.clone()),
            availability_zone_id: Some(zone_id(&instance.availability_zone)),
            instance_id: Some(instance.instance_id.clone()),
            instance_state: Some(shape::state(state)),
            instance_status: Some(summary(state)),
            system_status: Some(summary(state)),
            events: Some(Vec::new()),
            ..InstanceStatus::default()
        }
    });
    Ok(DescribeInstanceStatusResult { instance_statuses: Some(shown.collect()), next_token })
}
