//! Disks that are full or fail: a clear answer, nothing half-made, and everything works again afterwards.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use store::memory::Memory;

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

/// A registry with a switch for each of the two faults: the blobs' disk, and the store's journal.
async fn fixture() -> (Fixture, Arc<AtomicBool>, Memory) {
    let (full, journal) = (Arc::new(AtomicBool::new(false)), Memory::default());
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(journal.clone(), kinds()).unwrap();
    let blobs = directory.path().join("blobs");
    let disk = FullDisk { blobs: DiskBlobs::open(&blobs).unwrap(), full: full.clone() };
    let registry = Registry::with_blobs(&blobs, Arc::new(disk), store, Clock::system()).unwrap();
    (Fixture::on(directory, registry, TagMutability::default()).await, full, journal)
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
    let (it, _, journal) = fixture().await;
    let digest = Hasher::of(b"layer");
    let path = format!("/v2/demo/blobs/uploads/?digest={digest}");
    journal.set_full(true);
    assert_eq!(it.send(Method::POST, &path, &[], "layer").await.error().0, 500);
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.status, StatusCode::NOT_FOUND);
    journal.set_full(false);
    // The store reads its journal again first, and refuses until it has.
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
    journal.set_full(true);
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
