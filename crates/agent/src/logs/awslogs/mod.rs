//! The `awslogs` driver: from what a container prints to CloudWatch Logs, one stream per container.
//!
//! The runtime spools the lines on disk and slows or drops what comes too fast; this reads the spool, makes log events
//! ([`lines`]), batches them within Amazon's limits ([`batch`]) and delivers them ([`pump`]). A line leaves the spool
//! only after Amazon's `PutLogEvents` took it, so a restart of the agent loses none; it may deliver some twice.

pub mod batch;
pub mod lines;
pub mod options;
pub mod pump;
