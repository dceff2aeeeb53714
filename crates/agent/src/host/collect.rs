//! When images go: those no task of this host uses, beyond what is kept so that the next task starts fast.
//!
//! Looked at after every pull, after every task's end, and now and then as Amazon's agent does; what is decided depends
//! on what is there only, so it does not matter what was missed.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use runtime::{CacheBounds, Digest};

use super::Host;

/// Between two looks without anything having happened; `ECS_IMAGE_CLEANUP_INTERVAL` of Amazon's agent.
const INTERVAL: Duration = Duration::from_secs(30 * 60);
/// What happens together is looked at once.
const TOGETHER: Duration = Duration::from_secs(1);
/// Until the next look, when a pull or a task's removal was under way.
const SOON: Duration = Duration::from_secs(5);
/// For how long an image stays after its last use, however small it is.
const UNUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of the disk, a tenth stays free, but no more than this is asked for.
const FREE: u64 = 20 << 30;

impl Host {
    /// Collects for as long as the agent runs.
    pub async fn collect_images(self: Arc<Host>) {
        let mut pause = Duration::ZERO;
        loop {
            let _ = tokio::time::timeout(pause, self.collector.notified()).await;
            tokio::time::sleep(TOGETHER).await;
            pause = if self.collect_once().await { INTERVAL } else { SOON };
        }
    }

    /// Returns whether everything there was to decide was decided.
    async fn collect_once(&self) -> bool {
        let Some((keep, settled)) = self.images_in_use() else { return true };
        let (images, bounds) = (self.images.clone(), self.bounds());
        let collected = tokio::task::spawn_blocking(move || images.gc(&keep, &bounds)).await;
        match collected.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string())) {
            Ok(report) => {
                if report.images + report.layers > 0 {
                    tracing::info!(images = report.images, layers = report.layers, "images were collected");
                }
                settled && !report.deferred
            }
            Err(error) => {
                tracing::warn!(error, "images could not be collected");
                true
            }
        }
    }

    /// What tasks have pulled, by their records, which survive the agent; and whether no task is just being removed.
    /// Nothing if there is a task of which that is not known.
    fn images_in_use(&self) -> Option<(HashSet<Digest>, bool)> {
        let engine = self.engine.get().and_then(Weak::upgrade)?;
        let (mut keep, mut settled) = (HashSet::new(), true);
        for record in engine.views().iter().filter(|record| !record.cleaned) {
            settled &= !record.all_stopped();
            for container in &record.containers {
                match container.manifest_digest.as_ref().map(|digest| digest.parse()) {
                    Some(Ok(digest)) => drop(keep.insert(digest)),
                    _ if container.runtime_id.is_some() => return None,
                    _ => {}
                }
            }
        }
        Some((keep, settled))
    }

    fn bounds(&self) -> CacheBounds {
        let disk = statvfs(&self.settings.directory).map_or(0, |disk| disk.blocks() * disk.fragment_size());
        CacheBounds { unused_for: UNUSED_FOR, bytes: self.settings.image_cache, free: FREE.min(disk / 10) }
    }
}
