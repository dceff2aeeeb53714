//! Which of the container instances that can have a task is preferred. Best effort: a strategy never keeps a task from
//! being placed. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-strategies.html>

use domain::{
    IdSource,
    ecs::{BinpackField, PlacementStrategy, container_instance::ZONE_ATTRIBUTE},
};

use crate::{
    Demand, Instance, Refusal, filter,
    spread::{self, Classes, keep_least},
};

/// What a service does that was given no strategy: spread over availability zones, and within a zone over instances.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>
pub fn create_service_default() -> Vec<PlacementStrategy> {
    vec![
        PlacementStrategy::Spread(format!("attribute:{ZONE_ATTRIBUTE}")),
        PlacementStrategy::Spread("instanceId".to_owned()),
    ]
}

/// Chooses an instance for a task. Each strategy decides only between those that the ones before it leave equal;
/// between those that are equal at the end chance does. The same `random` gives the same answer.
///
/// # Errors
/// When no instance passes the filters: the reason of each.
pub fn place<'a>(
    instances: &'a [Instance],
    demand: &Demand,
    strategy: &[PlacementStrategy],
    random: &mut IdSource,
) -> Result<&'a Instance, Refusal> {
    choose(instances, demand, strategy, random)
        .and_then(|at| instances.get(at))
        .ok_or_else(|| Refusal::explain(instances, demand))
}

/// Where the preferred one stands, if any can have the task.
fn choose(
    instances: &[Instance],
    demand: &Demand,
    strategy: &[PlacementStrategy],
    random: &mut IdSource,
) -> Option<usize> {
    let passes = |(at, instance)| filter::check(instance, demand).is_ok().then_some(at);
    let mut candidates: Vec<usize> = instances.iter().enumerate().filter_map(passes).collect();
    let mut classes = Classes::new(instances.len());
    for step in strategy {
        if candidates.len() < 2 {
            break;
        }
        match step {
            PlacementStrategy::Spread(field) => {
                // Tasks count wherever they are, also on instances that cannot have this one.
                let values = |instance| spread::value(instance, field);
                let things = instances.iter().map(|instance| (values(instance), instance.tasks_of(&demand.group)));
                let tasks = classes.divide(things);
                // Those without the attribute are one more value, which comes last among equals.
                keep_least(&mut candidates, |at| (tasks.get(classes.of(at)), values(&instances[at]).is_none()));
            }
            // What the task takes is the same everywhere: the least free before it is the least free after it.
            PlacementStrategy::Binpack(BinpackField::Cpu) => keep_least(&mut candidates, |at| instances[at].free_cpu),
            PlacementStrategy::Binpack(BinpackField::Memory) => {
                keep_least(&mut candidates, |at| instances[at].free_memory);
            }
            // Nothing is equal any more after chance has decided.
            PlacementStrategy::Random => break,
        }
    }
    let chance = random.below(candidates.len());
    candidates.get(chance).copied()
}
