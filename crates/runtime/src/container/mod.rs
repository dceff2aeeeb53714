//! Containers: created and started in two steps, watched, signalled, executed into, deleted, and found again after a restart.
//!
//! Each container has a directory and, as long as it runs, an owner: the single-threaded [`shim`] process, which forked it, holds its
//! output pipes and waits for it. The caller talks to the shim over a socket in that directory and keeps nothing that the
//! directory does not hold, so a restarted caller finds every container again ([`Runtime::open`]). How a container is built from
//! namespaces is `libcontainer`'s part ([`shim`] only); another way to run the same [`ContainerSpec`] would replace the shim and keep
//! everything else.

mod capabilities;
mod domain;
mod error;
mod exec;
mod executor;
mod handle;
mod oci;
mod process;
mod protocol;
mod reaper;
mod runtime;
pub(crate) mod seccomp;
pub(crate) mod shim;
mod spec;
mod supervise;
mod syscalls;

pub use capabilities::forgo_capabilities;
pub use error::ContainerError;
pub(crate) use handle::Inner;
pub use handle::{Container, ExecOutcome, ExecSpec, Exit, State};
pub use runtime::{DestroyReport, Runtime, RuntimeOptions};
pub use spec::{ContainerSpec, Device, File, LogLimits, Mount, Tmpfs, Ulimit, WhenFull};
