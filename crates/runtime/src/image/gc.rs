//! Collecting images nobody uses.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;

use super::store::Record;
use super::{Digest, ImageError, ImageStore};
use crate::files;

/// An image in use counts as used just now; noted on disk only this often.
const NOTED_EVERY: Duration = Duration::from_secs(600);

/// What images may stay here although nobody uses them, those used last first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheBounds {
    /// For how long after their last use.
    pub unused_for: Duration,
    /// How many bytes of layers in all, as registries count: compressed, and a layer of several images once.
    pub bytes: u64,
    /// How many bytes of the disk must be free.
    pub free: u64,
}

/// What was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// References forgotten.
    pub images: usize,
    /// Unpacked layers removed.
    pub layers: usize,
    /// Blobs removed.
    pub blobs: usize,
    /// Whether nothing was done because something was being pulled.
    pub deferred: bool,
}

impl ImageStore {
    /// Forgets images beyond `bounds`, then removes layers and blobs that no remaining image needs; among them the
    /// compressed layers of unpacked images. Images in `keep` (by the digest of their manifest) and those of which
    /// somebody holds an [`super::Image`] stay, with or without a reference. Blocking.
    ///
    /// Safe beside pulls: nothing is done while one is going on, and one that begins meanwhile waits.
    ///
    /// # Errors
    /// If something cannot be removed; calling again goes on from there.
    pub fn gc(&self, keep: &HashSet<Digest>, bounds: &CacheBounds) -> Result<GcReport, ImageError> {
        let mut trash = Vec::new();
        let report = self.collect(keep, bounds, &mut trash)?;
        // Out of sight already, so pulls need not wait for this; opening the store removes what an end in between leaves.
        for path in trash {
            fs::remove_dir_all(path)?;
        }
        Ok(report)
    }

    fn collect(
        &self,
        keep: &HashSet<Digest>,
        bounds: &CacheBounds,
        trash: &mut Vec<PathBuf>,
    ) -> Result<GcReport, ImageError> {
        let mut report = GcReport::default();
        let Ok(_content) = self.content.try_write() else {
            return Ok(GcReport { deferred: true, ..report });
        };
        let mut used = self.pinned();
        used.extend(keep.iter().cloned());
        let (in_use, mut unused): (Vec<_>, Vec<_>) =
            self.records().into_iter().partition(|(_, record)| used.contains(&record.digest));
        for (_, record) in in_use {
            if age(&record) >= NOTED_EVERY {
                self.remember(&Record { used_at: files::now_nanoseconds(), ..record })?;
            }
        }
        unused.sort_by_key(|(_, record)| std::cmp::Reverse(record.used_at));
        // By digest, not by record: a tag may have moved on from an image that still runs.
        let mut wanted = used;
        let mut known: HashSet<Digest> = HashSet::new();
        for digest in &wanted {
            known.extend(self.weigh(digest).unwrap_or_default().into_iter().map(|(layer, _)| layer));
        }
        let (mut all, mut candidates) = (0u64, Vec::new());
        for (path, record) in unused {
            // One that cannot be read back has nothing worth keeping; the next pull makes it whole.
            let layers = self.weigh(&record.digest);
            let fresh = layers.is_some() && age(&record) < bounds.unused_for;
            let new = layers.unwrap_or_default().into_iter().filter(|(layer, _)| known.insert(layer.clone()));
            all = new.fold(all, |sum, (_, bytes)| sum.saturating_add(bytes));
            candidates.push((path, record.digest, fresh, all));
        }
        let allowed = bounds.bytes.min(all.saturating_sub(bounds.free.saturating_sub(self.free()?)));
        for (path, digest, fresh, with_newer) in candidates {
            if fresh && with_newer <= allowed {
                wanted.insert(digest);
            } else {
                fs::remove_file(path)?;
                report.images += 1;
            }
        }
        let (mut layers, mut blobs) = (HashSet::new(), HashSet::new());
        for digest in wanted {
            if let Ok((manifest, configuration)) = self.describe(&digest) {
                blobs.insert(manifest.config.digest.hex().to_owned());
                layers.extend(configuration.chain().iter().map(|name| name.hex().to_owned()));
                blobs.insert(digest.hex().to_owned());
            }
        }
        report.layers = self.sweep("layers", &layers, trash)?;
        report.blobs = self.sweep("blobs", &blobs, trash)?;
        Ok(report)
    }

    /// The layers of an image with their compressed sizes.
    fn weigh(&self, digest: &Digest) -> Option<Vec<(Digest, u64)>> {
        let (manifest, _) = self.describe(digest).ok()?;
        Some(manifest.layers.into_iter().map(|layer| (layer.digest, layer.size)).collect())
    }

    /// Bytes of the disk that are free.
    fn free(&self) -> Result<u64, ImageError> {
        let disk = statvfs(&self.options.root).map_err(std::io::Error::from)?;
        Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    fn sweep(&self, name: &str, keep: &HashSet<String>, trash: &mut Vec<PathBuf>) -> Result<usize, ImageError> {
        let mut removed = 0;
        for entry in fs::read_dir(self.options.root.join(name))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                // Out of sight first: a half removed layer must not look like one.
                let aside = self.aside(&entry.path());
                fs::rename(entry.path(), &aside)?;
                trash.push(aside);
            } else {
                fs::remove_file(entry.path())?;
            }
            removed += 1;
        }
        Ok(removed)
    }

    /// A name in `staging` that no layer on its way in has.
    fn aside(&self, layer: &Path) -> PathBuf {
        let name = format!("trash-{}-{}", files::now_nanoseconds(), layer.file_name().unwrap_or_default().display());
        self.options.root.join("staging").join(name)
    }
}

fn age(record: &Record) -> Duration {
    SystemTime::now().duration_since(files::from_nanoseconds(record.used_at)).unwrap_or_default()
}
