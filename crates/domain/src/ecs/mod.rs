//! The nouns of Amazon ECS: cluster, task definition, task, service with its deployments, container instance, and the
//! rules that need nothing but the nouns: which size a Fargate task may have, in which order statuses follow each other,
//! what an agent's report does to a task.
//!
//! Leaves the API's shapes to `services::ecs`, what is done about a difference between desired and observed to
//! `control`. Mirrors <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>.
//!
//! Counts (`runningCount`, …) are never stored: they are the sizes of indexes.

pub mod cluster;
pub mod compute;
pub mod container_definition;
pub mod container_instance;
pub mod deployment;
pub mod fargate;
pub mod instance_health;
pub mod names;
pub mod report;
pub mod service;
pub mod status;
pub mod task;
pub mod task_definition;

pub use cluster::{Cluster, ClusterStatus};
pub use compute::{
    BinpackField, CapacityProviderChoice, Compute, LaunchType, Placement, PlacementConstraint, PlacementStrategy,
};
pub use container_definition::{
    ContainerDefinition, Dependency, DependencyCondition, HealthCheck, HostPort, LogConfiguration, PortMapping,
    RestartPolicy, TransportProtocol, Ulimit,
};
pub use container_instance::{AgentAbsence, AgentConnection, Attribute, ContainerInstance, ContainerInstanceStatus};
pub use deployment::{
    BreakerStatus, CircuitBreaker, Deployment, DeploymentStatus, FailureThreshold, Rollback, RolloutState,
    ServiceDeployment, ServiceDeploymentStatus, ServiceRevision,
};
pub use instance_health::{InstanceHealthStatus, RuntimeHealth};
pub use report::{ContainerReport, NetworkBinding, ReportedStatus, TaskReport};
pub use service::{Rebalancing, SchedulingStrategy, Service, ServiceEvent, ServiceStatus};
pub use status::{DesiredStatus, HealthStatus, StopCode, TaskStatus};
pub use task::{
    ContainerOverride, NewTask, Task, TaskContainer, TaskInterface, TaskLoadBalancer, TaskNetwork, TaskOverrides,
};
pub use task_definition::{NetworkMode, TaskDefinition, TaskDefinitionFamily, TaskDefinitionStatus};
