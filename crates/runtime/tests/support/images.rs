//! Images from a real socket to a running container, and everything a registry or a layer can do wrong.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::{
    ContainerSpec, Endpoint, EphemeralVolume, Helper, Image, ImageError, ImageStore, PullNetwork, PullProgress,
    PullRequest, Reference, RegistryAuth, Rootfs, StoreOptions, UnpackLimits,
};
use tar::EntryType::{Char, Directory, Link, Regular, Symlink};

use crate::registry::{Entry, Packing, Server, layer};
use crate::world::{World, printed};

pub const HOST: (&str, &str) = ("linux", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });

pub fn store(root: &Path) -> Arc<ImageStore> {
    ImageStore::open(StoreOptions {
        root: root.to_path_buf(),
        helper: Helper::current().unwrap(),
        limits: UnpackLimits::default(),
    })
    .unwrap()
}

pub fn request(name: &str) -> PullRequest {
    let mut request = PullRequest::new(name.parse().unwrap());
    request.connect_timeout = Duration::from_secs(2);
    request
}

pub async fn pull(store: &ImageStore, request: PullRequest) -> Result<Image, ImageError> {
    store.pull(request, Arc::new(|_| {})).await
}

/// Nothing half made, and no image either.
fn nothing_visible(root: &Path) {
    for directory in ["images", "layers", "staging"] {
        assert_eq!(fs::read_dir(root.join(directory)).unwrap().count(), 0, "{directory}");
    }
    let partial = fs::read_dir(root.join("ingest"))
        .unwrap()
        .filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".lock"))
        .count();
    assert_eq!(partial, 0, "a partial download");
}

fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").unwrap()
}

pub async fn an_image_is_pulled_and_run(world: World) {
    let server = Server::start();
    let program = busybox();
    let base: Vec<Entry<'_>> = vec![
        (Directory, "./", b"", 0o755, 0),
        (Directory, "usr/bin/", b"", 0o755, 0),
        (Symlink, "bin", b"usr/bin", 0o777, 0),
        (Regular, "usr/bin/busybox", &program, 0o755, 0),
        (Link, "usr/bin/sh", b"usr/bin/busybox", 0o755, 0),
        (Regular, "etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n", 0o644, 0),
        (Regular, "etc/gone", b"x", 0o644, 0),
        (Regular, "old/a", b"x", 0o644, 0),
        (Regular, "old/b", b"x", 0o644, 0),
        (Directory, "home/app/", b"", 0o700, 1000),
        (Directory, "shared/", b"", 0o1777, 7),
    ];
    let second: Vec<Entry<'_>> = vec![
        (Regular, "etc/.wh.gone", b"", 0o644, 0),
        (Regular, "old/.wh..wh..opq", b"", 0o644, 0),
        (Regular, "old/c", b"new", 0o644, 0),
        // The trap: `bin` is a link below.
        (Link, "bin/nothing-yet", b"bin/added", 0o755, 0),
    ];
    let added: Vec<Entry<'_>> = vec![
        (Regular, "bin/added", b"#!/bin/sh\nbusybox echo added\n", 0o755, 0),
        (Regular, "shared/x", b"", 0o4755, 1000),
    ];
    let second: Vec<Entry<'_>> = second[..3].iter().copied().chain(added).chain(second[3..].iter().copied()).collect();
    let layers = [
        layer(Packing::Gzip, &base),
        layer(Packing::Zstd, &second),
        layer(Packing::Plain, &[(Regular, "last", b"last", 0o600, 0)]),
    ];
    let (digest, _) = server.put("v1", HOST, &layers);
    let store = store(&world.directory.join("store"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let image = store
        .pull(request(&server.name("app:v1")), Arc::new(move |progress| note.lock().unwrap().push(progress)))
        .await
        .unwrap();
    assert_eq!((image.digest.clone(), image.index_digest.clone(), image.layers.len()), (digest, None, 3));
    assert_eq!(
        (image.config.user.as_str(), image.config.stop_signal.as_deref(), image.config.exposed_ports.as_slice()),
        ("app", Some("SIGINT"), &["80/tcp".to_owned()][..])
    );
    let seen = seen.lock().unwrap().clone();
    assert!(
        matches!(seen.first(), Some(PullProgress::Resolved { layers: 3, .. }))
            && matches!(seen.last(), Some(PullProgress::Unpacked { layer: 3, layers: 3 })),
        "{seen:?}"
    );
    // On disk: owners, permissions, times, the kernel's whiteouts.
    let at = |layer: usize, path: &str| fs::symlink_metadata(image.layers[layer].join(path)).unwrap();
    assert_eq!(
        (at(0, "home/app").uid(), at(0, "home/app").mode() & 0o7777, at(0, "home/app").mtime()),
        (1000, 0o700, 1_000_000_000)
    );
    assert_eq!(at(0, "usr/bin/sh").ino(), at(0, "usr/bin/busybox").ino());
    assert!(at(1, "etc/gone").file_type().is_char_device() && at(1, "etc/gone").rdev() == 0);
    assert_eq!((at(1, "shared/x").mode() & 0o7777, at(1, "shared/x").uid()), (0o4755, 1000));
    assert_eq!(
        (at(1, "shared").mode() & 0o7777, at(1, "shared").uid()),
        (0o1777, 7),
        "an implied directory looks like the one below"
    );
    assert!(!image.layers[1].join("bin").exists(), "the link below would be hidden");
    // And in a container.
    let runtime = world.runtime().await;
    let rootfs = Rootfs {
        lowers: image.layers.clone(),
        upper: world.directory.join("w/upper"),
        work: world.directory.join("w/work"),
    };
    let mut spec = ContainerSpec::new(
        rootfs,
        vec![
            "/bin/sh".into(),
            "-c".into(),
            "busybox ls /etc /old; added; /bin/nothing-yet; busybox readlink /bin".into(),
        ],
    );
    spec.cgroup_parent = world.cgroup.clone();
    let container = runtime.create("one", spec).await.unwrap();
    container.start().await.unwrap();
    container.wait().await;
    let (out, err) = printed(&container).await;
    assert_eq!(out, "/etc:\npasswd\n\n/old:\nc\nadded\nadded\nusr/bin\n", "{err}");
    let kept = fs::read_dir(world.directory.join("store/blobs")).unwrap().count();
    assert_eq!(kept, 2, "manifest and configuration; layers are not kept twice");
    // Again: nothing is downloaded that is here.
    let before = server
        .content
        .lock()
        .unwrap()
        .requests
        .iter()
        .filter(|(path, _)| path.contains("/blobs/"))
        .map(|(_, count)| count)
        .sum::<u32>();
    assert_eq!(pull(&store, request(&server.name("app:v1"))).await.unwrap(), image);
    let after = server
        .content
        .lock()
        .unwrap()
        .requests
        .iter()
        .filter(|(path, _)| path.contains("/blobs/"))
        .map(|(_, count)| count)
        .sum::<u32>();
    assert_eq!(before, after);
    // And not even asked for, if a local one will do.
    server.content.lock().unwrap().documents.clear();
    assert!(matches!(pull(&store, request(&server.name("app:v1"))).await, Err(ImageError::NotFound { .. })));
    let mut local = request(&server.name("app:v1"));
    local.missing_only = true;
    assert_eq!(pull(&store, local).await.unwrap(), image);
    assert_eq!(self::store(&world.directory.join("store")).lookup(&image.reference), Some(image));
}

pub async fn platforms(world: World) {
    let server = Server::start();
    let one = [layer(Packing::Gzip, &[(Regular, "a", b"x", 0o644, 0)])];
    let (mine, _) = server.put("mine", HOST, &one);
    let (other, _) = server.put("other", ("linux", "s390x"), &one);
    let index = |list: &[(&str, &str)]| {
        let offers: Vec<_> = list.iter().map(|(digest, architecture)| serde_json::json!({"digest": digest, "size": 1, "platform": {"os": "linux", "architecture": architecture}})).collect();
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": offers})).unwrap()
    };
    let (mine_text, other_text) = (mine.to_string(), other.to_string());
    let put = |tag: &str, bytes: Vec<u8>| {
        drop(server.content.lock().unwrap().documents.insert(format!("/v2/app/manifests/{tag}"), bytes))
    };
    put("both", index(&[(&other_text, "s390x"), (&mine_text, HOST.1)]));
    put("foreign", index(&[(&other_text, "s390x")]));
    let store = store(&world.directory.join("store"));
    let image = pull(&store, request(&server.name("app:both"))).await.unwrap();
    assert_eq!(image.digest, mine);
    assert!(image.index_digest.is_some());
    let digest = format!("app@{mine}");
    assert_eq!(pull(&store, request(&server.name(&digest))).await.unwrap().digest, mine);
    for tag in ["foreign", "other"] {
        match pull(&store, request(&server.name(&format!("app:{tag}")))).await {
            Err(ImageError::WrongPlatform { wanted, offered, .. }) => {
                assert_eq!((wanted, offered), (format!("linux/{}", HOST.1), vec!["linux/s390x".to_owned()]))
            }
            other => panic!("{tag}: {other:?}"),
        }
    }
}

pub async fn a_registrys_refusals_are_told_apart(world: World) {
    let server = Server::start();
    let one = [layer(Packing::Gzip, &[(Regular, "a", b"x", 0o644, 0)])];
    let (_, layers) = server.put("v1", HOST, &one);
    let root = world.directory.join("store");
    let store = store(&root);
    let denied = r#"{"errors":[{"code":"DENIED","message":"User: arn:aws:… is not authorized"}]}"#;
    for (tag, status, body) in
        [("forbidden", 403, denied), ("unauthorized", 401, "no"), ("often", 429, "slow down"), ("broken", 500, "oops")]
    {
        server.refuse(&format!("/v2/app/manifests/{tag}"), status, body);
    }
    let get = async |tag: &str| pull(&store, request(&server.name(&format!("app:{tag}")))).await.unwrap_err();
    assert!(matches!(get("forbidden").await, ImageError::Denied { status: 403, body, .. } if body == denied));
    assert!(matches!(get("unauthorized").await, ImageError::Unauthorized { .. }));
    assert!(matches!(get("often").await, ImageError::TooManyRequests { .. }));
    assert!(matches!(get("broken").await, ImageError::Registry { status: 500, .. }));
    assert!(matches!(get("absent").await, ImageError::NotFound { .. }));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    match pull(&store, request(&format!("{nobody}/app:v1"))).await {
        Err(ImageError::Unreachable { detail, .. }) => {
            assert_eq!(detail, format!("dial tcp {nobody}: connect: connection refused"))
        }
        other => panic!("{other:?}"),
    }
    // A manifest that is none, one that lies about its digest, one that names what is not there, a blob that is another.
    let put = |path: &str, bytes: &[u8]| {
        drop(server.content.lock().unwrap().documents.insert(path.to_owned(), bytes.to_vec()))
    };
    put("/v2/app/manifests/nonsense", b"<html>");
    assert!(matches!(get("nonsense").await, ImageError::InvalidManifest { .. }));
    let wrong = format!("sha256:{}", "1".repeat(64));
    put(&format!("/v2/app/manifests/{wrong}"), b"{}");
    assert!(matches!(
        pull(&store, request(&server.name(&format!("app@{wrong}")))).await,
        Err(ImageError::DigestMismatch { .. })
    ));
    let blob = format!("/v2/app/blobs/{}", layers[0]);
    let good = server.content.lock().unwrap().documents.remove(&blob).unwrap();
    assert!(matches!(get("v1").await, ImageError::NotFound { .. }));
    let mut bad = good.clone();
    bad[20] ^= 1;
    put(&blob, &bad);
    assert!(matches!(get("v1").await, ImageError::DigestMismatch { .. }));
    put(&blob, &[good.clone(), vec![0; 10]].concat());
    assert!(matches!(get("v1").await, ImageError::DigestMismatch { .. }));
    nothing_visible(&root);
    put(&blob, &good);
    pull(&store, request(&server.name("app:v1"))).await.unwrap();
}

pub async fn credentials_go_where_they_belong(world: World) {
    let server = Server::start();
    server.put("v1", HOST, &[layer(Packing::Gzip, &[(Regular, "a", b"x", 0o644, 0)])]);
    server.content.lock().unwrap().bearer = Some(("t0ken".to_owned(), "Basic QVdTOnNlY3JldA==".to_owned()));
    let store = store(&world.directory.join("store"));
    assert!(matches!(pull(&store, request(&server.name("app:v1"))).await, Err(ImageError::Unauthorized { .. })));
    let mut known = request(&server.name("app:v1"));
    known.auth = RegistryAuth::Basic { username: "AWS".to_owned(), password: "secret".to_owned() };
    assert!(!format!("{known:?}").contains("secret"));
    pull(&store, known).await.unwrap();
    // A mirror for a name that is elsewhere.
    let mut mirrored = request("123456789012.dkr.ecr.us-east-1.amazonaws.com/app:v1");
    mirrored.auth = RegistryAuth::Basic { username: "AWS".to_owned(), password: "secret".to_owned() };
    mirrored.endpoints = vec![Endpoint {
        registry: "*.dkr.ecr.us-east-1.amazonaws.com".to_owned(),
        url: "http://registry.example:81".to_owned(),
        connect: Some(server.address),
        tls: None,
    }];
    pull(&store, mirrored).await.unwrap();
}

pub async fn hostile_layers_change_nothing(world: World) {
    let server = Server::start();
    let root = world.directory.join("store");
    let store = store(&root);
    let outside = world.directory.join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("file"), "mine").unwrap();
    let link = outside.to_str().unwrap().as_bytes().to_vec();
    let up = [b"../../../../../../../..".as_slice(), &link].concat();
    let cases: Vec<(&str, Vec<Entry<'_>>, &str)> = vec![
        ("absolute", vec![(Regular, "/var/tmp/evil", b"x", 0o644, 0)], "absolute"),
        ("dots", vec![(Regular, "a/../../../evil", b"x", 0o644, 0)], "\"..\""),
        (
            "through-link",
            vec![(Symlink, "door", &link, 0o777, 0), (Regular, "door/evil", b"x", 0o644, 0)],
            "symbolic link",
        ),
        (
            "through-dots",
            vec![(Symlink, "door", &up, 0o777, 0), (Directory, "door/evil/", b"", 0o755, 0)],
            "symbolic link",
        ),
        (
            "whiteout-through-link",
            vec![(Symlink, "door", &link, 0o777, 0), (Regular, "door/.wh.file", b"", 0o644, 0)],
            "symbolic link",
        ),
        ("hard-absolute", vec![(Link, "hard", &link, 0o644, 0)], "hard link"),
        ("hard-dots", vec![(Link, "hard", b"../../outside/file", 0o644, 0)], "hard link"),
        (
            "hard-through-link",
            vec![(Symlink, "door", &link, 0o777, 0), (Link, "hard", b"door/file", 0o644, 0)],
            "hard link",
        ),
        ("device", vec![(Char, "null", b"", 0o666, 0)], "device"),
        ("replaces", vec![(Regular, "d/x", b"", 0o644, 0), (Regular, "d", b"", 0o644, 0)], "directory with content"),
    ];
    for (tag, entries, reason) in &cases {
        server.put(tag, HOST, &[layer(Packing::Gzip, entries)]);
        match pull(&store, request(&server.name(&format!("app:{tag}")))).await {
            Err(ImageError::UnsafeLayer { reason: actual, .. }) => assert!(actual.contains(reason), "{tag}: {actual}"),
            other => panic!("{tag}: {other:?}"),
        }
        nothing_visible(&root);
    }
    // A link of a lower layer is followed inside the image only.
    let below = layer(Packing::Gzip, &[(Symlink, "door", &link, 0o777, 0), (Symlink, "up", b"../../..", 0o777, 0)]);
    let above = layer(Packing::Gzip, &[(Regular, "door/evil", b"x", 0o644, 0), (Regular, "up/inside", b"x", 0o644, 0)]);
    server.put("two", HOST, &[below, above]);
    let image = pull(&store, request(&server.name("app:two"))).await.unwrap();
    assert!(image.layers[1].join("inside").exists());
    assert!(image.layers[1].join(outside.strip_prefix("/").unwrap()).join("evil").exists());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A layer that is no archive, and one whose digest is not the configuration's.
    let mut lying = layer(Packing::Gzip, &[(Regular, "a", b"x", 0o644, 0)]);
    lying.diff_id = format!("sha256:{}", "2".repeat(64));
    server.put("lying", HOST, &[lying]);
    assert!(matches!(pull(&store, request(&server.name("app:lying"))).await, Err(ImageError::DigestMismatch { .. })));
    let mut noise = layer(Packing::Gzip, &[]);
    noise.packed = vec![b'#'; 5000];
    server.put("noise", HOST, &[noise]);
    assert!(matches!(pull(&store, request(&server.name("app:noise"))).await, Err(ImageError::InvalidLayer { .. })));
    // A bomb: a gigabyte of zeros.
    let zeros = vec![0; 80 << 20];
    server.put("bomb", HOST, &[layer(Packing::Gzip, &[(Regular, "a", &zeros, 0o644, 0)])]);
    let strict = ImageStore::open(StoreOptions {
        root: world.directory.join("strict"),
        helper: Helper::current().unwrap(),
        limits: UnpackLimits { ratio: 100, ..UnpackLimits::default() },
    })
    .unwrap();
    assert!(matches!(pull(&strict, request(&server.name("app:bomb"))).await, Err(ImageError::LayerTooLarge { .. })));
    nothing_visible(&world.directory.join("strict"));
}

pub async fn downloads_are_shared_and_continued(world: World) {
    let server = Server::start();
    let random: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let layers = [
        layer(Packing::Plain, &[(Regular, "big", &random, 0o644, 0)]),
        layer(Packing::Gzip, &[(Regular, "a", b"x", 0o644, 0)]),
    ];
    let (_, digests) = server.put("v1", HOST, &layers);
    let path = format!("/v2/app/blobs/{}", digests[0]);
    server.content.lock().unwrap().cuts.insert(path.clone(), 1_000_000);
    server.content.lock().unwrap().slow.insert(path.clone(), Duration::from_millis(5));
    let root = world.directory.join("store");
    let store = store(&root);
    let pulls: Vec<_> = (0..4)
        .map(|_| {
            let (store, request) = (Arc::clone(&store), request(&server.name("app:v1")));
            tokio::spawn(async move { pull(&store, request).await.unwrap() })
        })
        .collect();
    let mut images = Vec::new();
    for pull in pulls {
        images.push(pull.await.unwrap());
    }
    assert!(images.iter().all(|image| *image == images[0]));
    assert!(fs::read(images[0].layers[0].join("big")).unwrap() == random);
    assert_eq!(
        (server.count(&digests[0]), server.count(&digests[1])),
        (2, 1),
        "once cut off and continued; the other once"
    );
}

pub async fn an_interrupted_pull_leaves_nothing(world: World) {
    let server = Server::start();
    let (_, digests) =
        server.put("v1", HOST, &[layer(Packing::Plain, &[(Regular, "big", &vec![7; 2_000_000], 0o644, 0)])]);
    let path = format!("/v2/app/blobs/{}", digests[0]);
    server.content.lock().unwrap().slow.insert(path.clone(), Duration::from_millis(100));
    let root = world.directory.join("store");
    let store = store(&root);
    let given_up =
        tokio::time::timeout(Duration::from_millis(700), pull(&store, request(&server.name("app:v1")))).await;
    assert!(given_up.is_err());
    let mut short = request(&server.name("app:v1"));
    short.timeout = Duration::from_millis(500);
    assert!(matches!(pull(&store, short).await, Err(ImageError::Timeout { .. })));
    assert!(store.images().is_empty());
    drop(store);
    let store = self::store(&root);
    nothing_visible(&root);
    server.content.lock().unwrap().slow.clear();
    pull(&store, request(&server.name("app:v1"))).await.unwrap();
}

pub async fn a_full_disk_is_told(world: World) {
    let server = Server::start();
    let random: Vec<u8> = (0..12_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    server.put("v1", HOST, &[layer(Packing::Plain, &[(Regular, "big", &random, 0o644, 0)])]);
    let mount = world.directory.join("disk");
    let volume = EphemeralVolume::create(&world.directory.join("disk.ext4"), &mount, 20 << 20).unwrap();
    let root = mount.join("store");
    let store = store(&root);
    // Enough for the layer as it comes, not for its content beside it.
    assert!(matches!(pull(&store, request(&server.name("app:v1"))).await, Err(ImageError::NoSpace)));
    nothing_visible(&root);
    fs::write(mount.join("filler"), vec![0; 4 << 20]).unwrap();
    fs::remove_dir_all(root.join("blobs")).unwrap();
    let store = self::store(&root);
    assert!(matches!(pull(&store, request(&server.name("app:v1"))).await, Err(ImageError::NoSpace)));
    nothing_visible(&root);
    volume.remove().unwrap();
}

/// A network namespace that lives as long as a process in it.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let namespace = Self(child);
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        for _ in 0..500 {
            if fs::read_link(namespace.path()).is_ok_and(|theirs| theirs != own) {
                return namespace;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no namespace");
    }

    fn path(&self) -> std::path::PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn ip(&self, arguments: &[&str]) {
        let status = Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .arg("ip")
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success(), "ip {arguments:?}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn a_pull_stays_in_its_network(world: World) {
    let namespace = Namespace::new();
    namespace.ip(&["link", "set", "lo", "up"]);
    namespace.ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    namespace.ip(&["addr", "add", "10.99.0.1/24", "dev", "v0"]);
    for name in ["v0", "v1"] {
        namespace.ip(&["link", "set", name, "up"]);
    }
    // Neighbours that never answer.
    for address in ["10.99.0.9", "10.99.0.53"] {
        namespace.ip(&["neigh", "add", address, "lladdr", "02:00:00:00:00:09", "dev", "v0"]);
    }
    // A thread of its own enters the namespace to listen there.
    let path = namespace.path();
    let listener = std::thread::spawn(move || {
        nix::sched::setns(fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::net::TcpListener::bind("10.99.0.1:80").unwrap()
    });
    let inside = Server::on(listener.join().unwrap());
    inside.put("v1", HOST, &[layer(Packing::Gzip, &[(Regular, "inside", b"x", 0o644, 0)])]);
    let outside = Server::start();
    outside.put("v1", HOST, &[layer(Packing::Gzip, &[(Regular, "outside", b"x", 0o644, 0)])]);
    let store = store(&world.directory.join("store"));
    let network = PullNetwork {
        netns: namespace.path(),
        resolvers: vec!["10.99.0.53".parse().unwrap()],
        hosts: vec![("10.99.0.1".parse().unwrap(), "registry.example".to_owned())],
    };
    let within = |name: &str, url: &str| {
        let mut request = request(name);
        request.network = Some(network.clone());
        if !url.is_empty() {
            request.endpoints = vec![Endpoint {
                registry: request.reference.registry.clone(),
                url: url.to_owned(),
                connect: None,
                tls: None,
            }];
        }
        request
    };
    let image = pull(&store, within("registry.example/app:v1", "http://registry.example")).await.unwrap();
    assert!(image.layers[0].join("inside").exists());
    // The host's loopback is another one.
    assert!(
        matches!(pull(&store, within(&outside.name("app:v1"), "")).await, Err(ImageError::Unreachable { detail, .. }) if detail.contains("connection refused"))
    );
    match pull(&store, within("10.99.0.9:443/app:v1", "")).await {
        Err(ImageError::Timeout { detail, .. }) => assert_eq!(detail, "dial tcp 10.99.0.9:443: i/o timeout"),
        other => panic!("{other:?}"),
    }
    match pull(&store, within("192.0.2.7:443/app:v1", "")).await {
        Err(ImageError::Unreachable { detail, .. }) => {
            assert_eq!(detail, "dial tcp 192.0.2.7:443: connect: network is unreachable")
        }
        other => panic!("{other:?}"),
    }
    match pull(&store, within("elsewhere.example/app:v1", "")).await {
        Err(ImageError::Timeout { detail, .. }) => {
            assert_eq!(detail, "dial tcp: lookup elsewhere.example: i/o timeout")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!("registry.example/app:v1".parse::<Reference>().unwrap(), image.reference);
}
