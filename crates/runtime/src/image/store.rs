//! The images on this host, as files.
//!
//! - `blobs/<digest>`: manifests, configurations, and layers that are not unpacked yet;
//! - `layers/<chain id>/`: unpacked layers, each named by what lies below it as well;
//! - `images/<digest of the reference>.json`: which reference means which image;
//! - `ingest/`, `staging/`: what is only half there. Emptied when the store is opened.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use super::fetch::Blobs;
use super::manifest::{self, Configuration, Document, Manifest};
use super::{Digest, Image, ImageError, Pin, Reference, UnpackLimits};
use crate::files;
use crate::helper::Helper;

/// Where images are kept and what may be unpacked.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The directory. Made, with mode 0700, if missing. One store at a time.
    pub root: PathBuf,
    /// The binary that becomes puller and unpacker.
    pub helper: Helper,
    /// Bounds of each layer.
    pub limits: UnpackLimits,
}

/// The images on this host.
pub struct ImageStore {
    pub(super) options: StoreOptions,
    /// Held for reading while something is pulled or unpacked, for writing while content is swept.
    pub(super) content: RwLock<()>,
    /// One lock for each layer being unpacked.
    pub(super) unpacking: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Which images somebody holds, by the digest of their manifest.
    pins: Mutex<HashMap<Digest, Weak<()>>>,
}

/// What a reference means.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub reference: Reference,
    pub digest: Digest,
    pub index_digest: Option<Digest>,
    /// Nanoseconds since 1970.
    pub used_at: u64,
}

impl ImageStore {
    /// Opens the store and removes what an interrupted process has left half made. Blocking, but quick.
    ///
    /// # Errors
    /// If the directory cannot be made or written.
    pub fn open(mut options: StoreOptions) -> Result<Arc<ImageStore>, ImageError> {
        files::private_directory(&options.root)?;
        options.root = fs::canonicalize(&options.root)?;
        for name in ["ingest", "staging"] {
            let directory = options.root.join(name);
            if directory.exists() {
                fs::remove_dir_all(&directory)?;
            }
        }
        for name in ["ingest", "staging", "blobs", "layers", "images"] {
            files::private_directory(&options.root.join(name))?;
        }
        Ok(Arc::new(ImageStore {
            options,
            content: RwLock::new(()),
            unpacking: Mutex::default(),
            pins: Mutex::default(),
        }))
    }

    /// The image last pulled as `reference`, if all of it is still here.
    pub fn lookup(&self, reference: &Reference) -> Option<Image> {
        self.image(&self.recorded(reference)?).ok()
    }

    /// The image of that manifest, if all of it is still here, whatever `reference` means by now. For one that the
    /// collector is told to keep.
    pub fn exactly(&self, reference: &Reference, digest: &Digest) -> Option<Image> {
        let (reference, digest) = (reference.clone(), digest.clone());
        self.image(&Record { reference, digest, index_digest: None, used_at: files::now_nanoseconds() }).ok()
    }

    /// Every image that is completely here.
    pub fn images(&self) -> Vec<Image> {
        self.records().iter().filter_map(|(_, record)| self.image(record).ok()).collect()
    }

    pub(super) fn records(&self) -> Vec<(PathBuf, Record)> {
        let Ok(entries) = fs::read_dir(self.options.root.join("images")) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| Some((entry.path(), serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?)))
            .collect()
    }

    pub(super) fn remember(&self, record: &Record) -> Result<(), ImageError> {
        let text = serde_json::to_vec(record).map_err(|error| ImageError::Helper(error.to_string()))?;
        let path = self.record_path(&record.reference);
        let same = self
            .recorded(&record.reference)
            .is_some_and(|known| known.digest == record.digest && known.index_digest == record.index_digest);
        // When it was used last is not worth waiting for the disk: every start of a container comes through here.
        if same {
            files::replace(&path, &text, 0o600)?
        } else {
            files::replace_durably(&path, &text, 0o600)?
        }
        Ok(())
    }

    fn recorded(&self, reference: &Reference) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.record_path(reference)).ok()?).ok()?;
        (record.reference == *reference).then_some(record)
    }

    fn record_path(&self, reference: &Reference) -> PathBuf {
        let name = Digest::of(reference.to_string().as_bytes());
        self.options.root.join("images").join(format!("{}.json", name.hex()))
    }

    pub(super) fn blobs(&self) -> Blobs {
        Blobs { root: self.options.root.clone() }
    }

    pub(super) fn layer_path(&self, chain_id: &Digest) -> PathBuf {
        self.options.root.join("layers").join(chain_id.hex())
    }

    /// Reads manifest and configuration back from the store, verified again: what is damaged on disk is not run.
    pub(super) fn describe(&self, digest: &Digest) -> Result<(Manifest, Configuration), ImageError> {
        let invalid = |reason: String| ImageError::InvalidManifest { reference: digest.to_string(), reason };
        let Document::Manifest(manifest) = manifest::parse(&self.verified(digest)?).map_err(invalid)? else {
            return Err(invalid("an index".to_owned()));
        };
        let configuration = manifest::configuration(&self.verified(&manifest.config.digest)?).map_err(invalid)?;
        Ok((manifest, configuration))
    }

    fn verified(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let bytes = fs::read(self.blobs().path(digest))?;
        let actual = Digest::of(&bytes);
        if actual == *digest {
            Ok(bytes)
        } else {
            Err(ImageError::DigestMismatch { expected: digest.to_string(), actual: actual.to_string() })
        }
    }

    /// The image of a record.
    ///
    /// # Errors
    /// If something of it is missing.
    pub(super) fn image(&self, record: &Record) -> Result<Image, ImageError> {
        // Before anything is looked at: the collector must not come in between.
        let pin = self.pin(&record.digest);
        let (manifest, configuration) = self.describe(&record.digest)?;
        let layers: Vec<PathBuf> = configuration.chain().iter().map(|name| self.layer_path(name)).collect();
        if let Some(missing) = layers.iter().find(|layer| !layer.is_dir()) {
            return Err(ImageError::Io(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                missing.display().to_string(),
            )));
        }
        let size = manifest.layers.iter().fold(manifest.config.size, |sum, layer| sum.saturating_add(layer.size));
        Ok(Image {
            reference: record.reference.clone(),
            digest: record.digest.clone(),
            index_digest: record.index_digest.clone(),
            config: configuration.config,
            layers,
            size,
            pin,
        })
    }

    fn pin(&self, digest: &Digest) -> Pin {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pin) = pins.get(digest).and_then(Weak::upgrade) {
            return Pin(pin);
        }
        let pin = Arc::new(());
        pins.insert(digest.clone(), Arc::downgrade(&pin));
        Pin(pin)
    }

    /// The digests of the images somebody holds.
    pub(super) fn pinned(&self) -> HashSet<Digest> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|_, pin| pin.strong_count() > 0);
        pins.keys().cloned().collect()
    }

    /// The lock of a layer, so that two pulls unpack it once.
    pub(super) fn layer_lock(&self, name: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
        // Those nobody holds are forgotten now and then.
        if locks.len() > 1000 {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(locks.entry(name.clone()).or_default())
    }
}
