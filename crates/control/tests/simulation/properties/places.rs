//! Where tasks are: what no instance may be given, and a placement of the simplest kind to compare refusals with.

use std::sync::Arc;

use domain::{
    Arn,
    ecs::{
        AgentConnection, ContainerInstance, ContainerInstanceStatus, DesiredStatus, HostPort, LaunchType, NewTask,
        PlacementConstraint, SchedulingStrategy, Service, Task, TaskDefinition, TaskStatus,
    },
};
use store::Snapshot;

use super::{Checked, ensure};

/// The one expression that this world's constraints have.
fn selects(constraint: &PlacementConstraint, instance: &ContainerInstance) -> bool {
    match constraint {
        PlacementConstraint::DistinctInstance => true,
        PlacementConstraint::MemberOf(text) => {
            let wanted = text.rsplit(' ').next();
            let class = instance.attributes.iter().find(|attribute| attribute.name == "class");
            class.and_then(|class| class.value.as_deref()) == wanted
        }
    }
}

fn held(view: &Snapshot, instance: &str) -> (u32, u32) {
    view.find::<Task>(Task::ON_INSTANCE, instance)
        .fold((0, 0), |(cpu, memory), task| (cpu + task.cpu, memory + task.memory))
}

fn ports(view: &Snapshot, instance: &str) -> Vec<HostPort> {
    view.find::<Task>(Task::ON_INSTANCE, instance).flat_map(|task| task.host_ports.clone()).collect()
}

/// A new task is where it may be, and nothing was promised twice.
pub fn new_task(before: &Snapshot, after: &Snapshot, task: &Task) -> Checked {
    let arn = task.container_instance_arn.as_ref().ok_or("a task has no place")?.as_str();
    let instance = before.get::<ContainerInstance>(arn).ok_or("a task was put where there is nothing")?;
    let complain = |what: &str| Err(format!("{} was put on {arn}, {what}", task.arn));
    if instance.status != ContainerInstanceStatus::Active {
        return complain("which takes no tasks");
    }
    let (cpu, memory) = held(after, arn);
    if memory > instance.memory {
        return complain("whose memory was promised already");
    }
    if task.launch_type == LaunchType::Fargate {
        return ensure(instance.is_fargate(), || format!("{} is on no Fargate host", task.arn));
    }
    if cpu > instance.cpu {
        return complain("whose CPU units were promised already");
    }
    if !before.contains::<AgentConnection>(arn) {
        return complain("whose agent is away");
    }
    let mut ports = ports(after, arn);
    let all = ports.len();
    ports.sort();
    ports.dedup();
    if ports.len() < all {
        return complain("where somebody has its port");
    }
    let Some(service) = task.service_arn.as_ref().and_then(|arn| after.get::<Service>(arn.as_str())) else {
        return Ok(());
    };
    if !service.placement.constraints.iter().all(|constraint| selects(constraint, &instance)) {
        return complain("which its constraints do not select");
    }
    let distinct = service.placement.constraints.contains(&PlacementConstraint::DistinctInstance);
    let beside = after.find::<Task>(Task::ON_INSTANCE, arn).filter(|other| {
        other.arn != task.arn && other.group == task.group && other.desired_status == DesiredStatus::Running
    });
    if distinct && beside.count() > 0 {
        return complain("where another of its group is");
    }
    Ok(())
}

/// An instance that could have had the task.
pub fn on_instances(view: &Snapshot, new: &NewTask<'_>) -> Option<Arn> {
    let all = view.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, new.cluster.arn.as_str());
    let given = |one: &Arc<ContainerInstance>| new.container_instance_arn.as_ref().is_none_or(|arn| *arn == one.arn);
    all.filter(given).find(|instance| could_have(view, new, instance)).map(|instance| instance.arn.clone())
}

/// Whether an instance could have the task.
pub fn could_have(view: &Snapshot, new: &NewTask<'_>, instance: &ContainerInstance) -> bool {
    let arn = instance.arn.as_str();
    let (cpu, memory) = held(view, arn);
    let wanted = new.definition.host_ports();
    let group = new.group();
    let distinct = new.placement.constraints.contains(&PlacementConstraint::DistinctInstance);
    instance.status == ContainerInstanceStatus::Active
        && view.contains::<AgentConnection>(arn)
        && cpu + new.cpu <= instance.cpu
        && memory + new.memory <= instance.memory
        && !ports(view, arn).iter().any(|port| wanted.contains(port))
        && new.placement.constraints.iter().all(|constraint| selects(constraint, instance))
        && !(distinct
            && view
                .find::<Task>(Task::ON_INSTANCE, arn)
                .any(|task| task.group == *group && task.desired_status == DesiredStatus::Running))
}

/// A Fargate host that could have had the task.
pub fn on_fargate(view: &Snapshot, new: &NewTask<'_>) -> Option<Arn> {
    let hosts: Vec<_> = view.find::<ContainerInstance>(ContainerInstance::FARGATE, "yes").collect();
    let connected = |host: &ContainerInstance| view.contains::<AgentConnection>(host.arn.as_str());
    let none = !hosts.iter().any(|host| connected(host));
    let fits = |host: &&Arc<ContainerInstance>| held(view, host.arn.as_str()).1 + new.memory <= host.memory;
    hosts.iter().filter(|host| none || connected(host)).find(fits).map(|host| host.arn.clone())
}

/// Whether nothing keeps a service's task on an instance that drains: a daemon waits for all others, and what a failed
/// deployment has left stays.
pub fn is_last(view: &Snapshot, service: &Service, instance: &ContainerInstance) -> bool {
    let mut beside = view.find::<Task>(Task::ON_INSTANCE, instance.arn.as_str());
    service.scheduling_strategy == SchedulingStrategy::Replica
        || beside.all(|task| task.service_arn.as_ref() == Some(&service.arn))
}

/// Of a daemon service: exactly one task on each ACTIVE instance that has room for it, and none on others.
pub fn one_each(view: &Snapshot, service: &Service, tasks: &[Arc<Task>]) -> Checked {
    let primary = service.primary().ok_or("no deployment")?;
    let definition = view.get::<TaskDefinition>(primary.task_definition_arn.as_str()).ok_or("no task definition")?;
    let (need_cpu, need_memory) = (definition.cpu.unwrap_or_default(), definition.memory.unwrap_or_default());
    for instance in view.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, service.cluster_arn.as_str()) {
        let arn = instance.arn.as_str();
        let here = tasks.iter().filter(|task| task.container_instance_arn.as_ref() == Some(&instance.arn)).count();
        let (cpu, memory) = held(view, arn);
        let room = cpu + need_cpu <= instance.cpu && memory + need_memory <= instance.memory;
        let connected = view.contains::<AgentConnection>(arn);
        match instance.status {
            ContainerInstanceStatus::Active if here == 0 && room && connected => {
                return Err(format!("no daemon on {arn}"));
            }
            ContainerInstanceStatus::Active => ensure(here <= 1, || format!("{here} daemons on {arn}"))?,
            _ => {
                let may_stay = here == 0 || !is_last(view, service, &instance);
                ensure(may_stay, || format!("a daemon was left on {arn}"))?;
            }
        }
    }
    let stay = tasks.iter().all(|task| task.last_status == TaskStatus::Running);
    ensure(stay, || "a daemon does not run".into())
}
