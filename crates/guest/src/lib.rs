//! What runs inside a local EC2 instance, of whatever image: its first process ([`init`]), and what that starts
//! ([`boot`]), which is what cloud-init and ecs-init are to Amazon's ECS-optimized image: it asks for the user data, runs
//! it, and then keeps the ECS agent running.
//!
//! The instance itself (namespaces, limits, root file system) is the `host` crate's; the agent is the `agent` crate's.
//! Nothing here reaches the platform other than as any instance would: through the metadata service and the API.

mod boot;
mod ecs;
mod init;
mod output;
mod user_data;

pub use boot::boot;
pub use init::init;

/// The variable by which `host` says where the platform's API answers, as a boot loader gives a kernel its command line.
pub const ENDPOINT_VARIABLE: &str = "LONGSHORE_ENDPOINT";
/// For what is started here.
const PATH: &str = "/opt/longshore/bin:/run/longshore/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
