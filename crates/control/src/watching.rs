//! From a change in the store to the keys that a reconciler must look at. Giving one too many is harmless.

use std::{collections::BTreeSet, sync::Arc};

use domain::{
    Resource,
    balancing::ObservedHealth,
    ecs::{
        AgentAbsence, AgentConnection, ContainerInstance, ContainerInstanceStatus, SchedulingStrategy, Service, Task,
    },
    instances::Instance,
};
use store::{Change, Snapshot};

use crate::Key;

/// Every key there is: what is looked at when the platform starts, and when changes were missed.
pub fn everything(view: &Snapshot) -> Vec<Key> {
    let tasks = view.list::<Task>("").map(|task| Key::Task(task.arn.to_string()));
    let services = view.list::<Service>("").map(|service| Key::Service(service.arn.to_string()));
    tasks.chain(services).collect()
}

/// The keys that a change concerns.
pub fn concerned(view: &Snapshot, change: &Change) -> Vec<Key> {
    match change.kind {
        Task::KIND => {
            let task = view.get::<Task>(&change.key);
            let service = task.as_ref().and_then(|task| task.service_arn.clone());
            let service = service.map(|arn| Key::Service(arn.to_string()));
            let own = std::iter::once(Key::Task(change.key.clone())).chain(service);
            // Daemons leave a draining instance once all others have left it.
            let host =
                task.and_then(|task| view.get::<ContainerInstance>(task.container_instance_arn.as_ref()?.as_str()));
            let draining = host.filter(|host| host.status == ContainerInstanceStatus::Draining);
            let beside = draining
                .iter()
                .flat_map(|host| services_of(view.find::<Task>(Task::ON_INSTANCE, host.arn.to_string())));
            own.chain(beside).collect()
        }
        Service::KIND => vec![Key::Service(change.key.clone())],
        ContainerInstance::KIND => {
            let tasks = view.find::<Task>(Task::ON_INSTANCE, &change.key);
            let keys = match view.get::<ContainerInstance>(&change.key).map(|instance| instance.status) {
                Some(ContainerInstanceStatus::Active) => Vec::new(),
                // Its services move their tasks away.
                Some(ContainerInstanceStatus::Draining) => services_of(tasks),
                Some(ContainerInstanceStatus::Inactive) | None => {
                    tasks.map(|task| Key::Task(task.arn.to_string())).collect()
                }
            };
            keys.into_iter().chain(waiting(view)).chain(watchful(view, &change.key)).collect()
        }
        AgentConnection::KIND => waiting(view).chain(watchful(view, &change.key)).collect(),
        AgentAbsence::KIND => {
            let will_be_lost = view.get::<AgentAbsence>(&change.key).is_some_and(|absence| absence.lost_at.is_some());
            let tasks = view.find::<Task>(Task::ON_INSTANCE, &change.key);
            let tasks = tasks.filter(|task| will_be_lost || task.is_waiting());
            tasks.map(|task| Key::Task(task.arn.to_string())).collect()
        }
        Instance::KIND => {
            let id = view.get::<Instance>(&change.key).filter(|instance| instance.is_off());
            let hosts = id.iter().flat_map(|instance| {
                view.find::<ContainerInstance>(ContainerInstance::BY_EC2_INSTANCE, instance.instance_id.as_str())
            });
            let tasks = hosts.flat_map(|host| view.find::<Task>(Task::ON_INSTANCE, host.arn.to_string()));
            tasks.map(|task| Key::Task(task.arn.to_string())).collect()
        }
        ObservedHealth::KIND => {
            let group = change.key.rsplitn(3, '/').nth(2).unwrap_or_default();
            view.find::<Service>(Service::BY_TARGET_GROUP, group)
                .map(|service| Key::Service(service.arn.to_string()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The services that tasks are part of, each once.
fn services_of(tasks: impl Iterator<Item = Arc<Task>>) -> Vec<Key> {
    let services: BTreeSet<String> =
        tasks.filter_map(|task| task.service_arn.as_ref().map(|arn| arn.to_string())).collect();
    services.into_iter().map(Key::Service).collect()
}

/// The services that wait for capacity.
fn waiting(view: &Snapshot) -> impl Iterator<Item = Key> + '_ {
    view.find::<Service>(Service::UNPLACED, "yes").map(|service| Key::Service(service.arn.to_string()))
}

/// The services of the cluster that a container instance is in that look at all its instances: daemons, and those that keep
/// availability zones balanced.
fn watchful<'a>(view: &'a Snapshot, instance: &str) -> impl Iterator<Item = Key> + 'a {
    let cluster = view.get::<ContainerInstance>(instance).map(|instance| instance.cluster_arn.to_string());
    cluster
        .into_iter()
        .flat_map(|cluster| view.find::<Service>(Service::BY_CLUSTER, cluster))
        .filter(|service| service.zone_rebalancing || service.scheduling_strategy == SchedulingStrategy::Daemon)
        .map(|service| Key::Service(service.arn.to_string()))
}
