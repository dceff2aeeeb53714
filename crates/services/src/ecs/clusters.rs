//! Clusters. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Cluster.html>

use std::{collections::BTreeSet, sync::Arc};

use api::ecs::*;
use domain::ecs::{
    ClusterStatus, ContainerInstance, LaunchType, Service as StoredService, ServiceStatus, Task as StoredTask,
    TaskStatus, names,
};
use store::Snapshot;
use wire::ServiceError;

use super::common::{
    Given, cluster, cluster_arn, count, invalid, missing, page, page_size, pair, refuse, tags, tags_shape, unsupported,
};
use crate::{Authorised, Call};

type Stored = domain::ecs::Cluster;

/// The capacity providers that every account has.
pub(super) const FARGATE_PROVIDERS: [&str; 2] = ["FARGATE", "FARGATE_SPOT"];

pub(super) async fn create(call: Call, input: CreateClusterRequest) -> Result<CreateClusterResponse, ServiceError> {
    let CreateClusterRequest {
        cluster_name,
        tags: given_tags,
        settings,
        configuration,
        service_connect_defaults,
        capacity_providers,
        default_capacity_provider_strategy,
    } = input;
    let name = cluster_name.unwrap_or_else(|| names::DEFAULT_CLUSTER.to_owned());
    let auth = call.authorise(&[names::cluster(&call.scope, &name)])?;
    if !names::is_valid(&name) {
        return Err(invalid(
            "Cluster name can be up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens.",
        ));
    }
    check_settings(settings)?;
    refuse(&[
        ("configuration", configuration.is_some()),
        ("serviceConnectDefaults", service_connect_defaults.is_some()),
        ("defaultCapacityProviderStrategy", default_capacity_provider_strategy.given()),
    ])?;
    let capacity_providers = check_providers(capacity_providers)?;
    let new_tags = tags(given_tags)?;
    let now = auth.now();
    auth.transact(|tx| {
        let existing = tx.get::<Stored>(names::cluster(&auth.scope, &name).as_str());
        let stored = match existing.filter(|existing| existing.is_active()) {
            Some(existing) => Stored::clone(&existing),
            None => {
                let mut stored = Stored::new(&auth.scope, &name, new_tags, now);
                stored.capacity_providers = capacity_providers;
                tx.put(stored.clone());
                stored
            }
        };
        Ok(CreateClusterResponse { cluster: Some(shape(tx, &stored, &all())) })
    })
    .await
}

pub(super) async fn describe(
    call: Call,
    input: DescribeClustersRequest,
) -> Result<DescribeClustersResponse, ServiceError> {
    let asked = match input.clusters {
        Some(clusters) if !clusters.is_empty() => clusters,
        _ => vec![names::DEFAULT_CLUSTER.to_owned()],
    };
    let arns: Vec<String> = asked.iter().map(|cluster| cluster_arn(&call.scope, Some(cluster))).collect();
    let auth = call.authorise(&arns)?;
    if asked.len() > 100 {
        return Err(invalid("Clusters cannot be more than 100."));
    }
    let include = input.include.unwrap_or_default();
    let view = auth.snapshot();
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for arn in arns {
        match view.get::<Stored>(&arn).filter(|_| is_listed(&arn)) {
            Some(stored) => clusters.push(shape(&view, &stored, &include)),
            None => failures.push(missing(arn)),
        }
    }
    Ok(DescribeClustersResponse { clusters: Some(clusters), failures: Some(failures) })
}

pub(super) async fn list(call: Call, input: ListClustersRequest) -> Result<ListClustersResponse, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let size = page_size(input.max_results, 100, 100)?;
    let view = auth.snapshot();
    let arns = view.find::<Stored>(Stored::BY_SCOPE, auth.scope.prefix()).map(|stored| stored.arn.to_string());
    let arns = arns.filter(|arn| is_listed(arn));
    let (cluster_arns, next_token) = page(&operation::LIST_CLUSTERS, arns, input.next_token.as_deref(), size)?;
    Ok(ListClustersResponse { cluster_arns: Some(cluster_arns), next_token })
}

pub(super) async fn delete(call: Call, input: DeleteClusterRequest) -> Result<DeleteClusterResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    auth.transact(|tx| {
        let stored = cluster(tx, &auth.scope, input.cluster.as_deref())?;
        let arn = stored.arn.as_str();
        if tx.count::<StoredService>(StoredService::BY_CLUSTER, arn) > 0 {
            return Err(error::cluster_contains_services_exception(
                "The Cluster cannot be deleted while Services are active.",
            ));
        }
        let left = |kind| statuses().map(|status| tasks(tx, arn, kind, status)).sum();
        if ByLaunchType::of(left).total() > 0 {
            return Err(error::cluster_contains_tasks_exception(
                "The Cluster cannot be deleted while Tasks are active.",
            ));
        }
        if tx.count::<ContainerInstance>(ContainerInstance::BY_CLUSTER, arn) > 0 {
            return Err(error::cluster_contains_container_instances_exception(
                "The Cluster cannot be deleted while Container Instances are active or draining.",
            ));
        }
        let mut stored = Stored::clone(&stored);
        stored.status = ClusterStatus::Inactive;
        tx.put(stored.clone());
        Ok(DeleteClusterResponse { cluster: Some(shape(tx, &stored, &all())) })
    })
    .await
}

pub(super) async fn update(call: Call, input: UpdateClusterRequest) -> Result<UpdateClusterResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    check_settings(input.settings)?;
    refuse(&[
        ("configuration", input.configuration.is_some()),
        ("serviceConnectDefaults", input.service_connect_defaults.is_some()),
    ])?;
    let view = auth.snapshot();
    let stored = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    Ok(UpdateClusterResponse { cluster: Some(shape(&view, &stored, &all())) })
}

pub(super) async fn update_settings(
    call: Call,
    input: UpdateClusterSettingsRequest,
) -> Result<UpdateClusterSettingsResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    check_settings(input.settings)?;
    let view = auth.snapshot();
    let stored = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    Ok(UpdateClusterSettingsResponse { cluster: Some(shape(&view, &stored, &all())) })
}

pub(super) async fn put_capacity_providers(
    call: Call,
    input: PutClusterCapacityProvidersRequest,
) -> Result<PutClusterCapacityProvidersResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    refuse(&[("defaultCapacityProviderStrategy", input.default_capacity_provider_strategy.given())])?;
    let providers = check_providers(input.capacity_providers)?;
    auth.transact(|tx| {
        let mut stored = domain::ecs::Cluster::clone(&*cluster(tx, &auth.scope, input.cluster.as_deref())?);
        stored.capacity_providers = providers;
        tx.put(stored.clone());
        Ok(PutClusterCapacityProvidersResponse { cluster: Some(shape(tx, &stored, &all())) })
    })
    .await
}

pub(super) async fn describe_capacity_providers(
    call: Call,
    input: DescribeCapacityProvidersRequest,
) -> Result<DescribeCapacityProvidersResponse, ServiceError> {
    let auth: Authorised = call.authorise::<&str>(&[])?;
    page_size(input.max_results, 10, 10)?;
    let asked = input.capacity_providers.unwrap_or_default();
    let mut names: Vec<&str> = FARGATE_PROVIDERS.to_vec();
    if let Some(of) = input.cluster.as_deref() {
        let view = auth.snapshot();
        let stored = cluster(&view, &auth.scope, Some(of))?;
        names.retain(|name| stored.capacity_providers.iter().any(|associated| associated == name));
    }
    let is = |asked: &str, name: &str| asked.rsplit('/').next() == Some(name);
    let failures = asked.iter().filter(|asked| !names.iter().any(|name| is(asked, name))).map(missing).collect();
    names.retain(|name| asked.is_empty() || asked.iter().any(|asked| is(asked, name)));
    let capacity_providers = names
        .into_iter()
        .map(|name| CapacityProvider {
            capacity_provider_arn: Some(auth.arn("ecs", &format!("capacity-provider/{name}")).to_string()),
            name: Some(name.to_owned()),
            status: Some("ACTIVE".to_owned()),
            tags: Some(Vec::new()),
            ..CapacityProvider::default()
        })
        .collect();
    Ok(DescribeCapacityProvidersResponse {
        capacity_providers: Some(capacity_providers),
        failures: Some(failures),
        next_token: None,
    })
}

/// The hidden cluster of Fargate hosts belongs to nobody.
fn is_listed(arn: &str) -> bool {
    arn.rsplit('/').next() != Some(domain::agent_protocol::FARGATE_CLUSTER)
}

/// Container Insights is not there, so only its being off is honoured.
fn check_settings(settings: Option<Vec<ClusterSetting>>) -> Result<(), ServiceError> {
    for setting in settings.unwrap_or_default() {
        let name = setting.name.unwrap_or_default();
        if name != "containerInsights" {
            return Err(invalid(format!("Invalid cluster setting name: {name}")));
        }
        if setting.value.as_deref() != Some("disabled") {
            return Err(unsupported("settings.containerInsights other than disabled"));
        }
    }
    Ok(())
}

fn check_providers(given: Option<Vec<String>>) -> Result<Vec<String>, ServiceError> {
    let given = given.unwrap_or_default();
    match given.iter().find(|name| !FARGATE_PROVIDERS.contains(&name.as_str())) {
        Some(unknown) => Err(invalid(format!(
            "The specified capacity provider '{unknown}' was not found. Specify a valid name or ARN and try again."
        ))),
        None => Ok(given.into_iter().collect::<BTreeSet<_>>().into_iter().collect()),
    }
}

/// The statuses of tasks that a cluster still has.
fn statuses() -> impl Iterator<Item = TaskStatus> {
    use TaskStatus::*;
    [Provisioning, Pending, Activating, Running, Deactivating, Stopping, Deprovisioning].into_iter()
}

fn tasks(view: &Snapshot, cluster: &str, launch_type: LaunchType, status: TaskStatus) -> usize {
    view.count::<StoredTask>(StoredTask::CLUSTER_STATUS, StoredTask::cluster_status(cluster, launch_type, status))
}

/// How many of something there are, by launch type.
struct ByLaunchType([usize; 3]);

impl ByLaunchType {
    fn of(count: impl Fn(LaunchType) -> usize) -> Self {
        Self(LaunchType::ALL.map(count))
    }

    fn total(&self) -> i32 {
        count(self.0.iter().sum())
    }

    /// As DescribeClusters' statistics have it: `before`, the launch type, `after`.
    fn statistics(&self, before: &str, after: &str) -> impl Iterator<Item = KeyValuePair> {
        let name = |index: usize| {
            let kind = ["EC2", "Fargate", "External"].get(index).copied().unwrap_or_default();
            format!("{before}{kind}{after}")
        };
        let pairs: Vec<_> =
            self.0.iter().enumerate().map(|(index, count)| pair(&name(index), count.to_string())).collect();
        pairs.into_iter()
    }
}

fn all() -> Vec<String> {
    vec!["SETTINGS".into(), "STATISTICS".into(), "TAGS".into()]
}

/// A cluster as responses have it, with the parts asked for.
fn shape(view: &Snapshot, stored: &Stored, include: &[String]) -> Cluster {
    let includes = |part: &str| include.iter().any(|asked| asked == part);
    let arn = stored.arn.as_str();
    let running = ByLaunchType::of(|kind| tasks(view, arn, kind, TaskStatus::Running));
    let pending = ByLaunchType::of(|kind| {
        statuses().filter(|status| status.is_starting()).map(|status| tasks(view, arn, kind, status)).sum()
    });
    let statistics = || {
        let services: Vec<_> = view.find::<StoredService>(StoredService::BY_CLUSTER, arn).collect();
        let services_in = |status: ServiceStatus| {
            ByLaunchType::of(|kind| {
                let of_kind = |service: &&Arc<StoredService>| {
                    service.status == status
                        && service.primary().is_some_and(|primary| primary.compute.host_kind() == kind)
                };
                services.iter().filter(of_kind).count()
            })
        };
        running
            .statistics("running", "TasksCount")
            .chain(pending.statistics("pending", "TasksCount"))
            .chain(services_in(ServiceStatus::Active).statistics("active", "ServiceCount"))
            .chain(services_in(ServiceStatus::Draining).statistics("draining", "ServiceCount"))
            .collect()
    };
    let status = match stored.status {
        ClusterStatus::Active => "ACTIVE",
        ClusterStatus::Inactive => "INACTIVE",
    };
    let settings = vec![ClusterSetting { name: Some("containerInsights".into()), value: Some("disabled".into()) }];
    Cluster {
        cluster_arn: Some(arn.to_owned()),
        cluster_name: Some(stored.name.clone()),
        status: Some(status.to_owned()),
        registered_container_instances_count: Some(count(
            view.count::<ContainerInstance>(ContainerInstance::BY_CLUSTER, arn),
        )),
        running_tasks_count: Some(running.total()),
        pending_tasks_count: Some(pending.total()),
        active_services_count: Some(count(view.count::<StoredService>(StoredService::BY_CLUSTER, arn))),
        statistics: Some(if includes("STATISTICS") { statistics() } else { Vec::new() }),
        tags: Some(if includes("TAGS") { tags_shape(&stored.tags) } else { Vec::new() }),
        settings: Some(if includes("SETTINGS") { settings } else { Vec::new() }),
        capacity_providers: Some(stored.capacity_providers.clone()),
        default_capacity_provider_strategy: Some(Vec::new()),
        ..Cluster::default()
    }
}
