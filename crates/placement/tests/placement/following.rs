//! Fleets that follow the store show what a fleet shows that is read anew, whatever was written between, and whether or
//! not it came to stay.

use std::time::Duration;

use domain::{
    Timestamp,
    ecs::{AgentConnection, ContainerInstance, ContainerInstanceStatus, DesiredStatus, NewTask, Task, TaskStatus},
};
use placement::{Demand, Fleets, create_service_default};
use proptest::{collection::vec, prelude::*, sample::select};
use store::{Snapshot, Store, Transaction, memory::Memory};

use crate::{snapshots::kinds, support::*};

const CLUSTERS: [&str; 2] = ["c", "d"];

#[derive(Clone, Debug)]
enum Write {
    Instance {
        at: u8,
        cluster: u8,
        memory: u32,
        zone: &'static str,
        status: u8,
    },
    Deregister(u8),
    Connect(u8),
    Disconnect(u8),
    Task {
        at: u8,
        on: u8,
        group: u8,
        gpu: u8,
    },
    /// The statuses that it has then; 0 for none, since it is forgotten.
    Observe {
        at: u8,
        status: u8,
    },
}

fn any_write() -> impl Strategy<Value = Write> {
    let instance = (0u8..90, 0u8..2, select(vec![256u32, 1024, 4096]), select(vec!["a", "b", ""]), 0u8..6);
    prop_oneof![
        2 => instance.prop_map(|(at, cluster, memory, zone, status)| Write::Instance { at, cluster, memory, zone, status }),
        1 => (0u8..90).prop_map(Write::Deregister),
        2 => (0u8..90).prop_map(Write::Connect),
        1 => (0u8..90).prop_map(Write::Disconnect),
        4 => (0u8..200, 0u8..90, 0u8..3, 0u8..4).prop_map(|(at, on, group, gpu)| Write::Task { at, on, group, gpu }),
        3 => (0u8..200, 0u8..4).prop_map(|(at, status)| Write::Observe { at, status }),
    ]
}

fn arn(at: u8) -> domain::Arn {
    stored(&format!("{at:03}"), 0, 0, &[]).arn
}

fn write(tx: &mut Transaction, write: &Write) {
    let task = |at: u8| format!("arn:aws:ecs:us-east-1:123456789012:task/c/{at}");
    match write {
        Write::Instance { at, cluster, memory, zone, status } => {
            let mut instance = stored(&format!("{at:03}"), 1024, *memory, &[("ecs.availability-zone", zone)]);
            instance.gpus = (0..*memory / 512).map(|number| number.to_string()).collect();
            // An instance stays in its cluster.
            let known = tx.get::<ContainerInstance>(arn(*at).as_str());
            instance.cluster_arn = known.map_or_else(
                || scope().arn("ecs", &format!("cluster/{}", CLUSTERS[usize::from(*cluster)])),
                |known| known.cluster_arn.clone(),
            );
            instance.status = match status {
                0 => ContainerInstanceStatus::Inactive,
                1 => ContainerInstanceStatus::Draining,
                _ => ContainerInstanceStatus::Active,
            };
            tx.put(instance);
        }
        Write::Deregister(at) => tx.delete::<ContainerInstance>(arn(*at).as_str()),
        Write::Connect(at) => tx.put(AgentConnection {
            container_instance_arn: arn(*at),
            connected_at: Timestamp(0),
            connection_id: "1".into(),
            patience: Duration::ZERO,
        }),
        Write::Disconnect(at) => tx.delete::<AgentConnection>(arn(*at).as_str()),
        Write::Task { at, on, group, gpu } => {
            let mut parts = parts();
            parts.definition.container_definitions[0].gpus = u32::from(*gpu > 0);
            let mut new = parts.new_task(&format!("service:{group}"), Some(&arn(*on)));
            new.gpu_ids = if *gpu > 0 { vec![gpu.to_string()] } else { Vec::new() };
            let mut made = Task::new(new, &mut seed(u64::from(*at)), Timestamp(0));
            made.arn = task(*at).parse().unwrap();
            made.host_ports = if at % 2 == 0 { vec![tcp(80 + u16::from(at % 3))] } else { Vec::new() };
            tx.put(made);
        }
        Write::Observe { at, status: 0 } => tx.delete::<Task>(&task(*at)),
        Write::Observe { at, status } => {
            tx.update::<Task>(&task(*at), |task| match status {
                1 => task.last_status = TaskStatus::Running,
                2 => task.desired_status = DesiredStatus::Stopped,
                _ => (task.desired_status, task.last_status) = (DesiredStatus::Stopped, TaskStatus::Stopped),
            });
        }
    }
}

/// Everything that a fleet shows.
fn shown(fleets: &Fleets, view: &Snapshot) -> Vec<String> {
    let mut shown = Vec::new();
    for cluster in CLUSTERS {
        fleets.ask(view, &scope().arn("ecs", &format!("cluster/{cluster}")), |fleet| {
            shown.push(fleet.len().to_string());
            shown.extend((0..90).map(|at| format!("{:?}", fleet.get(&arn(at)))));
            let mut ask = |number, demand: &Demand| {
                let answer = fleet.place(demand, &create_service_default(), &mut seed(number));
                shown.push(format!("{:?}", answer.map(|instance| instance.arn())));
            };
            for (number, size, gpus) in [(1, 0, 0), (2, 100, 1), (3, 300, 0), (4, 1000, 7)] {
                ask(number, &Demand { gpus, ..demand(1, size) });
            }
            (80..83).for_each(|port| ask(5, &Demand { host_ports: vec![tcp(port)], ..demand(1, 1) }));
            for group in ["service:0", "service:1", "service:2"] {
                ask(6, &Demand { group: group.into(), ..demand(1, 1) });
                ask(7, &Demand { group: group.into(), distinct_instance: true, ..demand(1, 1) });
                ask(8, &Demand { member_of: vec![query(&format!("task:group == {group}"))], ..demand(1, 1) });
            }
            for running in 0..3 {
                let query = query(&format!("runningTasksCount == {running}"));
                ask(9, &Demand { member_of: vec![query], ..demand(1, 1) });
            }
        });
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_followed_is_what_is_read(
        first in vec(any_write(), 0..150),
        rounds in vec((vec(any_write(), 0..10), any::<bool>(), 0u8..4), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(Memory::default(), kinds()).unwrap();
            let fleets = Fleets::new();
            for (writes, stays, asks) in std::iter::once((first, true, 0)).chain(rounds) {
                // Fleets are asked within the transaction, also when it comes to nothing, or a while later.
                let done = store.transact(|tx| {
                    for (at, one) in writes.iter().enumerate() {
                        write(tx, one);
                        if asks > 1 && at % 3 == 0 {
                            assert_eq!(shown(&fleets, tx), shown(&Fleets::new(), tx));
                        }
                    }
                    if stays { Ok(()) } else { Err("refused") }
                });
                assert_eq!(done.await.is_ok(), stays);
                if asks > 0 {
                    let view = store.snapshot();
                    assert_eq!(shown(&fleets, &view), shown(&Fleets::new(), &view));
                }
            }
        });
    }
}

/// What becomes of the tasks on instances with GPUs.
#[derive(Clone, Debug)]
enum Step {
    /// A task of so many containers with so many GPUs each.
    Place(usize, u32),
    /// One of those that there are, by its place among them: it is to stop, or has.
    Stop(usize, bool),
    /// An instance registers again, with other GPUs.
    Register(u8, u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..3, 0u32..3).prop_map(|(containers, gpus)| Step::Place(containers, gpus)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(at, over)| Step::Stop(at, over)),
        1 => (0u8..3, 0u8..5).prop_map(|(at, gpus)| Step::Register(at, gpus)),
    ]
}

fn with_own_gpus(at: u8, gpus: u8) -> ContainerInstance {
    let mut instance = stored(&format!("{at:03}"), 1 << 20, 1 << 20, &[]);
    instance.gpus = (0..gpus).map(|number| format!("GPU-{at}-{number}")).collect();
    instance
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// As launching does it: an instance is chosen and its GPUs are bound in one transaction.
    #[test]
    fn no_gpu_ever_has_two_holders(steps in vec(any_step(), 1..40), number: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(Memory::default(), kinds()).unwrap();
            let (fleets, mut random) = (Fleets::new(), seed(number));
            let done = store.transact(|tx| {
                for at in 0..3 {
                    tx.put(with_own_gpus(at, at));
                    write(tx, &Write::Connect(at));
                }
                Ok::<_, String>(())
            });
            done.await.unwrap();
            for step in steps {
                let done = store.transact(|tx| {
                    match step {
                        Step::Place(containers, gpus) => {
                            let mut parts = parts();
                            let mut container = parts.definition.container_definitions[0].clone();
                            container.gpus = gpus;
                            parts.definition.container_definitions = vec![container; containers];
                            let new = parts.new_task("", None);
                            let demand = Demand::of(&new, no_time).unwrap();
                            let chosen = fleets.ask(tx, &cluster().arn, |fleet| {
                                let chosen = fleet.place(&demand, &[], &mut random).ok()?;
                                Some((chosen.arn().clone(), chosen.choose_gpus(&demand)))
                            });
                            if let Some((arn, gpu_ids)) = chosen {
                                let new = NewTask { container_instance_arn: Some(arn), gpu_ids, ..new };
                                let task = Task::new(new, &mut random, Timestamp(0));
                                assert!(task.containers.iter().all(|one| one.gpu_ids.len() == gpus as usize));
                                tx.put(task);
                            } else {
                                // Somewhere is always room for a task that asks for none.
                                assert!(gpus > 0);
                            }
                        }
                        Step::Stop(at, over) => {
                            let tasks: Vec<_> = tx.list::<Task>("").map(|task| task.arn.to_string()).collect();
                            if let Some(arn) = at.checked_rem(tasks.len()).map(|at| &tasks[at]) {
                                tx.update::<Task>(arn, |task| {
                                    task.desired_status = DesiredStatus::Stopped;
                                    task.last_status = if over { TaskStatus::Stopped } else { task.last_status };
                                });
                            }
                        }
                        Step::Register(at, gpus) => tx.put(with_own_gpus(at, gpus)),
                    }
                    Ok::<_, String>(())
                });
                done.await.unwrap();
                let view = store.snapshot();
                let mut held: Vec<String> = Vec::new();
                for task in view.list::<Task>("").filter(|task| task.last_status != TaskStatus::Stopped) {
                    held.extend(task.held_gpus().map(str::to_owned));
                }
                let distinct: std::collections::BTreeSet<_> = held.iter().collect();
                assert_eq!(distinct.len(), held.len(), "two holders: {held:?}");
            }
        });
    }
}
