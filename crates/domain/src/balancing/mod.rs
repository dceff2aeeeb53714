//! Elastic Load Balancing: load balancers, listeners, rules, target groups and their targets, and the slice of them
//! that a load balancer's process follows.
//!
//! Leaves the API's shapes to `services::elbv2` and `services::elb`, and the traffic to the `balancer` crate.
//! Mirrors <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/>, and [`network`] and [`classic`] what its neighbours say.

pub mod attributes;
pub mod choice;
pub mod cidr;
pub mod classic;
pub mod health;
pub mod listener;
pub mod load_balancer;
pub mod network;
pub mod registration;
pub mod rule;
pub mod slice;
pub mod ssl_policy;
pub mod target_group;

pub use attributes::{LoadBalancerAttributes, TargetGroupAttributes, XffMode};
pub use choice::{Algorithm, GroupStickiness, Stickiness, StickinessType, TargetChoice};
pub use cidr::Cidr;
pub use classic::{Classic, ClassicListener, ClassicProtocol};
pub use health::{HealthReason, HealthState, ObservedHealth, TargetHealth};
pub use listener::{Listener, ListenerTls, Rule};
pub use load_balancer::{LoadBalancer, LoadBalancerState, Scheme, Zone};
pub use network::{HealthCheckProtocol, TcpTargetGroup};
pub use registration::{TargetRegistration, deregister, register};
pub use rule::{Action, Condition, QueryMatch, WeightedTargetGroup};
pub use ssl_policy::SslPolicy;
pub use target_group::{HealthCheck, Matcher, ProtocolVersion, TargetGroup, TargetType};
