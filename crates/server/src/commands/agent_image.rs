//! The agent as an image for Docker Engine, which `docker load` takes: this very program, `nft`, and the shared libraries
//! of both, all from the running machine, so that nothing is downloaded and the image is of the program's own version.
//!
//! The archive is an OCI image layout with the manifest of older `docker save` beside it, because engines before 25 read
//! only that. The layer is built in memory: it is little more than the program.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{cli::AgentImageArgs, supervisor::Error};

/// What the image is called where nobody names it.
const NAME: &str = "longshore-agent";
/// Where the program is in the image.
const PROGRAM: &str = "usr/bin/longshore";
/// Where administrators' programs may be; shells of other users leave these out.
const PATH: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// What the machine trusts, by the usual names.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
/// Where the image has them.
const OWN_AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
/// As at Amazon's agent: where state, logs and the configuration are mounted.
const DIRECTORIES: [&str; 3] = ["data", "log", "etc/ecs"];

/// Writes the image.
pub fn agent_image(args: &AgentImageArgs) -> Result<(), Error> {
    let image = Image::build()?;
    match &args.file {
        Some(path) => {
            let named = |error: io::Error| format!("{}: {error}", path.display());
            let mut file = File::create(path).map_err(named)?;
            image.write(&mut file).and_then(|()| file.sync_all()).map_err(named)?;
        }
        None if io::stdout().is_terminal() => {
            return Err("the image is an archive and no text: name a file, or pipe it into `docker load`".into());
        }
        None => image.write(&mut io::stdout().lock())?,
    }
    Ok(())
}

struct Image {
    /// Digest → content.
    blobs: BTreeMap<String, Vec<u8>>,
    layer: String,
    config: String,
    index: Value,
}

impl Image {
    fn build() -> Result<Image, Error> {
        let archive = layer(&files()?)?;
        let diff_id = digest(&archive);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&archive)?;
        drop(archive);
        let mut blobs = BTreeMap::new();
        let mut add = |content: Vec<u8>| {
            let (digest, size) = (digest(&content), content.len());
            blobs.insert(digest.clone(), content);
            (digest, size)
        };
        let (layer, layer_size) = add(gzip.finish()?);
        let (config, config_size) = add(serde_json::to_vec(&configuration(&diff_id))?);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let (manifest, manifest_size) = add(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size,
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": layer_size,
            }],
        }))?);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": media_type, "digest": manifest, "size": manifest_size,
                "annotations": {
                    "io.containerd.image.name": format!("docker.io/library/{NAME}:latest"),
                    "org.opencontainers.image.ref.name": "latest",
                },
            }],
        });
        Ok(Image { blobs, layer, config, index })
    }

    fn write(&self, target: &mut dyn Write) -> io::Result<()> {
        let path = |digest: &str| format!("blobs/{}", digest.replacen(':', "/", 1));
        let mut archive = tar::Builder::new(target);
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion": "1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, self.index.to_string().as_bytes())?;
        let older = json!([{
            "Config": path(&self.config), "Layers": [path(&self.layer)], "RepoTags": [format!("{NAME}:latest")],
        }]);
        append(&mut archive, "manifest.json", 0o644, older.to_string().as_bytes())?;
        for (digest, content) in &self.blobs {
            append(&mut archive, path(digest), 0o644, content)?;
        }
        archive.into_inner()?.flush()
    }
}

fn configuration(diff_id: &str) -> Value {
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{PROGRAM}"), "agent"],
            "Env": ["PATH=/usr/sbin:/usr/bin", "LONGSHORE_RUNTIME=docker", "ECS_DATADIR=/data"],
            "Labels": { "org.opencontainers.image.version": env!("CARGO_PKG_VERSION") },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    })
}

/// Path in the image → file on this machine.
fn files() -> Result<BTreeMap<PathBuf, PathBuf>, Error> {
    let program = std::env::current_exe()?;
    let nft = PATH.iter().map(|directory| Path::new(directory).join("nft")).find(|path| path.is_file());
    let nft = nft.ok_or("nft, which the agent calls, is not on this machine: apt-get install nftables")?;
    let libraries = [shared(&program)?, shared(&nft)?].concat();
    let mut files: BTreeMap<PathBuf, PathBuf> =
        libraries.into_iter().filter_map(|path| Some((path.strip_prefix("/").ok()?.to_owned(), path))).collect();
    files.insert(PROGRAM.into(), program);
    files.insert("usr/sbin/nft".into(), nft);
    if let Some(authorities) = AUTHORITIES.iter().find(|path| Path::new(path).is_file()) {
        files.insert(OWN_AUTHORITIES.into(), authorities.into());
    }
    Ok(files)
}

/// The shared libraries that a program is started with, and what loads them; none of one that is linked statically.
fn shared(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("ldd, which says what a program needs, cannot be run: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.success() {
        return listed(&said).map_err(|absent| format!("{}: {absent} is not found", program.display()).into());
    }
    if said.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    Err(format!("ldd {}: {}", program.display(), said.trim()).into())
}

/// What `ldd` lists: `name => path (address)`, or only `path (address)`; the error is a name without a path.
fn listed(said: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in said.lines().map(str::trim) {
        let (name, rest) = line.split_once(" => ").unwrap_or((line, line));
        if rest.starts_with("not found") {
            return Err(name.to_owned());
        }
        let path = rest.split_once(" (").map_or(rest, |(path, _)| path);
        if path.starts_with('/') {
            found.push(path.into());
        }
    }
    Ok(found)
}

/// The same files give the same layer.
fn layer(files: &BTreeMap<PathBuf, PathBuf>) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in DIRECTORIES {
        directory(&mut archive, path, 0o755)?;
    }
    directory(&mut archive, "tmp", 0o1777)?;
    for (target, source) in files {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", source.display()));
        let mode = if target.starts_with("etc") { 0o644 } else { 0o755 };
        append(&mut archive, target, mode, &std::fs::read(source).map_err(named)?)?;
    }
    archive.into_inner()
}

fn directory<W: Write>(archive: &mut tar::Builder<W>, path: &str, mode: u32) -> io::Result<()> {
    let mut entry = tar::Header::new_gnu();
    entry.set_entry_type(tar::EntryType::Directory);
    entry.set_size(0);
    entry.set_mode(mode);
    entry.set_cksum();
    archive.append_data(&mut entry, path, io::empty())
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: impl AsRef<Path>,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut entry = tar::Header::new_gnu();
    entry.set_size(content.len() as u64);
    entry.set_mode(mode);
    entry.set_cksum();
    archive.append_data(&mut entry, path, content)
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_as_ldd_lists_them() {
        let said = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld-linux.so.2 (0x00007f)\n";
        assert_eq!(listed(said), Ok(vec!["/lib/libc.so.6".into(), "/lib64/ld-linux.so.2".into()]));
        assert_eq!(listed("\tstatically linked\n"), Ok(Vec::new()));
        assert_eq!(listed("\tlibx.so.1 => not found\n"), Err("libx.so.1".to_owned()));
    }

    #[test]
    fn the_same_files_give_the_same_layer() {
        let files = [("etc/x".into(), "/proc/version".into())].into();
        assert_eq!(layer(&files).unwrap(), layer(&files).unwrap());
        let absent = [("x".into(), "/nonexistent".into())].into();
        assert!(layer(&absent).unwrap_err().to_string().starts_with("/nonexistent"));
    }
}
