//! A container instance: Amazon's agent protocol towards the control plane, and the tasks it is given.
//!
//! [`session`] speaks ACS and TCS, [`engine`] decides what a task needs next, [`host`] has it done by our own runtime, [`docker`]
//! by Docker Engine, [`metadata`] answers the task's own questions, [`logs`] delivers what its containers print. What differs between a
//! Fargate host, which is a container instance of a hidden cluster, and a machine of the user's in a cluster of the
//! user's is in [`instance`]; what differs between network modes is in [`network`]. The agent never opens the store: it
//! knows of the platform what any agent on another machine would, and goes on running its tasks while the control plane
//! is away.

pub mod aws;
pub mod config;
pub mod docker;
pub mod engine;
pub mod host;
pub mod identity;
pub mod imds;
pub mod instance;
mod introspection;
pub mod logs;
pub mod metadata;
pub mod network;
mod options;
mod plan;
pub mod roles;
pub mod session;
mod start;
mod state;
mod telling;

pub use options::{IMAGE_CACHE, Options, Runtime};
pub use start::{Error, main, teardown};

/// As Amazon's agent sends it with each handshake.
const USER_AGENT: &str = concat!("Amazon ECS Agent - v", env!("CARGO_PKG_VERSION"), " (longshore) (linux; LINUX)");
/// What stands for a commit in the sessions' parameters.
const AGENT_HASH: &str = "longshore";
/// The container runtime as the sessions' parameters name it.
const RUNTIME_VERSION: &str = concat!("longshore-", env!("CARGO_PKG_VERSION"));
