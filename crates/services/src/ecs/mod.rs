//! ECS's face. Handlers write what is wanted; what agents report comes in through [`observe`] and
//! `agent_endpoints`; the reconcilers of `control` do the rest.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/>

pub mod agent_endpoints;
mod attributes;
mod clusters;
mod common;
mod compute;
mod container_instances;
pub(crate) mod images;
pub mod launch;
mod network;
pub mod observe;
pub mod payload;
mod roles;
mod services;
mod tags;
mod task_definitions;
mod tasks;

pub(crate) use agent_endpoints::retire_ec2_instance;
pub use agent_endpoints::{await_agents, fargate_hosts_connected, wake_agents};
use api::ecs::*;
use domain::ecs::{
    AgentAbsence, AgentConnection, Cluster as StoredCluster, ContainerInstance as StoredInstance, RuntimeHealth,
    Service as StoredService, ServiceDeployment as StoredServiceDeployment, ServiceEvent as StoredEvent,
    ServiceRevision as StoredRevision, Task as StoredTask, TaskDefinition as StoredDefinition, TaskDefinitionFamily,
};
use wire::ServiceError;

use crate::Call;

/// The service.
pub struct Ecs;

/// The kinds of resources this service keeps.
pub fn kinds(kinds: store::Kinds) -> store::Kinds {
    kinds
        .durable::<StoredCluster>()
        .durable::<StoredDefinition>()
        .durable::<TaskDefinitionFamily>()
        .durable::<StoredTask>()
        .durable::<StoredService>()
        .durable::<StoredEvent>()
        .durable::<StoredRevision>()
        .durable::<StoredServiceDeployment>()
        .durable::<StoredInstance>()
        .volatile::<AgentConnection>()
        .volatile::<AgentAbsence>()
        .volatile::<RuntimeHealth>()
}

/// The operations, each in the file of its resource.
macro_rules! operations {
    ($($name:ident($input:ident) -> $output:ident = $($path:ident)::+;)*) => {
        impl api::ecs::Ecs for Ecs {
            type Call = Call;
            $(async fn $name(&self, call: Call, input: $input) -> Result<$output, ServiceError> {
                $($path)::+(call, input).await
            })*
        }
    };
}

operations! {
    create_cluster(CreateClusterRequest) -> CreateClusterResponse = clusters::create;
    delete_cluster(DeleteClusterRequest) -> DeleteClusterResponse = clusters::delete;
    describe_clusters(DescribeClustersRequest) -> DescribeClustersResponse = clusters::describe;
    list_clusters(ListClustersRequest) -> ListClustersResponse = clusters::list;
    update_cluster(UpdateClusterRequest) -> UpdateClusterResponse = clusters::update;
    update_cluster_settings(UpdateClusterSettingsRequest) -> UpdateClusterSettingsResponse = clusters::update_settings;
    put_cluster_capacity_providers(PutClusterCapacityProvidersRequest) -> PutClusterCapacityProvidersResponse = clusters::put_capacity_providers;
    describe_capacity_providers(DescribeCapacityProvidersRequest) -> DescribeCapacityProvidersResponse = clusters::describe_capacity_providers;

    register_task_definition(RegisterTaskDefinitionRequest) -> RegisterTaskDefinitionResponse = task_definitions::register;
    deregister_task_definition(DeregisterTaskDefinitionRequest) -> DeregisterTaskDefinitionResponse = task_definitions::deregister;
    delete_task_definitions(DeleteTaskDefinitionsRequest) -> DeleteTaskDefinitionsResponse = task_definitions::delete;
    describe_task_definition(DescribeTaskDefinitionRequest) -> DescribeTaskDefinitionResponse = task_definitions::describe;
    list_task_definitions(ListTaskDefinitionsRequest) -> ListTaskDefinitionsResponse = task_definitions::list;
    list_task_definition_families(ListTaskDefinitionFamiliesRequest) -> ListTaskDefinitionFamiliesResponse = task_definitions::list_families;

    run_task(RunTaskRequest) -> RunTaskResponse = tasks::run;
    start_task(StartTaskRequest) -> StartTaskResponse = tasks::start;
    stop_task(StopTaskRequest) -> StopTaskResponse = tasks::stop;
    describe_tasks(DescribeTasksRequest) -> DescribeTasksResponse = tasks::describe;
    list_tasks(ListTasksRequest) -> ListTasksResponse = tasks::list;
    update_task_protection(UpdateTaskProtectionRequest) -> UpdateTaskProtectionResponse = tasks::protection::update;
    get_task_protection(GetTaskProtectionRequest) -> GetTaskProtectionResponse = tasks::protection::get;

    create_service(CreateServiceRequest) -> CreateServiceResponse = services::create;
    update_service(UpdateServiceRequest) -> UpdateServiceResponse = services::update;
    delete_service(DeleteServiceRequest) -> DeleteServiceResponse = services::delete;
    describe_services(DescribeServicesRequest) -> DescribeServicesResponse = services::describe;
    list_services(ListServicesRequest) -> ListServicesResponse = services::list;

    list_service_deployments(ListServiceDeploymentsRequest) -> ListServiceDeploymentsResponse = services::history::list;
    describe_service_deployments(DescribeServiceDeploymentsRequest) -> DescribeServiceDeploymentsResponse = services::history::describe_deployments;
    stop_service_deployment(StopServiceDeploymentRequest) -> StopServiceDeploymentResponse = services::history::stop;
    describe_service_revisions(DescribeServiceRevisionsRequest) -> DescribeServiceRevisionsResponse = services::history::describe_revisions;

    register_container_instance(RegisterContainerInstanceRequest) -> RegisterContainerInstanceResponse = agent_endpoints::register;
    discover_poll_endpoint(DiscoverPollEndpointRequest) -> DiscoverPollEndpointResponse = agent_endpoints::discover_poll_endpoint;
    submit_task_state_change(SubmitTaskStateChangeRequest) -> SubmitTaskStateChangeResponse = agent_endpoints::submit_task;
    submit_container_state_change(SubmitContainerStateChangeRequest) -> SubmitContainerStateChangeResponse = agent_endpoints::submit_container;
    submit_attachment_state_changes(SubmitAttachmentStateChangesRequest) -> SubmitAttachmentStateChangesResponse = agent_endpoints::submit_attachments;
    list_container_instances(ListContainerInstancesRequest) -> ListContainerInstancesResponse = container_instances::list;
    describe_container_instances(DescribeContainerInstancesRequest) -> DescribeContainerInstancesResponse = container_instances::describe;
    update_container_instances_state(UpdateContainerInstancesStateRequest) -> UpdateContainerInstancesStateResponse = container_instances::update_state;
    deregister_container_instance(DeregisterContainerInstanceRequest) -> DeregisterContainerInstanceResponse = container_instances::deregister;
    put_attributes(PutAttributesRequest) -> PutAttributesResponse = attributes::put;
    delete_attributes(DeleteAttributesRequest) -> DeleteAttributesResponse = attributes::delete;
    list_attributes(ListAttributesRequest) -> ListAttributesResponse = attributes::list;

    tag_resource(TagResourceRequest) -> TagResourceResponse = tags::tag;
    untag_resource(UntagResourceRequest) -> UntagResourceResponse = tags::untag;
    list_tags_for_resource(ListTagsForResourceRequest) -> ListTagsForResourceResponse = tags::list;
}
