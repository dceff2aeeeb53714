//! Images that nobody uses any more, and those that must stay.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use runtime::CacheBounds;
use tar::EntryType::Regular;

use crate::images::{HOST, pull, request, store};
use crate::registry::{Packing, Server, layer};
use crate::world::World;

const NOTHING: CacheBounds = CacheBounds { unused_for: Duration::ZERO, bytes: u64::MAX, free: 0 };
const EVERYTHING: CacheBounds = CacheBounds { unused_for: Duration::from_secs(3600), bytes: u64::MAX, free: 0 };

pub async fn unused_images_are_collected(world: World) {
    let server = Server::start();
    let base = || layer(Packing::Gzip, &[(Regular, "base", b"x", 0o644, 0)]);
    let own = |name: &str| layer(Packing::Gzip, &[(Regular, name, b"x", 0o644, 0)]);
    let root = world.directory.join("store");
    let store = store(&root);
    server.put("a", HOST, &[base(), own("a")]);
    server.put("b", HOST, &[base(), own("b")]);
    let a = pull(&store, request(&server.name("app:a"))).await.unwrap();
    let b = pull(&store, request(&server.name("app:b"))).await.unwrap();
    assert_eq!(a.layers[0], b.layers[0]);
    assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), 3);
    // The tag moves on while `a` still runs.
    server.put("a", HOST, &[base(), own("a2")]);
    let moved = pull(&store, request(&server.name("app:a"))).await.unwrap();
    let (gone, reference) = ([b.layers[1].clone(), moved.layers[1].clone()], b.reference.clone());
    let report = store.gc(&HashSet::new(), &NOTHING).unwrap();
    assert_eq!((report.images, report.layers), (0, 0), "all of them are held: {report:?}");
    drop((b, moved));
    let report = store.gc(&HashSet::new(), &NOTHING).unwrap();
    assert_eq!((report.images, report.layers), (2, 2), "{report:?}");
    assert!(a.layers.iter().all(|layer| layer.is_dir()) && gone.iter().all(|layer| !layer.exists()));
    assert_eq!(store.lookup(&reference), None);
    // After a restart nobody holds it, but it is known to be in use.
    let (layers, keep) = (a.layers.clone(), HashSet::from([a.digest.clone()]));
    drop(a);
    let report = store.gc(&keep, &NOTHING).unwrap();
    assert_eq!((report.images, report.layers), (0, 0), "{report:?}");
    assert!(store.exactly(&request(&server.name("app:a")).reference, keep.iter().next().unwrap()).is_some());
    let report = store.gc(&HashSet::new(), &EVERYTHING).unwrap();
    assert_eq!((report.images, report.layers, report.deferred), (0, 2, false), "nothing refers to it");
    assert!(layers.iter().all(|layer| !layer.exists()));
    assert_eq!(fs::read_dir(root.join("staging")).unwrap().count(), 0);
    // While something is pulled, content stays.
    let (_, digests) =
        server.put("slow", HOST, &[layer(Packing::Plain, &[(Regular, "s", &vec![1; 1_000_000], 0o644, 0)])]);
    server.content.lock().unwrap().slow.insert(format!("/v2/app/blobs/{}", digests[0]), Duration::from_millis(50));
    let pulling = tokio::spawn({
        let (store, request) = (Arc::clone(&store), request(&server.name("app:slow")));
        async move { pull(&store, request).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(store.gc(&HashSet::new(), &NOTHING).unwrap().deferred);
    let image = pulling.await.unwrap();
    assert!(image.layers[0].join("s").exists());
}

pub async fn unused_images_are_kept_within_bounds(world: World) {
    let server = Server::start();
    let root = world.directory.join("store");
    let store = store(&root);
    let base = || layer(Packing::Plain, &[(Regular, "base", &vec![7; 1_000_000], 0o644, 0)]);
    for tag in ["one", "two", "three"] {
        server.put(tag, HOST, &[base(), layer(Packing::Plain, &[(Regular, tag, &vec![1; 1_000_000], 0o644, 0)])]);
        pull(&store, request(&server.name(&format!("app:{tag}")))).await.unwrap();
    }
    let there = |store: &runtime::ImageStore| {
        let mut tags: Vec<_> = store.images().into_iter().filter_map(|image| image.reference.tag).collect();
        tags.sort();
        tags
    };
    // Used again: now `two` is the one unused for longest.
    let mut again = request(&server.name("app:one"));
    again.missing_only = true;
    pull(&store, again).await.unwrap();
    // The common layer counts once: four megabytes in all.
    store.gc(&HashSet::new(), &CacheBounds { bytes: 4_100_000, ..EVERYTHING }).unwrap();
    assert_eq!(there(&store), ["one", "three", "two"]);
    store.gc(&HashSet::new(), &CacheBounds { bytes: 3_100_000, ..EVERYTHING }).unwrap();
    assert_eq!(there(&store), ["one", "three"]);
    assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), 3);
    // A disk that is too full: all that can go goes, an image in use does not.
    let held = store.images().into_iter().find(|image| image.reference.tag.as_deref() == Some("three"));
    store.gc(&HashSet::new(), &CacheBounds { free: u64::MAX, ..EVERYTHING }).unwrap();
    assert_eq!(there(&store), ["three"]);
    assert!(held.is_some_and(|image| image.layers.iter().all(|layer| layer.is_dir())));
}
