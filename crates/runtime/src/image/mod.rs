//! Images: pulled from an OCI registry, verified, unpacked into one directory per layer, and collected when nobody uses them.
//!
//! [`ImageStore`] keeps everything below one directory and publishes by rename only, so whatever is interrupted leaves nothing visible. The
//! network is spoken to by a child process ([`fetch`]) that can be put into a network namespace, and tar archives are read by another
//! one ([`unpack`]) that can reach nothing but the new layer's directory. Who may pull what, with which credentials, is the caller's
//! business.

mod compression;
mod dial;
mod dns;
pub(crate) mod fetch;
mod gc;
pub(crate) mod layer;
pub(crate) mod manifest;
mod merged;
mod pull;
mod reference;
mod registry;
mod sink;
mod store;
pub(crate) mod unpack;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use gc::{CacheBounds, GcReport};
pub use reference::{Digest, Reference};
pub use store::{ImageStore, StoreOptions};
pub use unpack::unpack_over;

/// What to pull, from where, as whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// Who asks.
    pub auth: RegistryAuth,
    /// Where registries really are. Without an entry: HTTPS, or plain HTTP for loopback addresses and names below `localhost`.
    pub endpoints: Vec<Endpoint>,
    /// The network to pull in; `None` is the host's.
    pub network: Option<PullNetwork>,
    /// Whether a local image of that reference will do without asking the registry.
    pub missing_only: bool,
    /// Bound of the whole pull.
    pub timeout: Duration,
    /// Bound of each connection attempt.
    pub connect_timeout: Duration,
}

impl PullRequest {
    /// An anonymous pull in the host's network, always asking the registry.
    pub fn new(reference: Reference) -> Self {
        Self {
            reference,
            auth: RegistryAuth::Anonymous,
            endpoints: Vec::new(),
            network: None,
            missing_only: false,
            timeout: Duration::from_secs(30 * 60),
            connect_timeout: Duration::from_secs(30),
        }
    }
}

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryAuth {
    /// None; a registry that asks for a token gets one asked for anonymously.
    Anonymous,
    /// A user and a password, sent to the registry or to its token service, as it asks.
    Basic {
        /// The user; `AWS` for ECR.
        username: String,
        /// The password or token.
        password: String,
    },
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
        }
    }
}

/// Where a registry really is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The registry of references this is for, such as `docker.io`; a leading `*.` stands for any name below.
    pub registry: String,
    /// Scheme, host and port to use instead, such as `http://127.0.0.1:5000`. The host is also what the server is told.
    pub url: String,
    /// Connect here instead of resolving the host of `url`.
    pub connect: Option<SocketAddr>,
    /// How its certificate is checked, where that is not by the host of `url` and by what this machine trusts.
    #[serde(default)]
    pub tls: Option<EndpointTls>,
}

/// Whose certificate an endpoint shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTls {
    /// The name or address that the certificate is for.
    pub server_name: String,
    /// Who may have signed it (PEM).
    pub authorities: String,
}

/// A network to pull in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullNetwork {
    /// The network namespace.
    pub netns: PathBuf,
    /// Name servers to ask, on port 53.
    pub resolvers: Vec<IpAddr>,
    /// Names known without asking.
    pub hosts: Vec<(IpAddr, String)>,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullProgress {
    /// The manifest is known.
    Resolved {
        /// Of the platform's manifest.
        digest: Digest,
        /// How many layers there are.
        layers: usize,
        /// How many compressed bytes.
        bytes: u64,
    },
    /// A layer is on its way, or arrived.
    Downloaded {
        /// Of the layer.
        digest: Digest,
        /// So far.
        bytes: u64,
        /// In all.
        total: u64,
    },
    /// A layer is unpacked.
    Unpacked {
        /// Which, from 1.
        layer: usize,
        /// Of how many.
        layers: usize,
    },
}

/// An image with all its layers on this host. It stays here for as long as somebody holds this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it was pulled as.
    pub reference: Reference,
    /// Of the manifest for this host's platform.
    pub digest: Digest,
    /// Of the index the reference pointed at, if it was one.
    pub index_digest: Option<Digest>,
    /// What its author wants run.
    pub config: ImageConfig,
    /// A directory for each layer, bottom first: [`crate::Rootfs::lowers`].
    pub layers: Vec<PathBuf>,
    /// Compressed bytes, as registries count.
    pub size: u64,
    /// What keeps the collector away.
    pub pin: Pin,
}

/// Keeps an image from being collected, for as long as any clone of it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin(pub(crate) Arc<()>);

/// What an image's author wants run. Empty where the image says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The program that is run.
    pub entrypoint: Vec<String>,
    /// Its arguments, or the whole command without an entry point.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// As whom.
    pub user: String,
    /// Where.
    pub working_directory: String,
    /// How to ask it to stop, such as `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Directories meant to be volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How to find out whether it is well (a Docker extension).
    pub health_check: Option<HealthCheck>,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
}

/// An image's own health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `["CMD", …]`, `["CMD-SHELL", "…"]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Between two checks; 0 is the default.
    pub interval_nanoseconds: u64,
    /// Of one check; 0 is the default.
    pub timeout_nanoseconds: u64,
    /// In which failures do not count.
    pub start_period_nanoseconds: u64,
    /// Failures in a row; 0 is the default.
    pub retries: u64,
}

/// Bounds of unpacking one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackLimits {
    /// Unpacked bytes.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: u64,
    /// Unpacked bytes for each compressed one, looked at from 64 MiB on.
    pub ratio: u64,
    /// How long it may take.
    pub time: Duration,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, ratio: 400, time: Duration::from_secs(30 * 60) }
    }
}

/// Why an image is not there. References in the texts are as the caller gave them.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No reference at all.
    #[error("invalid reference {reference:?}: {reason}")]
    InvalidReference {
        /// As given.
        reference: String,
        /// Why.
        reason: String,
    },
    /// The registry does not have it.
    #[error("{reference}: not found")]
    NotFound {
        /// As given.
        reference: String,
        /// What the registry says.
        body: String,
    },
    /// The registry wants to know who asks, or does not believe it.
    #[error("{reference}: unauthorized: {body}")]
    Unauthorized {
        /// As given.
        reference: String,
        /// What the registry says.
        body: String,
    },
    /// The registry refuses this caller.
    #[error("{reference}: unexpected status code {status}: {body}")]
    Denied {
        /// As given.
        reference: String,
        /// 403, as a rule.
        status: u16,
        /// What the registry says.
        body: String,
    },
    /// The registry has had enough.
    #[error("{reference}: 429 Too Many Requests: {body}")]
    TooManyRequests {
        /// As given.
        reference: String,
        /// What the registry says.
        body: String,
    },
    /// Nobody answered in time.
    #[error("failed to do request: {url}: {detail}")]
    Timeout {
        /// As given.
        reference: String,
        /// What was asked for.
        url: String,
        /// Such as `dial tcp 192.0.2.1:443: i/o timeout`.
        detail: String,
    },
    /// The registry cannot be reached.
    #[error("failed to do request: {url}: {detail}")]
    Unreachable {
        /// As given.
        reference: String,
        /// What was asked for.
        url: String,
        /// Such as `dial tcp: lookup example.com: no such host`.
        detail: String,
    },
    /// The registry answers something else.
    #[error("{reference}: unexpected status code {status}: {body}")]
    Registry {
        /// As given.
        reference: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says.
        body: String,
    },
    /// There is nothing in it for this host.
    #[error("image manifest does not contain descriptor matching platform '{wanted}'")]
    WrongPlatform {
        /// As given.
        reference: String,
        /// Such as `linux/amd64`.
        wanted: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// What arrived is not what was asked for.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What was asked for.
        expected: String,
        /// What came.
        actual: String,
    },
    /// The manifest or configuration is none, or of a kind nobody supports any more.
    #[error("{reference}: invalid manifest: {reason}")]
    InvalidManifest {
        /// As given.
        reference: String,
        /// Why.
        reason: String,
    },
    /// A layer that tries to reach outside, or holds what no layer may.
    #[error("layer {digest}: {path:?}: {reason}")]
    UnsafeLayer {
        /// Of the layer.
        digest: String,
        /// The entry.
        path: String,
        /// Why.
        reason: String,
    },
    /// A layer that is no archive.
    #[error("layer {digest} is damaged: {reason}")]
    InvalidLayer {
        /// Of the layer.
        digest: String,
        /// Why.
        reason: String,
    },
    /// A layer beyond the bounds.
    #[error("layer {digest} is too large: {reason}")]
    LayerTooLarge {
        /// Of the layer.
        digest: String,
        /// Which bound.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left on device")]
    NoSpace,
    /// A helper process ended without an answer.
    #[error("helper process failed: {0}")]
    Helper(String),
    /// A file operation failed.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ImageError {
    fn from(error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ENOSPC) { Self::NoSpace } else { Self::Io(error) }
    }
}
