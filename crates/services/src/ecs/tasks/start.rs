//! StartTask: a task on each container instance that the request names, without placement.

use api::ecs::*;
use domain::ecs::{Compute, ContainerInstanceStatus, LaunchType, NewTask, Placement, names};
use wire::ServiceError;

use super::{
    request::{self, Asked, pass_roles},
    run::reason,
    shapes,
};
use crate::{
    Call,
    ecs::{
        common::{cluster, cluster_arn, invalid, missing},
        container_instances,
        launch::{LaunchError, launch},
        task_definitions,
    },
};

/// The most container instances of a request.
const MOST_INSTANCES: usize = 10;

pub(in crate::ecs) async fn start(call: Call, input: StartTaskRequest) -> Result<StartTaskResponse, ServiceError> {
    // Without `..`: a member added to the API must be dealt with here.
    let StartTaskRequest {
        cluster: cluster_text,
        container_instances: named,
        enable_ecs_managed_tags,
        enable_execute_command,
        group,
        network_configuration,
        overrides,
        propagate_tags,
        reference_id,
        started_by,
        tags,
        task_definition: text,
        volume_configurations,
    } = input;
    let text = text.unwrap_or_default();
    let resources = [task_definitions::arn_of(&call.scope, &text), cluster_arn(&call.scope, cluster_text.as_deref())];
    let auth = call.authorise(&resources[..1])?;
    let named = named.unwrap_or_default();
    if !(1..=MOST_INSTANCES).contains(&named.len()) {
        return Err(invalid("A request must have 1 to 10 container instances."));
    }
    let view = auth.snapshot();
    let stored_cluster = cluster(&view, &auth.scope, cluster_text.as_deref())?;
    let definition = task_definitions::active(&view, &auth.scope, &text)?;
    let by = |launch_type| Compute::by_launch_type(launch_type);
    let asked = Asked {
        enable_ecs_managed_tags,
        enable_execute_command,
        group: &group,
        network_configuration: &network_configuration,
        overrides: &overrides,
        propagate_tags: &propagate_tags,
        reference_id: &reference_id,
        started_by: &started_by,
        tags: &tags,
        volume_configurations: &volume_configurations,
    };
    let checked = request::check(&view, &auth.scope, &stored_cluster, &definition, &by(LaunchType::Ec2), asked)?;
    pass_roles(&auth, &definition, &checked.overrides)?;
    let now = auth.now();
    let platform = auth.platform().clone();
    auth.transact(|tx| {
        // What was read may have changed since; what matters is looked at again.
        let stored_cluster = cluster(tx, &auth.scope, cluster_text.as_deref())?;
        let definition = task_definitions::active(tx, &auth.scope, &text)?;
        let (cpu, memory) = definition.size_with(&checked.overrides);
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        let mut ids = platform.ids();
        for name in &named {
            let found = container_instances::find(tx, &auth.scope, &stored_cluster, name);
            let Some(instance) = found.filter(|found| found.status != ContainerInstanceStatus::Inactive) else {
                let arn = names::in_cluster(&auth.scope, &stored_cluster.name, "container-instance", name);
                failures.push(missing(arn.unwrap_or_else(|| name.clone())));
                continue;
            };
            let new = NewTask {
                cluster: &stored_cluster,
                definition: &definition,
                cpu,
                memory,
                overrides: checked.overrides.clone(),
                compute: &by(instance.launch_type()),
                placement: &Placement::default(),
                group: checked.group.clone(),
                started_by: checked.started_by.clone(),
                service: None,
                container_instance_arn: Some(instance.arn.clone()),
                zone: None,
                gpu_ids: Vec::new(),
                load_balancers: Vec::new(),
                image_digests: Default::default(),
                tags: checked.tags.clone(),
            };
            match launch(tx, &platform.fleets, new, checked.network.as_ref(), &mut ids, now) {
                Ok(task) => tasks.push(shapes::task(tx, &task, true)),
                Err(error) => failures.push(Failure {
                    arn: Some(instance.arn.to_string()),
                    reason: Some(match error {
                        LaunchError::NotPlaced(refusal) => {
                            refusal.left_out.first().map_or("INACTIVE", |one| one.reason.as_str()).to_owned()
                        }
                        other => reason(other)?,
                    }),
                    ..Failure::default()
                }),
            }
        }
        Ok(StartTaskResponse { tasks: Some(tasks), failures: Some(failures) })
    })
    .await
}
