//! Pulling from a registry that others wrote, with an image that others pushed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runtime::{Digest, ImageError};
use tar::EntryType::Regular;

use crate::images::{HOST, pull, request, store};
use crate::registry::{Packing, layer};
use crate::world::{World, eventually};

/// Ends the registry with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn debians_registry(world: World) {
    let tools = ["/usr/bin/docker-registry", "/usr/bin/skopeo"];
    if let Some(missing) = tools.iter().find(|tool| !Path::new(tool).exists()) {
        println!("    not run: {missing} is missing");
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = world.directory.join("registry");
    let config = world.directory.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(tools[0]);
    command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _registry = Ended(command.spawn().unwrap());
    eventually("the registry answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let layout = world.directory.join("layout");
    let digest = write_layout(&layout);
    let name = format!("127.0.0.1:{port}/team/app");
    let status = Command::new(tools[1])
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:v1", layout.display()))
        .arg(format!("docker://{name}:v1"))
        .status()
        .unwrap();
    assert!(status.success(), "skopeo copy");
    let store = store(&world.directory.join("store"));
    let image = pull(&store, request(&format!("{name}:v1"))).await.unwrap();
    assert_eq!(fs::read_to_string(image.layers[0].join("greeting")).unwrap(), "hello");
    assert_eq!(image.digest, digest);
    let absent = pull(&store, request(&format!("{name}:absent"))).await;
    assert!(matches!(absent, Err(ImageError::NotFound { body, .. }) if body.contains("MANIFEST_UNKNOWN")));
}

/// An OCI image layout with one image tagged `v1`.
fn write_layout(directory: &Path) -> Digest {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest.to_string(), "size": bytes.len()})
    };
    let layer = layer(Packing::Gzip, &[(Regular, "greeting", b"hello", 0o644, 0)]);
    let config = serde_json::json!({"os": HOST.0, "architecture": HOST.1, "config": {"Cmd": ["/x"]}, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}});
    let (config, packed) =
        (put(&serde_json::to_vec(&config).unwrap(), "config.v1+json"), put(&layer.packed, "layer.v1.tar+gzip"));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [packed]});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut described = put(&manifest, "manifest.v1+json");
    described["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "v1"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [described]});
    fs::write(directory.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    Digest::of(&manifest)
}
