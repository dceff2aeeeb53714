//! Between the store and the processes that follow a slice of it: whatever changes is published, whatever they report
//! is observed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use domain::{
    Resource,
    balancing::LoadBalancer,
    identity::InstanceProfile,
    network::host::{HostItem, HostReport, InterfaceState, NameItem},
};
use store::{Changes, Snapshot};
use wire::ServiceError;

use crate::platform::ControlPlane;

/// Kinds that no slice is made of, but for instance profiles: a change of them alone needs no publishing.
const IRRELEVANT: [&str; 4] = ["ecs/", "iam/role", "logs/", "ec2/console-output"];
/// How long a report that could not be saved waits for its next try by the reporter.
const RETRY: Duration = Duration::from_millis(200);

/// Publishes slices for ever.
pub async fn publish(control_plane: Arc<ControlPlane>) {
    let store = &control_plane.platform.store;
    let mut watch = store.watch();
    let mut known = BTreeSet::new();
    loop {
        let snapshot = store.snapshot();
        if let Err(error) = publish_once(&control_plane, &snapshot, &mut known) {
            tracing::error!(%error, "a slice cannot be published");
        }
        loop {
            match watch.next().await {
                Some(Changes::Keys(changes)) => {
                    let relevant = |kind: &str| {
                        // An instance is told which role its profile has.
                        kind == InstanceProfile::KIND || !IRRELEVANT.iter().any(|prefix| kind.starts_with(prefix))
                    };
                    if changes.iter().any(|change| relevant(change.kind)) {
                        break;
                    }
                }
                Some(Changes::Lagged) => break,
                None => return,
            }
        }
    }
}

fn publish_once(
    control_plane: &ControlPlane,
    snapshot: &Snapshot,
    known: &mut BTreeSet<String>,
) -> Result<(), feed::PublishError> {
    let publisher = &control_plane.publisher;
    let extra = services::elbv2::host_items(snapshot).chain(registry_names(control_plane));
    let sign = |document: &str| control_plane.platform.authority.sign_identity_document(document);
    publisher.publish("host", &services::ec2::host_slice(snapshot, &sign, extra))?;
    let mut current = BTreeSet::new();
    for load_balancer in snapshot.list::<LoadBalancer>("") {
        let consumer = format!("balancer/{}", load_balancer.arn);
        publisher.publish(&consumer, &services::elbv2::balancer_slice(snapshot, &load_balancer))?;
        current.insert(consumer);
    }
    for gone in known.difference(&current) {
        publisher.withdraw(gone);
    }
    *known = current;
    Ok(())
}

/// Amazon's regions: the registry's name is known on the host in each of them before it is first used, since the login
/// comes first. In any other region the repositories are reached through `localhost` or a name the operator adds.
const REGIONS: &str = "af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 \
    ap-south-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 \
    ap-southeast-7 ca-central-1 ca-west-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 \
    eu-west-2 eu-west-3 il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-west-1 \
    us-west-2";

/// The names under which the registry is reached from the host.
fn registry_names(control_plane: &ControlPlane) -> impl Iterator<Item = (String, HostItem)> {
    let options = &control_plane.platform.options;
    let own = options.region.as_str();
    let regions = REGIONS.split(' ').filter(move |region| *region != own).chain([own]);
    regions.map(|region| {
        let name = format!("{}.dkr.ecr.{region}.localhost", options.account);
        let item = NameItem {
            name: name.clone(),
            vpc_id: None,
            private_addresses: vec![],
            public_addresses: vec![std::net::Ipv4Addr::LOCALHOST],
        };
        (format!("name/{name}"), HostItem::Name(item))
    })
}

/// Observes reports for ever.
pub async fn observe(control_plane: Arc<ControlPlane>) {
    while let Some(report) = control_plane.publisher.next_report().await {
        match observe_one(&control_plane, &report.consumer, &report.body).await {
            Ok(()) => report.confirm(),
            Err(error) => {
                // Not confirmed: it comes again.
                tracing::warn!(consumer = report.consumer, key = report.key, %error, "a report cannot be saved");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn observe_one(
    control_plane: &ControlPlane,
    consumer: &str,
    body: &serde_json::Value,
) -> Result<(), ServiceError> {
    let platform = &control_plane.platform;
    let now = platform.clock.now();
    let observed = platform.store.transact(|tx| {
        if let Some(arn) = consumer.strip_prefix("balancer/") {
            services::elbv2::observe_balancer(tx, arn, body);
            return Ok(());
        }
        // What this version does not understand is nothing to it; the reporter need not repeat it.
        let Ok(report) = serde_json::from_value::<HostReport>(body.clone()) else { return Ok(()) };
        match report {
            HostReport::Interface { interface_id, state, reason, .. } => {
                if state == InterfaceState::Attached {
                    services::ecs::observe::interface_attached(tx, &interface_id, now);
                } else {
                    let reason = reason.unwrap_or_default();
                    services::ecs::observe::interface_failed(tx, &interface_id, &reason, now);
                }
            }
            HostReport::LoadBalancer { arn, state, reason, .. } => {
                tracing::info!(arn, ?state, reason, "load balancer");
            }
            HostReport::Instance { instance_id, boot, machine, reason } => {
                services::ec2::observe::instance(tx, &instance_id, boot, machine, reason, now);
            }
            HostReport::Console { instance_id, output } => {
                services::ec2::observe::console(tx, &instance_id, output, now);
            }
            HostReport::Volume { volume_id, problem } => services::ec2::observe::volume(tx, &volume_id, problem),
            HostReport::Host { problems } => {
                for problem in problems {
                    tracing::warn!(problem, "host");
                }
            }
        }
        Ok(())
    });
    observed.await.map_err(services::commit_failure)
}
