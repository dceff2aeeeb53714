//! Version consistency: all tasks of a deployment run the images that the tags meant for its first task.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html>
//!
//! Which digest a tag means is found out by the first task's host, as with Amazon's agent; the others wait for that.

use std::collections::BTreeMap;

use domain::ecs::{Service, Task, TaskDefinition, TaskStatus};
use store::Snapshot;

/// After so many tasks in a row that did not get as far, the deployment goes on without.
const ATTEMPTS: u32 = 3;

/// What is known of the images of a service's newest deployment.
#[derive(Default)]
pub(super) struct Images {
    /// Digests that its tasks have reported and the deployment has not noted yet, by container.
    pub(super) found: BTreeMap<String, String>,
    /// Whether more than its first task has to wait.
    pub(super) first_only: bool,
}

impl Images {
    pub(super) fn look(view: &Snapshot, service: &Service) -> Images {
        let Some(primary) = service.primary() else { return Images::default() };
        let Some(definition) = view.get::<TaskDefinition>(primary.task_definition_arn.as_str()) else {
            return Images::default();
        };
        let open: Vec<&str> = definition
            .container_definitions
            .iter()
            .filter(|container| container.is_resolved_by_ecs() && !primary.image_digests.contains_key(&container.name))
            .map(|container| container.name.as_str())
            .collect();
        if open.is_empty() {
            return Images::default();
        }
        let mut tasks: Vec<_> = view
            .find::<Task>(Task::OF_SERVICE, service.arn.as_str())
            .filter(|task| task.deployment_id.as_deref() == Some(&primary.id))
            .collect();
        tasks.sort_by(|one, other| (one.created_at, &one.arn).cmp(&(other.created_at, &other.arn)));
        let mut found = BTreeMap::new();
        for container in tasks.iter().flat_map(|task| &task.containers) {
            if let Some(digest) = container.image_digest.as_ref().filter(|_| open.contains(&container.name.as_str())) {
                found.entry(container.name.clone()).or_insert_with(|| digest.clone());
            }
        }
        let runs = tasks.iter().any(|task| task.last_status >= TaskStatus::Running);
        let first_only = found.len() < open.len() && primary.start_failures < ATTEMPTS && !runs;
        Images { found, first_only }
    }
}
