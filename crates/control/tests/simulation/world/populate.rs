//! What there is at the beginning of a world.

use std::time::Duration;

use domain::{
    Tags,
    agent_protocol::FARGATE_CLUSTER,
    balancing::{TargetGroup, TargetGroupAttributes, TargetType},
    ecs::{
        BinpackField, CircuitBreaker, Cluster, Compute, FailureThreshold, LaunchType, NetworkMode, Placement,
        PlacementConstraint, PlacementStrategy, PortMapping, SchedulingStrategy, Service, TaskDefinition,
        TaskLoadBalancer, TransportProtocol, container_definition::HealthCheck,
    },
};

use super::{Known, World};
use crate::{
    coverage::Size,
    nouns::{self, REVISIONS},
};

pub const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// EC2 container instances at the beginning.
const INSTANCES: usize = 20;

/// What a service is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Like {
    /// On Fargate, behind a load balancer.
    Web,
    /// On EC2, spread and binpacked, sometimes behind a load balancer that knows instances and ports.
    Api,
    /// On EC2, with health checks, sometimes with a port that only one on each instance can have.
    Batch,
    /// On all instances.
    Daemon,
}

impl World {
    pub(super) fn populate(&mut self) {
        let cluster = Cluster::new(&self.scope, "default", Tags::default(), self.now);
        self.transact(|tx| tx.put(cluster));
        self.lost_after = [None, Some(Duration::from_secs(150)), Some(Duration::from_secs(40))][self.ids.below(3)];
        for _ in 0..2 {
            let host = nouns::container_instance(&self.scope, FARGATE_CLUSTER, &mut self.ids, self.now);
            let arn = host.arn.clone();
            self.transact(|tx| tx.put(host));
            self.agents.insert(arn.clone(), Default::default());
            self.connect(&arn);
        }
        for _ in 0..INSTANCES {
            let size = self.ids.below(3);
            self.register(size);
        }
        for like in [Like::Web, Like::Api, Like::Batch, Like::Daemon] {
            self.create(like);
        }
    }

    /// A user creates a service.
    pub(super) fn create(&mut self, like: Like) {
        let family = format!("{like:?}{}", self.services.len()).to_lowercase();
        let strategy = if like == Like::Daemon { SchedulingStrategy::Daemon } else { SchedulingStrategy::Replica };
        let mut service = nouns::service(&self.scope, &family, strategy, self.now);
        self.shape(like, &mut service);
        let grouped = like == Like::Web || (like == Like::Api && self.ids.below(2) == 0);
        let group = grouped.then(|| self.group(like, &family));
        let balancers: Vec<TaskLoadBalancer> = group
            .iter()
            .map(|group| TaskLoadBalancer {
                target_group_arn: group.arn.clone(),
                container_name: "app".into(),
                container_port: 80,
            })
            .collect();
        let port = if self.ids.below(2) == 0 { 9000 } else { 0 };
        let definitions: Vec<_> =
            (1..).take(REVISIONS.len()).map(|number| self.definition(like, number, port)).collect();
        let definitions: Vec<TaskDefinition> = definitions
            .into_iter()
            .map(|one| TaskDefinition {
                arn: domain::ecs::names::task_definition(&self.scope, &family, one.revision),
                family: family.clone(),
                ..one
            })
            .collect();
        let compute = Compute::by_launch_type(if like == Like::Web { LaunchType::Fargate } else { LaunchType::Ec2 });
        let runs = super::users::Runs { family: family.clone(), revision: 1, balancers, compute };
        let (revision, begun) = super::users::begin(&mut service, &runs, &mut self.ids, self.now);
        self.services.push(Known { arn: service.arn.to_string(), family, deleted: false });
        self.coverage.add(Size::Services, 1);
        self.note(|| format!("{} is created: {service:?}", service.name));
        self.transact(|tx| {
            group.into_iter().for_each(|group| tx.put(group));
            definitions.into_iter().for_each(|definition| tx.put(definition));
            tx.put(service);
            tx.put(revision);
            tx.put(begun);
        });
    }

    /// Percentages, placement and breaker.
    fn shape(&mut self, like: Like, service: &mut Service) {
        let percents = match like {
            Like::Daemon => [(0, 100), (50, 100), (50, 100), (75, 100), (25, 100)],
            _ => [(100, 200), (50, 100), (0, 100), (50, 150), (70, 130)],
        };
        (service.minimum_healthy_percent, service.maximum_percent) = percents[self.ids.below(percents.len())];
        service.desired_count = match like {
            Like::Web => 3 + u32::try_from(self.ids.below(5)).unwrap(),
            Like::Api => 4 + u32::try_from(self.ids.below(7)).unwrap(),
            Like::Batch => 3 + u32::try_from(self.ids.below(4)).unwrap(),
            Like::Daemon => 0,
        };
        service.circuit_breaker = CircuitBreaker {
            enable: self.ids.below(3) > 0,
            rollback: self.ids.below(3) > 0,
            reset_on_healthy_task: self.ids.below(2) == 0,
            threshold: [FailureThreshold::Count(2), FailureThreshold::BoundedPercent(50)][self.ids.below(2)],
        };
        if like == Like::Web {
            service.health_check_grace_period_seconds = [None, Some(30)][self.ids.below(2)];
        }
        let spread = PlacementStrategy::Spread("attribute:ecs.availability-zone".into());
        let memory = PlacementStrategy::Binpack(BinpackField::Memory);
        let class = PlacementConstraint::MemberOf("attribute:class == a".into());
        service.placement = match (like, self.ids.below(3)) {
            (Like::Api, 0) => Placement { constraints: vec![class], strategy: vec![spread, memory] },
            (Like::Api, 1) => Placement { constraints: Vec::new(), strategy: vec![memory] },
            (Like::Api, _) => Placement { constraints: Vec::new(), strategy: vec![spread] },
            (Like::Batch, 0) => Placement {
                constraints: vec![PlacementConstraint::DistinctInstance, class],
                strategy: vec![PlacementStrategy::Binpack(BinpackField::Cpu)],
            },
            (Like::Batch, 1) => {
                Placement { constraints: Vec::new(), strategy: vec![PlacementStrategy::Spread("instanceId".into())] }
            }
            (Like::Batch, _) => Placement { constraints: vec![class], strategy: vec![PlacementStrategy::Random] },
            (Like::Web | Like::Daemon, _) => Placement::default(),
        };
    }

    fn group(&mut self, like: Like, name: &str) -> TargetGroup {
        let known = nouns::group(&self.scope);
        let delay = [0, 5, 30][self.ids.below(3)];
        TargetGroup {
            arn: self.scope.arn("elasticloadbalancing", &format!("targetgroup/{name}/0123456789abcdef")),
            name: name.into(),
            target_type: if like == Like::Web { TargetType::Ip } else { TargetType::Instance },
            attributes: TargetGroupAttributes { deregistration_delay_seconds: delay, ..known.attributes.clone() },
            ..known
        }
    }

    fn definition(&self, like: Like, revision: u32, port: u16) -> TaskDefinition {
        let known = nouns::definition(&self.scope, revision);
        let (cpu, memory) = match like {
            Like::Web => (256, 256),
            Like::Api => (192, 384),
            Like::Batch => (128, 256),
            Like::Daemon => (64, 128),
        };
        let mut containers = known.container_definitions.clone();
        for container in &mut containers {
            let host_port = match like {
                Like::Web => Some(80),
                Like::Api => Some(0),
                Like::Batch => Some(port),
                Like::Daemon => None,
            };
            container.port_mappings = host_port
                .map(|host_port| PortMapping {
                    container_port: if like == Like::Batch { 9000 } else { 80 },
                    range: None,
                    host_port,
                    protocol: TransportProtocol::Tcp,
                    name: None,
                })
                .into_iter()
                .collect();
            if matches!(like, Like::Batch | Like::Web)
                || nouns::REVISIONS.get(revision as usize - 1) == Some(&nouns::Works::Unhealthy)
            {
                container.health_check = Some(HealthCheck {
                    command: vec!["CMD".into(), "true".into()],
                    interval: 30,
                    timeout: 5,
                    retries: 3,
                    start_period: None,
                });
            }
        }
        TaskDefinition {
            network_mode: if like == Like::Web { NetworkMode::Awsvpc } else { NetworkMode::Bridge },
            cpu: Some(cpu),
            memory: Some(memory),
            container_definitions: containers,
            ..known
        }
    }
}
