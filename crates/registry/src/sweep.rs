//! Removing what nobody needs: uploads that nobody continues, layers that no image has, blobs that nothing refers to.
//!
//! Each has its grace. A layer is kept while a client that was told of it may still push the image that needs it; what
//! clients were told is forgotten at a restart, so nothing of a repository is removed until the grace has passed since
//! then. A blob is removed only when no durable reference is left and no request holds it (see [`crate::pins`]); its
//! grace is a second line of defence.

use std::{io, sync::Arc, time::Duration};

use domain::{
    Resource, Timestamp,
    repositories::{Digest, Image, Layer},
};

use crate::{Registry, RegistryError, blocking, layers::is_referenced, now};

/// How often the registry is swept.
const PERIOD: Duration = Duration::from_secs(15 * 60);
/// How many layers one transaction removes, so that no other waits long.
const LAYERS_AT_ONCE: usize = 500;

/// How long something may lie around before it is removed. All real time.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// Since an upload's last byte.
    pub uploads: Duration,
    /// Since a layer without an image was pushed or asked about.
    pub layers: Duration,
    /// Since a blob without a reference was written.
    pub blobs: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { uploads: day, layers: day, blobs: Duration::from_secs(60 * 60) }
    }
}

/// What a sweep removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Uploads.
    pub uploads: usize,
    /// Layers of repositories.
    pub layers: usize,
    /// Blobs.
    pub blobs: usize,
}

impl Registry {
    /// Sweeps for as long as the registry lives.
    pub async fn sweep_forever(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.sweep(Grace::default()).await {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => tracing::info!(?swept, "the registry was swept"),
                Err(error) => tracing::warn!(%error, "the registry could not be swept"),
            }
        }
    }

    /// Removes what nobody needs.
    pub async fn sweep(self: &Arc<Self>, grace: Grace) -> Result<Swept, RegistryError> {
        let registry = self.clone();
        let uploads = blocking(move || registry.uploads.sweep(grace.uploads)).await?;
        let layers = self.sweep_layers(grace.layers).await?;
        let registry = self.clone();
        let blobs = blocking(move || registry.sweep_blobs(grace.blobs)).await?;
        Ok(Swept { uploads, layers, blobs })
    }

    async fn sweep_layers(&self, grace: Duration) -> Result<usize, RegistryError> {
        self.touched().retain(|_, touched| touched.elapsed() < grace);
        if now().duration_since(self.opened) < grace {
            return Ok(0);
        }
        // Platform time may run faster than ours: a grace in it is as much longer.
        let long_ago = self.clock.now() - grace * self.clock.rate();
        let snapshot = self.snapshot();
        let unused: Vec<String> = snapshot
            .list::<Layer>("")
            .filter(|layer| self.is_unused(&snapshot, layer, long_ago))
            .map(|layer| layer.key())
            .collect();
        let mut removed = 0;
        for keys in unused.chunks(LAYERS_AT_ONCE) {
            let remove = |tx: &mut store::Transaction| {
                let mut count = 0;
                for key in keys {
                    if tx.get::<Layer>(key).is_some_and(|layer| self.is_unused(tx, &layer, long_ago)) {
                        tx.delete::<Layer>(key);
                        count += 1;
                    }
                }
                Ok::<_, RegistryError>(count)
            };
            removed += self.store.transact(remove).await?;
        }
        Ok(removed)
    }

    fn is_unused(&self, snapshot: &store::Snapshot, layer: &Layer, long_ago: Timestamp) -> bool {
        let key = layer.key();
        layer.linked <= long_ago
            && !self.touched().contains_key(&key)
            && snapshot.count::<Image>(Image::BY_LAYER, key) == 0
    }

    fn sweep_blobs(&self, grace: Duration) -> io::Result<usize> {
        let snapshot = self.snapshot();
        let mut candidates: Vec<Digest> = Vec::new();
        self.blobs.list(&mut |digest, age| {
            if age >= grace && !is_referenced(&snapshot, &digest) {
                candidates.push(digest);
            }
        })?;
        let mut removed = 0;
        for digest in candidates {
            let outcome = self.pins.unless_held(&digest, || {
                // Whoever let go of this blob has made its reference durable: a snapshot taken now shows it.
                if is_referenced(&self.snapshot(), &digest) {
                    Ok(false)
                } else {
                    self.blobs.remove(&digest).map(|()| true)
                }
            });
            removed += usize::from(outcome.transpose()?.unwrap_or(false));
        }
        Ok(removed)
    }
}
