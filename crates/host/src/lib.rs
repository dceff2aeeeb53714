//! The hypervisor of one machine: routers of VPCs, network interfaces, security groups, the VPCs' resolver and the
//! platform's endpoint in them, and the load balancers' processes. A process of its own, root, that follows its slice
//! of desired state and makes the kernel agree; it never opens the store.
//!
//! Killed at any moment it leaves everything as it is in the kernel; started again it adopts what it finds. Names of
//! kernel objects are `domain::network::names`'s.
//!
//! Local EC2 instances are system containers that it boots from their volumes, see `instances`.
//!
//! What runs in the network namespaces of tasks is the agent's; what the load balancers' processes do is `balancer`'s.

mod balancers;
mod desired;
mod dns;
mod doctor;
mod endpoint;
mod hosts;
mod imds;
mod instances;
mod interface;
#[cfg(test)]
mod kernel_tests;
mod outside;
mod process;
#[cfg(test)]
mod process_tests;
mod reconcile;
mod router;
mod ruleset;
mod run;
mod sockets;
#[cfg(test)]
mod speaker_tests;
mod teardown;
#[cfg(test)]
mod testing;

use std::{io, path::PathBuf};

use plumbing::{netlink, netns, nft};

pub use doctor::{Check, doctor};
pub use instances::dispatch;
pub use run::main;
pub use teardown::teardown;

/// How to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The platform's instance id: six hexadecimal digits, with or without `ls-` in front.
    pub platform: String,
    /// The platform's data: load balancers' processes get it as their working directory.
    pub data_dir: PathBuf,
    /// This program, which load balancers' processes run as `{executable} balancer --load-balancer {arn}`.
    pub executable: PathBuf,
    /// User and group of load balancers' processes.
    pub user: (u32, u32),
    /// The port of the platform's endpoint in every VPC.
    pub endpoint_port: u16,
    /// Where the server publishes.
    pub feed_socket: PathBuf,
    /// Where load balancers' processes ask for listening sockets.
    pub control_socket: PathBuf,
    /// The server's socket for connections from VPCs.
    pub vpc_socket: PathBuf,
    /// The file that gets a block with the platform's names, `/etc/hosts`; `None` leaves it alone.
    pub hosts_file: Option<PathBuf>,
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform's id would not make names of kernel objects.
    #[error("'{0}' is not an instance id of six hexadecimal digits")]
    Platform(String),
    /// Namespaces and links are root's.
    #[error("host needs root: it makes network namespaces, links and firewall rules")]
    NotRoot,
    /// The kernel or the file system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}
