//! Layers of repositories: finding, opening, mounting, finishing uploads.

use std::{collections::HashMap, sync::Arc, sync::PoisonError, time::Instant};

use domain::{
    Resource, Scope,
    instances::{MachineImage, Volume},
    repositories::{Digest, Image, Layer, Repository, content_key, repository_key},
};
use store::{Snapshot, Transaction};

use crate::{Blob, Registry, RegistryError, UploadId, Uploads, blocking, now, pins::Pin, uploads::Staged};

/// The repository with this name.
pub fn repository(snapshot: &Snapshot, scope: &Scope, name: &str) -> Result<Arc<Repository>, RegistryError> {
    snapshot
        .get(&repository_key(scope, name))
        .ok_or_else(|| RegistryError::RepositoryNotFound { name: name.to_owned(), registry: scope.account.clone() })
}

impl Registry {
    /// The unfinished uploads. An upload's repository is named by its [`repository_key`].
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// A layer of a repository.
    pub fn layer(&self, scope: &Scope, name: &str, digest: &Digest) -> Result<Arc<Layer>, RegistryError> {
        let snapshot = self.snapshot();
        repository(&snapshot, scope, name)?;
        let layer: Arc<Layer> =
            snapshot.get(&content_key(scope, name, digest)).ok_or_else(|| RegistryError::LayerNotFound {
                digest: digest.to_string(),
                name: name.to_owned(),
                registry: scope.account.clone(),
            })?;
        self.touch(layer.key());
        Ok(layer)
    }

    /// A layer's bytes.
    pub async fn open_layer(&self, layer: &Layer) -> Result<Arc<dyn Blob>, RegistryError> {
        self.open_blob(&layer.digest).await
    }

    pub(crate) async fn open_blob(&self, digest: &Digest) -> Result<Arc<dyn Blob>, RegistryError> {
        let (blobs, wanted) = (self.blobs.clone(), digest.clone());
        match blocking(move || blobs.open(&wanted)).await? {
            Some(blob) => Ok(blob.into()),
            None => {
                // A reference outlives its blob only when somebody has removed files by hand.
                tracing::error!(%digest, "the blob is missing from the data directory");
                Err(std::io::Error::new(std::io::ErrorKind::NotFound, format!("the blob {digest} is missing")).into())
            }
        }
    }

    /// Ends an upload: its bytes become a layer of the repository. Returns the layer, and whether the repository has
    /// had it before.
    pub async fn finish_upload(
        self: &Arc<Self>,
        scope: &Scope,
        name: &str,
        id: &UploadId,
        digest: Option<&Digest>,
    ) -> Result<(Layer, bool), RegistryError> {
        let staged = self.uploads.finish(&repository_key(scope, name), id, digest).await?;
        let (registry, scope, name) = (self.clone(), scope.clone(), name.to_owned());
        detached(async move { registry.commit_layer(&scope, &name, staged).await }).await
    }

    async fn commit_layer(&self, scope: &Scope, name: &str, staged: Staged) -> Result<(Layer, bool), RegistryError> {
        let Staged { path, digest, size } = staged;
        let pin = self.pins.hold(&digest);
        let referenced = is_referenced(&self.snapshot(), &digest);
        let (disk, blobs, wanted) = (self.disk.clone(), self.blobs.clone(), digest.clone());
        blocking(move || {
            // A blob that nothing refers to may be the rest of a crash or about to go: it is written again.
            let known = referenced && blobs.size(&wanted)? == Some(size);
            let adopted = if known { Ok(()) } else { blobs.adopt(&path, &wanted) };
            // Its bytes are in the blob, or of no use: on a full disk they must not stay.
            if known || adopted.is_err() {
                crate::disk::found(disk.remove(&path))?;
            }
            adopted
        })
        .await?;
        let layer = Layer { scope: scope.clone(), repository: name.to_owned(), digest, size, linked: self.clock.now() };
        self.touch(layer.key());
        let linked = layer.clone();
        let existed = self
            .store
            .transact(move |tx| {
                repository(tx, &linked.scope, &linked.repository)?;
                let existed = tx.contains::<Layer>(&linked.key());
                if !existed {
                    tx.put(linked);
                }
                Ok::<_, RegistryError>(existed)
            })
            .await;
        Ok((layer, settled(pin, existed)?))
    }

    /// Gives a repository a layer of another one of the same registry, without copying. `None` when that one has it
    /// not.
    pub async fn mount(
        &self,
        scope: &Scope,
        name: &str,
        from: &str,
        digest: &Digest,
    ) -> Result<Option<Layer>, RegistryError> {
        let now = self.clock.now();
        let mounted = self
            .store
            .transact(|tx| {
                repository(tx, scope, name)?;
                let Some(source) = tx.get::<Layer>(&content_key(scope, from, digest)) else { return Ok(None) };
                let layer = Layer { repository: name.to_owned(), linked: now, ..Layer::clone(&source) };
                if !tx.contains::<Layer>(&layer.key()) {
                    tx.put(layer.clone());
                }
                Ok::<_, RegistryError>(Some(layer))
            })
            .await?;
        if let Some(layer) = &mounted {
            self.touch(layer.key());
        }
        Ok(mounted)
    }

    /// Takes a layer from a repository, if no image of it needs it. The blob goes when no repository has it any more.
    pub async fn delete_layer(&self, scope: &Scope, name: &str, digest: &Digest) -> Result<(), RegistryError> {
        self.layer(scope, name, digest)?;
        let key = content_key(scope, name, digest);
        let delete = |tx: &mut Transaction| {
            if tx.count::<Image>(Image::BY_LAYER, &key) > 0 {
                return Err(RegistryError::LayerInUse { digest: digest.clone() });
            }
            tx.delete::<Layer>(&key);
            Ok(())
        };
        Ok(self.store.transact(delete).await?)
    }

    /// Somebody was told that this layer is there and may rely on it for a while.
    pub(crate) fn touch(&self, key: String) {
        self.touched().insert(key, now());
    }

    pub(crate) fn touched(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of the transaction that a pin was held for. A write whose failure was reported may show up after all
/// when the store reads its log again: its blob must be there then.
pub(crate) fn settled<T>(
    pin: Pin,
    outcome: Result<T, store::TransactError<RegistryError>>,
) -> Result<T, RegistryError> {
    if matches!(outcome, Err(store::TransactError::NotDurable(_) | store::TransactError::Closed)) {
        pin.keep();
    }
    Ok(outcome?)
}

/// Runs what must not stop half-way when the client goes away: a blob stays pinned until its reference is durable.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::spawn(work).await.map_err(|error| RegistryError::Storage(std::io::Error::other(error)))?
}

/// Whether a blob is needed: by a repository, or by EC2, for an image or for a volume that has yet to be made of one.
pub(crate) fn is_referenced(snapshot: &Snapshot, digest: &Digest) -> bool {
    snapshot.count::<Layer>(Layer::BY_BLOB, digest.as_str()) > 0
        || snapshot.count::<Image>(Image::BY_BLOB, digest.as_str()) > 0
        || snapshot.count::<MachineImage>(MachineImage::BY_BLOB, digest.as_str()) > 0
        || snapshot.count::<Volume>(Volume::BY_BLOB, digest.as_str()) > 0
}
