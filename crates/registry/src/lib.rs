//! The content of container registries: layers and manifests by digest, uploads, and the OCI distribution face `/v2/`.
//!
//! - [`Registry`] is the content of all repositories: the store says which repository may see which blob, a
//!   [`BlobStore`] keeps the bytes, and [`Uploads`] are the bytes that have no digest yet.
//! - [`handle`] is the face that container engines speak, for the server's front door.
//! - `services::ecr` is the other face, on the same operations.
//!
//! **Invariants.** A blob is on disk, whole and synced, before a repository refers to it; no one gets a blob other than
//! through a repository that refers to it; a blob that a durable reference or a running request needs is never removed.
//!
//! Mirrors Amazon ECR (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/>) and the distribution specification
//! (<https://github.com/opencontainers/distribution-spec>). Leaves making and deleting repositories to `services::ecr`.

mod blobs;
mod changes;
mod disk;
mod error;
pub mod fuzz;
mod hash;
mod http_face;
pub mod images;
pub mod layers;
mod manifest;
mod pins;
#[cfg(test)]
mod power_cut_tests;
mod reader;
pub mod root_file_system;
mod sweep;
mod uploads;
mod write_back;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use changes::{Changes, Kernel};
use domain::Clock;
use store::Store;

pub use blobs::{Blob, BlobStore};
pub use disk::DiskBlobs;
pub use error::RegistryError;
pub use hash::Hasher;
pub use http_face::{LAYER_TOKEN, ResponseBody, handle, host_scope};
pub use images::{ImageReference, Put, PutImage};
pub use manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError, media_types};
pub use reader::BlobBody;
pub use sweep::{Grace, Swept};
pub use uploads::{MAX_LAYER_BYTES, RequestBody, Staged, UploadId, Uploads, body_of};

/// The content of all repositories of a platform.
pub struct Registry {
    store: Store,
    clock: Clock,
    blobs: Arc<dyn BlobStore>,
    uploads: Uploads,
    /// Where uploads and other staged files are.
    disk: Arc<dyn Changes>,
    pins: pins::Pins,
    /// When a layer was last asked about, by its key: a client that was told that it is there relies on it.
    touched: Mutex<std::collections::HashMap<String, std::time::Instant>>,
    opened: std::time::Instant,
}

impl Registry {
    /// The registry whose bytes are in `directory`, which is made if it is missing.
    pub fn open(directory: &Path, store: Store, clock: Clock) -> io::Result<Arc<Self>> {
        Self::open_on(Arc::new(Kernel), directory, store, clock)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Changes>,
        directory: &Path,
        store: Store,
        clock: Clock,
    ) -> io::Result<Arc<Self>> {
        let blobs = Arc::new(DiskBlobs::open_on(disk.clone(), directory)?);
        Self::with(disk, directory, blobs, store, clock)
    }

    /// The registry whose blobs are in `blobs`, and whose unfinished uploads are in `directory`.
    pub fn with_blobs(
        directory: &Path,
        blobs: Arc<dyn BlobStore>,
        store: Store,
        clock: Clock,
    ) -> io::Result<Arc<Self>> {
        Self::with(Arc::new(Kernel), directory, blobs, store, clock)
    }

    fn with(
        disk: Arc<dyn Changes>,
        directory: &Path,
        blobs: Arc<dyn BlobStore>,
        store: Store,
        clock: Clock,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            store,
            clock,
            blobs,
            uploads: Uploads::open_on(disk.clone(), &directory.join("uploads"))?,
            disk,
            pins: pins::Pins::default(),
            touched: Mutex::default(),
            opened: now(),
        }))
    }

    /// Everything as of now.
    pub fn snapshot(&self) -> store::Snapshot {
        self.store.snapshot()
    }
}

/// For how long something lies around, which the platform's clock may not speed up.
#[allow(clippy::disallowed_methods, reason = "ages of files and requests are real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Runs what blocks (file system work, hashing) where it holds up no other request.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}
