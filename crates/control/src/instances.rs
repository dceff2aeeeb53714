//! EC2 instances that were terminated an hour ago are forgotten.
//!
//! Everything else about an instance is the API's and `host`'s report. One that the host has not yet switched off is
//! remembered for as long as that takes. Mirrors
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html>.

use std::time::Duration;

use domain::{
    Clock, Resource, Timestamp,
    instances::{ConsoleOutput, Instance, InstanceState},
};
use store::{Changes, Snapshot, Store, Transaction};

/// How long DescribeInstances knows a terminated instance.
pub const REMEMBERED: Duration = Duration::from_secs(3600);
/// How long nothing is done after the store could not commit.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What is forgotten at a point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Keys of those whose hour is over.
    pub over: Vec<String>,
    /// When the next one's is.
    pub next: Option<Timestamp>,
}

/// Looks at all terminated instances.
pub fn reconcile(view: &Snapshot, now: Timestamp) -> Forgotten {
    let mut forgotten = Forgotten::default();
    for instance in view.find::<Instance>(Instance::TERMINATED, "yes") {
        // Until the host has reported, its end is still to come.
        if instance.state() != InstanceState::Terminated {
            continue;
        }
        let until = instance.ended_at.unwrap_or(instance.launched_at) + REMEMBERED;
        if until <= now {
            forgotten.over.push(instance.key());
        } else {
            forgotten.next = Some(forgotten.next.map_or(until, |next| next.min(until)));
        }
    }
    forgotten
}

/// Removes those whose hour is over by now, with what they have printed.
pub fn remove(tx: &mut Transaction, now: Timestamp) {
    for key in reconcile(tx, now).over {
        if let Some(instance) = tx.get::<Instance>(&key) {
            tx.delete::<ConsoleOutput>(&instance.instance_id);
        }
        tx.delete::<Instance>(&key);
    }
}

/// Forgets terminated instances in time, until the store is gone. Sleeps when there is none.
pub async fn run(store: Store, clock: Clock) {
    let mut watch = store.watch();
    loop {
        let now = clock.now();
        let forgotten = reconcile(&store.snapshot(), now);
        if !forgotten.over.is_empty() {
            let removed: Result<(), store::TransactError<std::convert::Infallible>> = store
                .transact(|tx| {
                    remove(tx, now);
                    Ok(())
                })
                .await;
            if let Err(error) = removed {
                tracing::error!(%error, "terminated instances cannot be forgotten");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            continue;
        }
        let due = async {
            match forgotten.next {
                // A little late rather than too early by a rounding.
                Some(next) => tokio::time::sleep(clock.real(next.since(now)) + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = relevant(&mut watch) => if !changed { return },
        }
    }
}

/// Waits for a change of some instance; false when the store is gone.
async fn relevant(watch: &mut store::Watch) -> bool {
    loop {
        match watch.next().await {
            Some(Changes::Keys(changes)) => {
                if changes.iter().any(|change| change.kind == Instance::KIND) {
                    return true;
                }
            }
            Some(Changes::Lagged) => return true,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        Scope, Tags,
        instances::{Machine, MetadataOptions, Observed, Power, ShutdownBehavior},
    };
    use store::Kinds;

    use super::*;

    fn instance(id: &str, machine: Machine, ended_at: i64) -> Instance {
        Instance {
            scope: Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() },
            instance_id: id.into(),
            reservation_id: "r-1".into(),
            launch_index: 0,
            image_id: "ami-1".into(),
            instance_type: "t3.micro".into(),
            client_token: None,
            request_digest: None,
            vpc_id: "vpc-1".into(),
            subnet_id: "subnet-1".into(),
            availability_zone: "us-east-1a".into(),
            interface_id: "eni-1".into(),
            public_address: false,
            key_name: None,
            profile: None,
            user_data: None,
            metadata_options: MetadataOptions::default(),
            shutdown_behavior: ShutdownBehavior::Stop,
            disable_api_termination: false,
            disable_api_stop: false,
            ebs_optimized: false,
            root_device_name: "/dev/xvda".into(),
            block_devices: vec![],
            launched_at: Timestamp(0),
            power: Power::Terminated,
            boot: 1,
            state_reason: None,
            ended_at: Some(Timestamp(ended_at)),
            observed: Some(Observed { boot: 1, machine, reason: None, at: Timestamp(0) }),
            tags: Tags::default(),
        }
    }

    #[tokio::test]
    async fn an_hour_after_its_end_an_instance_is_forgotten_if_the_host_is_done() {
        let kinds = Kinds::new().durable::<Instance>().volatile::<ConsoleOutput>();
        let store = Store::open(store::memory::Memory::default(), kinds).unwrap();
        let hour = i64::try_from(REMEMBERED.as_millis()).unwrap();
        let done: Result<(), store::TransactError<()>> = store
            .transact(|tx| {
                tx.put(instance("i-1", Machine::Off, 5));
                tx.put(instance("i-2", Machine::Off, 9));
                tx.put(instance("i-3", Machine::Running, 1));
                let now = Timestamp(5 + hour);
                let forgotten = reconcile(tx, now);
                assert_eq!((forgotten.over.len(), forgotten.next), (1, Some(Timestamp(9 + hour))));
                remove(tx, now);
                Ok(())
            })
            .await;
        done.unwrap();
        let left: Vec<String> = store.snapshot().list::<Instance>("").map(|one| one.instance_id.clone()).collect();
        assert_eq!(left, ["i-2", "i-3"]);
    }
}
