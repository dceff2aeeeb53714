//! EC2 instances that were terminated an hour ago are forgotten; Spot Instances end two minutes after their notice.
//!
//! Everything else about an instance is the API's and `host`'s report. One that the host has not yet switched off is
//! remembered for as long as that takes. Mirrors
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html>.

use std::time::Duration;

use domain::{
    Clock, Resource, Timestamp,
    instances::{ConsoleOutput, Instance, InstanceState, Power, StateReason},
};
use store::{Snapshot, Store, Transaction};

use crate::expiry::{self, Due};

/// How long DescribeInstances knows a terminated instance.
pub const REMEMBERED: Duration = Duration::from_secs(3600);
/// Looks at all terminated instances.
pub fn reconcile(view: &Snapshot, now: Timestamp) -> Due {
    let mut due = Due::default();
    for instance in view.find::<Instance>(Instance::TERMINATED, "yes") {
        // Until the host has reported, its end is still to come.
        if instance.state() != InstanceState::Terminated {
            continue;
        }
        let until = instance.ended_at.unwrap_or(instance.launched_at) + REMEMBERED;
        due.add(instance.key(), until, now);
    }
    due
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

/// Looks at all Spot Instances that have their notice.
pub fn reconcile_interrupted(view: &Snapshot, now: Timestamp) -> Due {
    let mut due = Due::default();
    for instance in view.find::<Instance>(Instance::INTERRUPTED, "yes") {
        if let Some(end) = instance.spot.as_ref().and_then(|spot| spot.interruption) {
            due.add(instance.key(), end, now);
        }
    }
    due
}

/// Forgets terminated instances in time, until the store is gone.
pub async fn run(store: Store, clock: Clock) {
    expiry::run::<Instance>(store, clock, reconcile, remove, "terminated instances").await;
}

/// Terminates those whose two minutes are over by now, whatever protects them from their users.
pub fn interrupt(tx: &mut Transaction, now: Timestamp) {
    for key in reconcile_interrupted(tx, now).over {
        tx.update::<Instance>(&key, |instance| {
            let code = "Server.SpotInstanceTermination";
            let message = format!("{code}: Spot instance termination");
            instance.power = Power::Terminated;
            instance.ended_at = Some(now);
            instance.state_reason = Some(StateReason { code: code.to_owned(), message });
        });
    }
}

/// Ends interrupted Spot Instances in time, until the store is gone.
pub async fn run_interruptions(store: Store, clock: Clock) {
    expiry::run::<Instance>(store, clock, reconcile_interrupted, interrupt, "interrupted Spot Instances").await;
}

#[cfg(test)]
mod tests {
    use domain::{
        Scope, Tags,
        instances::{Machine, MetadataOptions, Observed, ShutdownBehavior, Spot},
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
            spot: None,
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

    #[tokio::test]
    async fn r05_an_interrupted_spot_instance_ends_at_its_time() {
        let store = Store::open(store::memory::Memory::default(), Kinds::new().durable::<Instance>()).unwrap();
        let spot = |id: &str, interruption: Option<i64>| Instance {
            power: Power::On,
            ended_at: None,
            disable_api_termination: true,
            spot: Some(Spot { interruption: interruption.map(Timestamp) }),
            ..instance(id, Machine::Running, 0)
        };
        let done: Result<(), store::TransactError<()>> = store
            .transact(|tx| {
                tx.put(spot("i-1", Some(5)));
                tx.put(spot("i-2", Some(9)));
                tx.put(spot("i-3", None));
                let due = reconcile_interrupted(tx, Timestamp(5));
                assert_eq!((due.over.len(), due.next), (1, Some(Timestamp(9))));
                interrupt(tx, Timestamp(5));
                assert_eq!(reconcile_interrupted(tx, Timestamp(5)).over.len(), 0, "its end is asked for only once");
                Ok(())
            })
            .await;
        done.unwrap();
        let ends: Vec<Option<String>> = store
            .snapshot()
            .list::<Instance>("")
            .map(|one| one.state_reason.as_ref().map(|reason| reason.code.clone()))
            .collect();
        assert_eq!(ends, [Some("Server.SpotInstanceTermination".to_owned()), None, None]);
    }
}
