//! Disks that are full or fail: a clear answer, nothing half-made, and everything works again afterwards.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use store::{Log, LogError, Revision, Write};

use super::*;
use crate::{Blob, BlobStore, DiskBlobs};

/// Blobs on a disk that can be full.
struct FullDisk {
    blobs: DiskBlobs,
    full: Arc<AtomicBool>,
}

impl BlobStore for FullDisk {
    fn adopt(&self, staged: &Path, digest: &Digest) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.blobs.adopt(staged, digest)
    }
    fn open(&self, digest: &Digest) -> io::Result<Option<Box<dyn Blob>>> {
        self.blobs.open(digest)
    }
    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        self.blobs.size(digest)
    }
    fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.blobs.remove(digest)
    }
    fn list(&self, each: &mut dyn FnMut(Digest, Duration)) -> io::Result<()> {
        self.blobs.list(each)
    }
}

/// A log in memory that can fail.
#[derive(Default)]
struct FailingLog {
    failing: Arc<AtomicBool>,
    revision: Revision,
    kept: BTreeMap<(&'static str, String), Vec<u8>>,
}

impl Log for FailingLog {
    fn load(&mut self, each: &mut dyn FnMut(&str, &str, &[u8])) -> Result<Revision, LogError> {
        self.kept.iter().for_each(|((kind, key), value)| each(kind, key, value));
        Ok(self.revision)
    }
    fn append(&mut self, batch: &[Write], _: Revision) -> Result<Revision, LogError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(LogError::Engine("no space left".into()));
        }
        for write in batch {
            match write.clone() {
                Write::Put { kind, key, value } => drop(self.kept.insert((kind, key), value)),
                Write::Delete { kind, key } => drop(self.kept.remove(&(kind, key))),
            }
        }
        self.revision += 1;
        Ok(self.revision)
    }
}

/// A registry with a switch for each of the two faults: the blobs' disk, the store's.
async fn fixture() -> (Fixture, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (full, failing) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(FailingLog { failing: failing.clone(), ..FailingLog::default() }, kinds()).unwrap();
    let blobs = directory.path().join("blobs");
    let disk = FullDisk { blobs: DiskBlobs::open(&blobs).unwrap(), full: full.clone() };
    let registry = Registry::with_blobs(&blobs, Arc::new(disk), store, Clock::system()).unwrap();
    (Fixture::on(directory, registry, TagMutability::default()).await, full, failing)
}

fn unfinished(it: &Fixture) -> usize {
    std::fs::read_dir(it.directory.path().join("blobs/uploads")).unwrap().count()
}

#[tokio::test]
async fn a_full_disk_refuses_the_push_and_gets_its_space_back() {
    let (it, full, _) = fixture().await;
    let digest = Hasher::of(b"layer");
    let path = format!("/v2/demo/blobs/uploads/?digest={digest}");
    full.store(true, Ordering::SeqCst);
    let refused = it.send(Method::POST, &path, &[], "layer").await;
    assert_eq!(refused.error().0, 507);
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(unfinished(&it), 0);
    full.store(false, Ordering::SeqCst);
    assert_eq!(it.send(Method::POST, &path, &[], "layer").await.status, StatusCode::CREATED);

    let manifest = image(&[(&digest, 5)]);
    full.store(true, Ordering::SeqCst);
    assert_eq!(it.put_manifest("demo", "v1", &manifest).await.error().0, 507);
    assert_eq!(it.get("/v2/demo/manifests/v1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(unfinished(&it), 0);
    full.store(false, Ordering::SeqCst);
    assert_eq!(it.put_manifest("demo", "v1", &manifest).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn what_could_not_be_saved_is_not_there_and_can_be_pushed_again() {
    let (it, _, failing) = fixture().await;
    let digest = Hasher::of(b"layer");
    let path = format!("/v2/demo/blobs/uploads/?digest={digest}");
    failing.store(true, Ordering::SeqCst);
    assert_eq!(it.send(Method::POST, &path, &[], "layer").await.error().0, 500);
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.status, StatusCode::NOT_FOUND);
    failing.store(false, Ordering::SeqCst);
    // The store reads its log again first, and refuses until it has.
    let mut pushed = false;
    for _ in 0..200 {
        pushed = it.send(Method::POST, &path, &[], "layer").await.status == StatusCode::CREATED;
        if pushed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(pushed);
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.body, "layer");
    failing.store(true, Ordering::SeqCst);
    assert_eq!(it.put_manifest("demo", "v1", &image(&[(&digest, 5)])).await.error().0, 500);
    assert_eq!(it.get("/v2/demo/tags/list").await.json()["tags"], json!([]));
}

#[tokio::test]
async fn a_blob_that_somebody_removed_by_hand_is_an_error_and_comes_back_with_the_next_push() {
    let it = Fixture::new().await;
    let digest = it.push_blob("demo", b"layer").await;
    let file = it.directory.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    std::fs::remove_file(file).unwrap();
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.error().0, 500);
    it.push_blob("demo", b"layer").await;
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.body, "layer");
}
