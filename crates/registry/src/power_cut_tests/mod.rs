//! What was acknowledged is there, whole, after a power cut at any moment; what was not is never taken for whole.

mod simulated_disk;

use std::{collections::BTreeMap, sync::Arc};

use domain::{
    Clock, Scope,
    repositories::{Digest, Image, ImageTag, Layer, Repository, repository_key},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use simulated_disk::{Lie, Luck, SimulatedDisk, Step};
use store::{Journal, JournalError, Kinds, Revision, Store, Write};

use crate::{Grace, Hasher, ImageReference, PutImage, Registry, RegistryError, UploadId, body_of, media_types};

/// What happens besides changes of the disk.
#[derive(Clone, Debug)]
enum Mark {
    /// The store is about to make these writes durable.
    Commit(Vec<Write>),
    /// Somebody was told that this repository has this layer or image.
    Acknowledged(&'static str, Digest),
    /// Somebody began to take it away again.
    Deleted(&'static str, Digest),
}

type Disk = SimulatedDisk<Mark>;
type Kept = BTreeMap<(&'static str, String), Vec<u8>>;

/// A store whose commits are marked among the steps of the disk.
struct MarkingJournal {
    disk: Arc<Disk>,
    revision: Revision,
    kept: Kept,
}

impl Journal for MarkingJournal {
    fn load(&mut self, each: &mut dyn FnMut(&str, &str, &[u8])) -> Result<Revision, JournalError> {
        self.kept.iter().for_each(|((kind, key), value)| each(kind, key, value));
        Ok(self.revision)
    }
    fn append(&mut self, batch: &[Write], _: Revision) -> Result<Revision, JournalError> {
        self.disk.mark(Mark::Commit(batch.to_vec()));
        keep(&mut self.kept, batch);
        self.revision += 1;
        Ok(self.revision)
    }
}

fn keep(kept: &mut Kept, batch: &[Write]) {
    for write in batch {
        match write.clone() {
            Write::Put { kind, key, value } => drop(kept.insert((kind, key), value)),
            Write::Delete { kind, key } => drop(kept.remove(&(kind, key))),
        }
    }
}

fn scope() -> Scope {
    Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}

fn open(disk: &Arc<Disk>, kept: Kept) -> Arc<Registry> {
    let kinds = Kinds::new().durable::<Repository>().durable::<Image>().durable::<ImageTag>().durable::<Layer>();
    let store = Store::open(MarkingJournal { disk: disk.clone(), revision: 0, kept }, kinds).unwrap();
    Registry::open_on(disk.clone(), &disk.root().join("registry"), store, Clock::system()).unwrap()
}

/// Bytes that no two seeds share, and that are no zeros.
fn layer(seed: u8) -> Vec<u8> {
    (0..900 + usize::from(seed)).map(|index| ((index % 251) as u8 ^ seed) | 1).collect()
}

fn manifest(layers: &[u8]) -> Vec<u8> {
    let descriptor =
        |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": Hasher::of(bytes), "size": bytes.len()});
    let layers: Vec<_> =
        layers.iter().map(|seed| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer(*seed))).collect();
    let config = descriptor("application/vnd.oci.image.config.v1+json", &layer(1));
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_types::OCI_MANIFEST, "config": config, "layers": layers});
    manifest.to_string().into_bytes()
}

/// Somebody who pushes.
struct Client<'a> {
    disk: &'a Disk,
    registry: &'a Arc<Registry>,
}

impl Client<'_> {
    async fn begin(&self, repository: &str) -> UploadId {
        self.registry.uploads().begin(&repository_key(&scope(), repository)).await.unwrap()
    }

    async fn append(&self, repository: &str, id: &UploadId, bytes: &[u8]) {
        let uploads = self.registry.uploads();
        uploads.append(&repository_key(&scope(), repository), id, None, None, body_of(bytes.to_vec())).await.unwrap();
    }

    async fn finish(&self, repository: &'static str, id: &UploadId, digest: &Digest) -> Result<(), RegistryError> {
        self.registry.finish_upload(&scope(), repository, id, Some(digest)).await?;
        self.disk.mark(Mark::Acknowledged(repository, digest.clone()));
        Ok(())
    }

    /// Pushes a layer in chunks of this size.
    async fn push(&self, repository: &'static str, seed: u8, chunk: usize) {
        let id = self.begin(repository).await;
        for bytes in layer(seed).chunks(chunk) {
            self.append(repository, &id, bytes).await;
        }
        self.finish(repository, &id, &Hasher::of(&layer(seed))).await.unwrap();
    }

    async fn push_image(&self, repository: &'static str, layers: &[u8]) -> Digest {
        let manifest = manifest(layers);
        let digest = Hasher::of(&manifest);
        let put = PutImage { manifest: manifest.into(), media_type: None, digest: None, tag: Some("latest".into()) };
        self.registry.put_image(&scope(), repository, put).await.unwrap();
        self.disk.mark(Mark::Acknowledged(repository, digest.clone()));
        digest
    }
}

/// A day of a registry: whole and chunked pushes, at once and again, an image, its end, a sweep, an unfinished upload.
async fn live(disk: &Arc<Disk>, registry: &Arc<Registry>) {
    for name in ["a", "b"] {
        let repository = Repository {
            scope: scope(),
            name: name.to_owned(),
            created: Clock::system().now(),
            mutability: Default::default(),
            tags: Default::default(),
            policy: None,
        };
        let put = |tx: &mut store::Transaction| {
            tx.put(repository);
            Ok::<_, ()>(())
        };
        registry.store.transact(put).await.unwrap();
    }
    let client = Client { disk, registry };
    let unfinished = client.begin("a").await;
    client.append("a", &unfinished, &layer(9)[..500]).await;
    client.push("a", 1, 2000).await;
    tokio::join!(client.push("a", 2, 400), client.push("b", 3, 300), client.push("b", 2, 500));
    let image = client.push_image("a", &[2]).await;
    client.push("b", 2, 1000).await;
    disk.mark(Mark::Deleted("a", image.clone()));
    registry.delete_image(&scope(), "a", &ImageReference::Digest(image)).await.unwrap();
    for (repository, seed) in [("a", 1), ("b", 3)] {
        let digest = Hasher::of(&layer(seed));
        disk.mark(Mark::Deleted(repository, digest.clone()));
        registry.delete_layer(&scope(), repository, &digest).await.unwrap();
    }
    let now = std::time::Duration::ZERO;
    let later = std::time::Duration::from_secs(60);
    assert_eq!(registry.sweep(Grace { uploads: later, layers: later, blobs: now }).await.unwrap().blobs, 3);
    client.push("a", 1, 700).await;
    client.push_image("a", &[1, 2]).await;
    client.append("a", &unfinished, &layer(9)[500..700]).await;
    let cancelled = client.begin("b").await;
    client.append("b", &cancelled, b"x").await;
    registry.uploads().cancel(&repository_key(&scope(), "b"), &cancelled).await.unwrap();
}

/// What the store has, and what was promised, after these steps.
fn known(steps: &[Step<Mark>], mut kept: Kept) -> (Kept, Vec<(&'static str, Digest)>) {
    let mut promised = Vec::new();
    for step in steps {
        match step {
            Step::Mark(Mark::Commit(batch)) => keep(&mut kept, batch),
            Step::Mark(Mark::Acknowledged(repository, digest)) => promised.push((*repository, digest.clone())),
            Step::Mark(Mark::Deleted(repository, digest)) => {
                promised.retain(|(of, known)| (*of, known) != (*repository, digest));
            }
            _ => {}
        }
    }
    (kept, promised)
}

async fn content(registry: &Registry, digest: &Digest) -> Option<Vec<u8>> {
    let blob = registry.open_blob(digest).await.ok()?;
    let mut content = vec![0; usize::try_from(blob.size()).unwrap()];
    assert_eq!(blob.read(0, &mut content).unwrap(), content.len());
    Some(content)
}

/// Says what is wrong with a registry that was found after a power cut: an answer that it gives must be true.
async fn wrong(registry: &Registry, promised: &[(&'static str, Digest)]) -> Option<String> {
    let snapshot = registry.snapshot();
    let layers = snapshot.list::<Layer>("").map(|layer| (layer.repository.clone(), layer.digest.clone()));
    let images = snapshot.list::<Image>("").map(|image| (image.repository.clone(), image.digest.clone()));
    let there: Vec<_> = layers.chain(images).collect();
    for (repository, digest) in &there {
        match content(registry, digest).await {
            None => return Some(format!("{repository} refers to {digest}, which is missing")),
            Some(found) if Hasher::of(&found) != *digest => {
                return Some(format!("{repository} refers to {digest}, which is damaged"));
            }
            Some(_) => {}
        }
    }
    let lost =
        promised.iter().find(|(repository, digest)| !there.contains(&((*repository).to_owned(), digest.clone())));
    lost.map(|(repository, digest)| format!("{digest} of {repository} was acknowledged and is not there"))
}

fn lucks(random: &mut StdRng) -> [Luck<'_>; 3] {
    [Luck::Bad, Luck::Good, Luck::Mixed(random)]
}

/// One life on an empty disk, which may lie.
async fn first_life(lie: Lie) -> Arc<Disk> {
    let disk = Arc::new(Disk::new(lie));
    let registry = open(&disk, Kept::new());
    live(&disk, &registry).await;
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_blobs_survive_a_power_cut_at_any_moment() {
    let disk = first_life(Lie::None).await;
    let steps = disk.steps();
    let mut random = StdRng::seed_from_u64(1);
    let (mut cuts_with_promises, mut continued) = (0, 0);
    let begun = steps.iter().position(|step| matches!(step, Step::Mark(_))).unwrap();
    for cut in (0..begun).step_by(20).chain(begun..=steps.len()) {
        let (kept, promised) = known(&steps[..cut], Kept::new());
        cuts_with_promises += usize::from(!promised.is_empty());
        for luck in lucks(&mut random) {
            let disk = Arc::new(disk.after_power_cut(cut, luck));
            let before = disk.steps().len();
            let registry = open(&disk, kept.clone());
            assert_eq!(wrong(&registry, &promised).await, None, "cut at {cut}: {:?}", steps.get(cut));
            continued += usize::from(go_on(&disk, &registry).await);
            // The power goes once more, somewhere in the second life.
            drop(registry);
            let later = disk.steps();
            let again = before + StdRng::seed_from_u64(cut as u64).random_range(0..=later.len() - before);
            let (kept, mut both) = known(&later[..again], kept.clone());
            both.extend(promised.iter().cloned());
            let disk = Arc::new(disk.after_power_cut(again, Luck::Bad));
            assert_eq!(wrong(&open(&disk, kept), &both).await, None, "cut at {cut}, then at {again} of {later:?}");
        }
    }
    assert!(cuts_with_promises > 50 && continued > 50, "{cuts_with_promises}, {continued}");
}

/// What clients do after a power cut: they push what they were not told of again, and go on with their uploads. Whether
/// the unfinished one could be finished.
async fn go_on(disk: &Arc<Disk>, registry: &Arc<Registry>) -> bool {
    let client = Client { disk, registry };
    let repositories: Vec<String> = registry.snapshot().list::<Repository>("").map(|it| it.name.clone()).collect();
    if repositories.iter().any(|name| name == "a") {
        // What a crash left under this name is no excuse.
        for seed in [1, 2] {
            client.push("a", seed, 600).await;
            assert_eq!(content(registry, &Hasher::of(&layer(seed))).await, Some(layer(seed)));
        }
        client.push_image("a", &[1, 2]).await;
    }
    let mut finished = false;
    for entry in std::fs::read_dir(disk.root().join("registry/uploads")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(id) = name.get(..36).and_then(UploadId::parse) else { continue };
        let Ok(size) = registry.uploads().size(&repository_key(&scope(), "a"), &id).await else { continue };
        let (whole, size) = (layer(9), usize::try_from(size).unwrap());
        if !repositories.iter().any(|name| name == "a") || size > whole.len() {
            continue;
        }
        client.append("a", &id, &whole[size..]).await;
        // Its bytes may be lost, but nobody is told that they are there.
        match client.finish("a", &id, &Hasher::of(&whole)).await {
            Ok(()) => finished |= content(registry, &Hasher::of(&whole)).await.as_ref() == Some(&whole),
            Err(error) => assert!(matches!(error, RegistryError::DigestInvalid(_)), "{error}"),
        }
    }
    assert_eq!(wrong(registry, &[]).await, None);
    finished
}

/// These tests can fail: without either kind of sync they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_sync_loses_blobs() {
    for (lie, how) in [(Lie::Files, "is damaged"), (Lie::Directories, "is missing")] {
        let disk = first_life(lie).await;
        let steps = disk.steps();
        let (kept, promised) = known(&steps, Kept::new());
        assert_eq!(promised.len(), 5);
        let mut seen = Vec::new();
        for random in 0..20 {
            let luck = &mut StdRng::seed_from_u64(random);
            let disk = Arc::new(disk.after_power_cut(steps.len(), Luck::Mixed(luck)));
            seen.extend(wrong(&open(&disk, kept.clone()), &promised).await);
        }
        assert!(seen.iter().any(|what| what.ends_with(how)), "{lie:?}: {seen:?}");
    }
}

/// The kernel tells of bytes that it could not write only once: to whoever syncs first, which may be the write-back
/// while the bytes still come in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_could_not_be_written_are_no_blob() {
    let disk = Arc::new(Disk::new(Lie::None));
    let registry = open(&disk, Kept::new());
    live(&disk, &registry).await;
    let client = Client { disk: &disk, registry: &registry };
    let large: Vec<u8> = (0..40_u32 << 20).map(|index| (index >> 8) as u8).collect();
    let digest = Hasher::of(&large);
    let unfinished = std::fs::read_dir(disk.root().join("registry/uploads")).unwrap().count();
    let id = client.begin("a").await;
    disk.fail(true);
    client.append("a", &id, &large).await;
    assert!(matches!(client.finish("a", &id, &digest).await, Err(RegistryError::Storage(_))));
    assert!(matches!(registry.layer(&scope(), "a", &digest), Err(RegistryError::LayerNotFound { .. })));
    assert_eq!(std::fs::read_dir(disk.root().join("registry/uploads")).unwrap().count(), unfinished);
    // And small ones, of which the first to hear is the sync before they become blobs.
    disk.fail(true);
    let id = client.begin("a").await;
    client.append("a", &id, b"small").await;
    assert!(matches!(client.finish("a", &id, &Hasher::of(b"small")).await, Err(RegistryError::Storage(_))));
    let id = client.begin("a").await;
    client.append("a", &id, &large).await;
    client.finish("a", &id, &digest).await.unwrap();
    assert_eq!(content(&registry, &digest).await, Some(large));
}
