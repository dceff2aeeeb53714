//! Placement as the platform does it: fleets that follow the store, asked within a transaction that writes each task.

use std::time::{Duration, Instant};

use domain::{
    Timestamp,
    ecs::{AgentConnection, ContainerInstance, NewTask, Task},
};
use placement::{Fleets, create_service_default};
use store::{Kinds, Store, memory::Memory};

use crate::support::{demand, parts, seed};

/// What a cluster gave.
pub struct Times {
    /// Reading its instances and their tasks, which was once done for each task.
    pub read: Duration,
    /// Finding a place for a task and writing it, each after the one before.
    pub each: Duration,
    /// Of that, finding the place: following what was written before, and choosing.
    pub place: Duration,
}

/// Instances with ten tasks each, and then so many tasks more.
pub async fn measure(instances: Vec<ContainerInstance>, more: u32) -> Times {
    let kinds = Kinds::new().durable::<ContainerInstance>().durable::<Task>().volatile::<AgentConnection>();
    let store = Store::open(Memory::default(), kinds).unwrap();
    let (parts, fleets, mut random) = (parts(), Fleets::new(), seed(1));
    let transaction = store.transact(|tx| {
        for instance in instances {
            let arn = instance.arn.clone();
            for number in 0..10 {
                let new = parts.new_task(&format!("service:{number}"), Some(&arn));
                tx.put(Task::new(NewTask { cpu: 16, memory: 32, ..new }, &mut random, Timestamp(0)));
            }
            tx.put(AgentConnection {
                container_instance_arn: arn,
                connected_at: Timestamp(0),
                connection_id: "1".into(),
                patience: Duration::ZERO,
            });
            tx.put(instance);
        }
        Ok::<_, String>(())
    });
    transaction.await.unwrap();
    let (needs, strategy) = (demand(16, 32), create_service_default());
    let transaction = store.transact(|tx| {
        let start = Instant::now();
        fleets.ask(tx, &parts.cluster.arn, |fleet| assert!(!fleet.is_empty()));
        let read = start.elapsed();
        let (mut place, start) = (Duration::ZERO, Instant::now());
        for _ in 0..more {
            let asked = Instant::now();
            let arn = fleets.ask(tx, &parts.cluster.arn, |fleet| {
                fleet.place(&needs, &strategy, &mut random).map(|instance| instance.arn().clone())
            });
            place += asked.elapsed();
            let new = parts.new_task("service:web", Some(&arn.unwrap()));
            tx.put(Task::new(NewTask { cpu: 16, memory: 32, ..new }, &mut random, Timestamp(0)));
        }
        Ok::<_, String>(Times { read, each: start.elapsed() / more, place: place / more })
    });
    transaction.await.unwrap()
}
