//! The process that pulls one image: `longshore runtime-pull`.
//!
//! It reads a [`Job`] from standard input, enters the network namespace it is told to, gives up every capability, and writes [`Event`]s
//! to standard output, one JSON line each. Blobs go to a private file first, are verified while they stream, synced, and published by
//! rename; a lock on the digest lets several pulls share one download, and a dead process leaves neither lock nor visible file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::BodyExt;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::dial::Dialer;
use super::manifest::{self, Blob, Configuration, Document, Manifest};
use super::registry::{Registry, STALL};
use super::{Digest, ImageError, PullRequest};
use crate::files;

/// Layers downloaded at the same time.
const PARALLEL: usize = 3;
/// How often a download that broke is continued.
const RETRIES: u32 = 5;
/// Progress is told once for so many bytes.
const STEP: u64 = 4 << 20;

/// What to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub root: PathBuf,
    pub request: PullRequest,
    pub platform: String,
}

/// What happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Resolved { digest: Digest, layers: usize, bytes: u64 },
    Downloaded { digest: Digest, bytes: u64, total: u64 },
    Done { digest: Digest, index_digest: Option<Digest> },
    Failed(Failure),
}

/// [`ImageError`] on its way between the processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    InvalidReference(String, String),
    NotFound(String, String),
    Unauthorized(String, String),
    Denied(String, u16, String),
    TooManyRequests(String, String),
    Timeout(String, String, String),
    Unreachable(String, String, String),
    Registry(String, u16, String),
    WrongPlatform(String, String, Vec<String>),
    DigestMismatch(String, String),
    InvalidManifest(String, String),
    NoSpace,
    Helper(String),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::InvalidReference { reference, reason } => Self::InvalidReference(reference, reason),
            ImageError::NotFound { reference, body } => Self::NotFound(reference, body),
            ImageError::Unauthorized { reference, body } => Self::Unauthorized(reference, body),
            ImageError::Denied { reference, status, body } => Self::Denied(reference, status, body),
            ImageError::TooManyRequests { reference, body } => Self::TooManyRequests(reference, body),
            ImageError::Timeout { reference, url, detail } => Self::Timeout(reference, url, detail),
            ImageError::Unreachable { reference, url, detail } => Self::Unreachable(reference, url, detail),
            ImageError::Registry { reference, status, body } => Self::Registry(reference, status, body),
            ImageError::WrongPlatform { reference, wanted, offered } => Self::WrongPlatform(reference, wanted, offered),
            ImageError::DigestMismatch { expected, actual } => Self::DigestMismatch(expected, actual),
            ImageError::InvalidManifest { reference, reason } => Self::InvalidManifest(reference, reason),
            ImageError::NoSpace => Self::NoSpace,
            other => Self::Helper(other.to_string()),
        }
    }
}

impl From<Failure> for ImageError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::InvalidReference(reference, reason) => Self::InvalidReference { reference, reason },
            Failure::NotFound(reference, body) => Self::NotFound { reference, body },
            Failure::Unauthorized(reference, body) => Self::Unauthorized { reference, body },
            Failure::Denied(reference, status, body) => Self::Denied { reference, status, body },
            Failure::TooManyRequests(reference, body) => Self::TooManyRequests { reference, body },
            Failure::Timeout(reference, url, detail) => Self::Timeout { reference, url, detail },
            Failure::Unreachable(reference, url, detail) => Self::Unreachable { reference, url, detail },
            Failure::Registry(reference, status, body) => Self::Registry { reference, status, body },
            Failure::WrongPlatform(reference, wanted, offered) => Self::WrongPlatform { reference, wanted, offered },
            Failure::DigestMismatch(expected, actual) => Self::DigestMismatch { expected, actual },
            Failure::InvalidManifest(reference, reason) => Self::InvalidManifest { reference, reason },
            Failure::NoSpace => Self::NoSpace,
            Failure::Helper(detail) => Self::Helper(detail),
        }
    }
}

pub(crate) fn main(_: &[OsString]) -> i32 {
    let outcome = run();
    let code = i32::from(outcome.is_err());
    tell(&outcome.unwrap_or_else(|error| Event::Failed(error.into())));
    code
}

/// The reader is the process that waits for us; without it there is nothing to do.
fn tell(event: &Event) {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    if io::stdout().lock().write_all(&line).is_err() {
        std::process::exit(1);
    }
}

fn run() -> Result<Event, ImageError> {
    let mut text = Vec::new();
    io::stdin().lock().take(1 << 20).read_to_end(&mut text)?;
    let job: Job = serde_json::from_slice(&text).map_err(|error| ImageError::Helper(error.to_string()))?;
    let helper = |what: &str, reason: String| ImageError::Helper(format!("{what}: {reason}"));
    // Ends with the process that asked.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| helper("prctl", error.to_string()))?;
    if let Some(network) = &job.request.network {
        let namespace = File::open(&network.netns).map_err(|error| helper("network namespace", error.to_string()))?;
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|error| helper("network namespace", error.to_string()))?;
    }
    drop_capabilities().map_err(|error| helper("capabilities", error))?;
    let (hosts, resolvers) = match &job.request.network {
        Some(network) => (network.hosts.clone(), Some(network.resolvers.clone())),
        None => (Vec::new(), None),
    };
    let dialer = Dialer {
        fixed: Vec::new(),
        trusted: Vec::new(),
        hosts,
        resolvers,
        timeout: job.request.connect_timeout,
        tls: OnceLock::new(),
    };
    let registry =
        Registry::new(dialer, job.request.reference.clone(), job.request.auth.clone(), &job.request.endpoints)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(pull(&job, registry))
}

/// The files below are root's, and a process without capabilities may still write its own.
fn drop_capabilities() -> Result<(), String> {
    for set in [caps::CapSet::Effective, caps::CapSet::Permitted, caps::CapSet::Inheritable] {
        caps::clear(None, set).map_err(|error| error.to_string())?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(|error| error.to_string())
}

async fn pull(job: &Job, registry: Registry) -> Result<Event, ImageError> {
    let registry = Arc::new(registry);
    let reference = job.request.reference.to_string();
    let invalid = |reason: String| ImageError::InvalidManifest { reference: reference.clone(), reason };
    let store = Blobs { root: job.root.clone() };
    let mut bytes = registry.manifest(&job.request.reference.wanted()).await?;
    let mut index_digest = None;
    let mut document = manifest::parse(&bytes).map_err(invalid)?;
    if let Document::Index(offers) = &document {
        let wrong = || ImageError::WrongPlatform {
            reference: reference.clone(),
            wanted: job.platform.clone(),
            offered: offers.iter().map(|offer| offer.platform.clone()).collect(),
        };
        let chosen = offers.iter().find(|offer| offer.platform == job.platform).ok_or_else(wrong)?;
        index_digest = Some(Digest::of(&bytes));
        bytes = registry.manifest(&chosen.digest.to_string()).await?;
        document = manifest::parse(&bytes).map_err(invalid)?;
    }
    let Document::Manifest(manifest) = document else { return Err(invalid("an index inside an index".to_owned())) };
    let digest = Digest::of(&bytes);
    let configuration = configuration(&registry, &store, &manifest).await?;
    let configuration = configuration.map_err(invalid)?;
    let offered = format!("{}/{}", configuration.config.os, configuration.config.architecture);
    // Without an index nobody chose; old images say nothing, and get the benefit of the doubt.
    if offered != job.platform && offered != "/" {
        return Err(ImageError::WrongPlatform { reference, wanted: job.platform.clone(), offered: vec![offered] });
    }
    if configuration.diff_ids.len() != manifest.layers.len() {
        return Err(invalid(format!(
            "{} layers, but the configuration names {}",
            manifest.layers.len(),
            configuration.diff_ids.len()
        )));
    }
    let bytes_in_all = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    tell(&Event::Resolved { digest: digest.clone(), layers: manifest.layers.len(), bytes: bytes_in_all });
    let chain = configuration.chain();
    let missing: Vec<Blob> = manifest
        .layers
        .iter()
        .zip(&chain)
        .filter(|(_, name)| !job.root.join("layers").join(name.hex()).exists())
        .map(|(layer, _)| layer.clone())
        .collect();
    let mut downloads = futures_util::stream::iter(missing.into_iter().map(|layer| {
        let (registry, store) = (Arc::clone(&registry), store.clone());
        async move { store.download(&registry, &layer).await.map(|()| layer) }
    }))
    .buffer_unordered(PARALLEL);
    while let Some(outcome) = downloads.next().await {
        let layer = outcome?;
        tell(&Event::Downloaded { digest: layer.digest, bytes: layer.size, total: layer.size });
    }
    // Last, so that a manifest in the store has everything it names.
    store.put(&digest, &bytes)?;
    Ok(Event::Done { digest, index_digest })
}

async fn configuration(
    registry: &Registry,
    store: &Blobs,
    manifest: &Manifest,
) -> Result<Result<Configuration, String>, ImageError> {
    store.download(registry, &manifest.config).await?;
    let bytes = fs::read(store.path(&manifest.config.digest))?;
    Ok(manifest::configuration(&bytes))
}

/// The blobs of a store.
#[derive(Clone)]
pub(super) struct Blobs {
    pub root: PathBuf,
}

impl Blobs {
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    fn ingest(&self, name: &str) -> PathBuf {
        self.root.join("ingest").join(name)
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        if path.exists() { Ok(()) } else { files::replace_durably(&path, bytes, 0o600) }
    }

    async fn download(&self, registry: &Registry, blob: &Blob) -> Result<(), ImageError> {
        let _lock = self.lock(&blob.digest).await?;
        let path = self.path(&blob.digest);
        if !path.exists() {
            let temporary = self.ingest(&format!("{}.{}", blob.digest.hex(), std::process::id()));
            let fetched = fetch(registry, blob, &temporary).await;
            let published = fetched.and_then(|()| publish(&temporary, &path).map_err(ImageError::from));
            if published.is_err() {
                // The failure to report is the first; the next opening of the store sweeps this directory anyway.
                let _ = fs::remove_file(&temporary);
            }
            published?;
        }
        Ok(())
    }

    /// Waits until no other process downloads the same blob.
    async fn lock(&self, digest: &Digest) -> io::Result<Flock<File>> {
        let path = self.ingest(&format!("{}.lock", digest.hex()));
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((_, nix::Error::EAGAIN)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err((_, error)) => return Err(error.into()),
            }
        }
    }
}

fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    File::open(temporary)?.sync_all()?;
    fs::rename(temporary, path)?;
    files::sync_parent(path)
}

/// Streams a blob into a file, continuing where a connection broke.
async fn fetch(registry: &Registry, blob: &Blob, temporary: &Path) -> Result<(), ImageError> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut done = 0;
    let mut retries = 0;
    loop {
        match continue_at(registry, blob, &mut file, &mut hash, &mut done).await {
            Ok(()) => break,
            // What the server says counts; what the network does is tried again.
            Err(Broken::ForGood(error)) => return Err(error),
            Err(Broken::Meanwhile(error)) if retries == RETRIES => return Err(error),
            Err(Broken::Meanwhile(_)) => {
                retries += 1;
                tokio::time::sleep(Duration::from_millis(100 << retries)).await;
            }
        }
    }
    let actual = Digest::from_hash(hash.finish());
    if actual != blob.digest {
        return Err(ImageError::DigestMismatch { expected: blob.digest.to_string(), actual: actual.to_string() });
    }
    Ok(())
}

enum Broken {
    ForGood(ImageError),
    Meanwhile(ImageError),
}

async fn continue_at(
    registry: &Registry,
    blob: &Blob,
    file: &mut File,
    hash: &mut ring::digest::Context,
    done: &mut u64,
) -> Result<(), Broken> {
    let (response, begins) = registry.blob(&blob.digest, *done).await.map_err(|error| match error {
        ImageError::Timeout { .. } | ImageError::Unreachable { .. } | ImageError::Registry { status: 500.., .. } => {
            Broken::Meanwhile(error)
        }
        other => Broken::ForGood(other),
    })?;
    let mut skip = done.saturating_sub(begins);
    let mut told = *done;
    let mut body = response.into_body();
    let failed = |detail: String| ImageError::Unreachable {
        reference: blob.digest.to_string(),
        url: blob.digest.to_string(),
        detail,
    };
    while *done < blob.size {
        let frame = match timeout(STALL, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Broken::Meanwhile(failed(error.to_string()))),
            Ok(None) => {
                return Err(Broken::Meanwhile(failed(format!("unexpected EOF after {done} of {} bytes", blob.size))));
            }
            Err(_) => return Err(Broken::Meanwhile(failed("i/o timeout".to_owned()))),
        };
        let Ok(data) = frame.into_data() else { continue };
        // A server that ignores the range sends everything again.
        let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
        skip -= passed as u64;
        let data = data.get(passed..).unwrap_or_default();
        if *done + data.len() as u64 > blob.size {
            let actual = format!("more than {} bytes", blob.size);
            return Err(Broken::ForGood(ImageError::DigestMismatch { expected: blob.digest.to_string(), actual }));
        }
        file.write_all(data).map_err(|error| Broken::ForGood(error.into()))?;
        hash.update(data);
        *done += data.len() as u64;
        // The configuration is told about by what follows from it.
        if *done - told >= STEP && *done < blob.size {
            told = *done;
            tell(&Event::Downloaded { digest: blob.digest.clone(), bytes: *done, total: blob.size });
        }
    }
    Ok(())
}
