//! Images, root filesystems and containers on one Linux host.
//!
//! This crate knows nothing of ECS: it pulls an image from an OCI registry ([`image`]), stacks its layers under a writable directory
//! ([`rootfs`]), runs processes in namespaces and cgroups ([`container`], [`cgroup`]) and hands over what they print ([`logs`]).
//! What a task is, when it may start and what is told to whom is the agent's business.
//!
//! Whatever touches a hostile input or a process-wide kernel setting runs in a short-lived child of the same binary, never in the
//! caller's process: layer unpacking (`runtime-unpack`), pulling inside another network namespace (`runtime-pull`), and one small
//! single-threaded owner per container (`shim`). A binary that uses this crate calls [`dispatch`] first thing in `main`.

pub mod cgroup;
mod clock;
pub mod container;
mod files;
pub mod fuzz;
mod helper;
pub mod image;
pub mod logs;
pub mod rootfs;

use std::ffi::OsString;

pub use cgroup::{CgroupError, DeviceKind, DeviceRule, Group, Limits, Stats};
pub use clock::{ClockAccuracy, clock_accuracy};
pub use container::{
    Container, ContainerError, ContainerSpec, DestroyReport, Device, ExecOutcome, ExecSpec, Exit, File, LogLimits,
    Mount, Runtime, RuntimeOptions, State, Tmpfs, Ulimit, WhenFull, forgo_capabilities,
};
pub use helper::Helper;
pub use image::{
    CacheBounds, Digest, Endpoint, EndpointTls, GcReport, HealthCheck, Image, ImageConfig, ImageError, ImageStore, Pin,
    PullNetwork, PullProgress, PullRequest, Reference, RegistryAuth, StoreOptions, UnpackLimits, unpack_over,
};
pub use logs::{LogLine, LogReader, Stream};
pub use rootfs::{EphemeralVolume, LoopDevice, Rootfs, RootfsError};

/// The word after the program's name that makes this process the owner of one container.
pub(crate) const SHIM: &str = "shim";
/// The word that makes it pull one image.
pub(crate) const PULL: &str = "runtime-pull";
/// The word that makes it unpack one layer.
pub(crate) const UNPACK: &str = "runtime-unpack";

/// Runs one of this crate's helper processes if the arguments (program name first) ask for one, and returns its exit code.
///
/// Call it before any thread or async runtime exists: the helpers fork, change namespaces and drop privileges, which is only sound
/// in a single-threaded process.
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<i32> {
    let mut arguments = arguments.skip(1);
    let word = arguments.next()?;
    let rest: Vec<OsString> = arguments.collect();
    match word.to_str()? {
        SHIM => Some(main_shim(rest)),
        PULL => Some(main_pull(rest)),
        UNPACK => Some(main_unpack(rest)),
        _ => None,
    }
}

/// Owns one container until it ends; its only argument is the container's directory.
pub fn main_shim(arguments: Vec<OsString>) -> i32 {
    container::shim::main(&arguments)
}

/// Pulls one image; the job comes as JSON on standard input, events leave as JSON lines on standard output.
pub fn main_pull(arguments: Vec<OsString>) -> i32 {
    image::fetch::main(&arguments)
}

/// Unpacks one layer, confined to its directory; the job comes as the only argument, the layer on standard input.
pub fn main_unpack(arguments: Vec<OsString>) -> i32 {
    image::unpack::main(&arguments)
}
