//! Collecting images nobody uses.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, SystemTime};

use super::{Digest, ImageError, ImageStore};
use crate::files;

/// What was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// References forgotten.
    pub images: usize,
    /// Unpacked layers removed.
    pub layers: usize,
    /// Blobs removed.
    pub blobs: usize,
    /// Whether layers and blobs were left for the next time because something was being pulled.
    pub deferred: bool,
}

impl ImageStore {
    /// Forgets images that are not in `keep` (by the digest of their manifest) and were not pulled or asked for within `unused_for`, then
    /// removes layers and blobs that no remaining image needs; among them the compressed layers of unpacked images.
    ///
    /// Safe beside pulls: content is swept only while none is going on. Containers need their image in `keep`.
    ///
    /// # Errors
    /// If something cannot be removed; calling again goes on from there.
    pub async fn gc(&self, keep: &HashSet<Digest>, unused_for: Duration) -> Result<GcReport, ImageError> {
        let mut report = GcReport::default();
        // A pull that begins now waits; one that goes on makes us leave its content alone.
        let Ok(_content) = self.content.try_write() else {
            return Ok(GcReport { deferred: true, ..report });
        };
        let now = SystemTime::now();
        let (mut layers, mut blobs) = (HashSet::new(), HashSet::new());
        let mut wanted = keep.clone();
        for (path, record) in self.records() {
            let age = now.duration_since(files::from_nanoseconds(record.used_at)).unwrap_or_default();
            if !keep.contains(&record.digest) && age >= unused_for {
                fs::remove_file(path)?;
                report.images += 1;
            } else {
                wanted.insert(record.digest);
            }
        }
        // By digest, not by record: a tag may have moved on from an image that still runs.
        for digest in wanted {
            // An image that cannot be read back has nothing worth keeping; the next pull makes it whole.
            if let Ok((manifest, configuration)) = self.describe(&digest) {
                blobs.insert(manifest.config.digest.hex().to_owned());
                layers.extend(configuration.chain().iter().map(|name| name.hex().to_owned()));
                blobs.insert(digest.hex().to_owned());
            }
        }
        report.layers = sweep(&self.options.root.join("layers"), &layers)?;
        report.blobs = sweep(&self.options.root.join("blobs"), &blobs)?;
        Ok(report)
    }
}

fn sweep(directory: &std::path::Path, keep: &HashSet<String>) -> Result<usize, ImageError> {
    let mut removed = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            // Out of sight first: a half removed layer must not look like one.
            let trash = directory.with_file_name("staging").join(entry.file_name());
            fs::rename(entry.path(), &trash)?;
            fs::remove_dir_all(trash)?;
        } else {
            fs::remove_file(entry.path())?;
        }
        removed += 1;
    }
    Ok(removed)
}
