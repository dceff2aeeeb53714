//! Which host takes a task: filters that can explain their refusal, then a choice. Pure: the state comes as a snapshot,
//! randomness as an argument.
//!
//! - [`fargate`]: the platform's own hosts.
//! - [`mod@instance`], [`fleet`], [`demand`], [`filter`], [`strategy`]: a container instance, all of a cluster's with an
//!   index, what a task needs of one, which of them can have it, and which of those is preferred. [`Fleet::place`] goes
//!   through all of it, as Amazon does:
//!   <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement.html>.
//! - [`follow`]: fleets that follow the store from one placement to the next.
//! - [`scale_in`]: which task of a service goes first.
//! - [`query`]: the cluster query language, for `memberOf` and for ListContainerInstances' filter.

pub mod demand;
pub mod fargate;
pub mod filter;
pub mod fleet;
pub mod follow;
pub mod fuzz;
pub mod instance;
pub mod query;
pub mod refusal;
pub mod scale_in;
mod spread;
pub mod strategy;

pub use demand::Demand;
pub use fargate::{FargateRefusal, Host, fargate_hosts, place_on_fargate};
pub use filter::Reason;
pub use fleet::Fleet;
pub use follow::Fleets;
pub use instance::{Instance, instance};
pub use refusal::{LeftOut, Refusal};
pub use scale_in::{Candidate, first_to_stop};
pub use spread::check_spread_field;
pub use strategy::create_service_default;
