//! The protocol between Amazon's ECS container agent and its control plane: the messages of ACS (what to run, with
//! which credentials) and TCS (metrics and health), their envelope, and the framing quirk of TCS.
//!
//! Both sides use these types: our agent and the control plane's endpoints, and the control plane must also satisfy
//! the unmodified Amazon agent. Names are Amazon's JSON names; members we do not know are skipped on reading, as the
//! agent itself does. Transport, signatures and timing belong to the `agent` and `services` crates.

pub mod acs;
pub mod docker;
mod envelope;
pub mod payload;
pub mod tcs;

pub use envelope::{ProtocolError, split_envelope};

#[cfg(test)]
mod tests;

/// The hidden cluster whose container instances are the Fargate hosts. A user cannot create or name it, because a
/// cluster's name has no dot.
pub const FARGATE_CLUSTER: &str = "longshore.fargate";

/// A control plane must send something on ACS at least this often, in seconds: the agent gives up after 60.
pub const HEARTBEAT_SECONDS: u64 = 20;

/// The agent closes and reconnects after this many seconds without a message, plus up to as many again at random.
pub const SILENCE_SECONDS: u64 = 60;
