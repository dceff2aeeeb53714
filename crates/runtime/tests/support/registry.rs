//! A registry of a few lines that can misbehave on demand, and makers of images for it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use runtime::Digest;
use tar::EntryType;

/// What the registry holds, counts and gets wrong.
#[derive(Default)]
pub struct Content {
    /// By path, such as `/v2/app/manifests/latest`.
    pub documents: HashMap<String, Vec<u8>>,
    /// Requests by path.
    pub requests: HashMap<String, u32>,
    /// Status and body for a path.
    pub refusals: HashMap<String, (u16, String)>,
    /// Bytes after which a path's first answer is cut off.
    pub cuts: HashMap<String, usize>,
    /// A path that waits so long before each 64 KiB.
    pub slow: HashMap<String, std::time::Duration>,
    /// `Authorization` that `/v2/` takes; the token service gives it out for the second one.
    pub bearer: Option<(String, String)>,
}

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub content: Arc<Mutex<Content>>,
}

impl Server {
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn on(listener: TcpListener) -> Self {
        let server = Self { address: listener.local_addr().unwrap(), content: Arc::default() };
        let content = Arc::clone(&server.content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = Arc::clone(&content);
                std::thread::spawn(move || serve(stream, &content));
            }
        });
        server
    }

    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    pub fn count(&self, digest: &Digest) -> u32 {
        self.content
            .lock()
            .unwrap()
            .requests
            .iter()
            .filter(|(path, _)| path.ends_with(&digest.to_string()))
            .map(|(_, count)| count)
            .sum()
    }

    /// Puts an image of these layers under `app:tag`; returns the digest of its manifest and those of its layers.
    pub fn put(&self, tag: &str, platform: (&str, &str), layers: &[Layer]) -> (Digest, Vec<Digest>) {
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config = serde_json::json!({"os": platform.0, "architecture": platform.1, "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Cmd": ["/bin/sh"], "Env": ["FROM=image"], "User": "app", "WorkingDir": "/home/app", "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT"}});
        let config = serde_json::to_vec(&config).unwrap();
        let describe = |bytes: &[u8]| serde_json::json!({"mediaType": "application/octet-stream", "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
        let manifest = serde_json::json!({"schemaVersion": 2, "config": describe(&config), "layers": layers.iter().map(|layer| describe(&layer.packed)).collect::<Vec<_>>()});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let mut content = self.content.lock().unwrap();
        for bytes in layers.iter().map(|layer| &layer.packed).chain([&config]) {
            content.documents.insert(format!("/v2/app/blobs/{}", Digest::of(bytes)), bytes.clone());
        }
        let digest = Digest::of(&manifest);
        for name in [tag.to_owned(), digest.to_string()] {
            content.documents.insert(format!("/v2/app/manifests/{name}"), manifest.clone());
        }
        (digest, layers.iter().map(|layer| Digest::of(&layer.packed)).collect())
    }

    pub fn refuse(&self, path: &str, status: u16, body: &str) {
        self.content.lock().unwrap().refusals.insert(path.to_owned(), (status, body.to_owned()));
    }
}

fn serve(stream: TcpStream, content: &Mutex<Content>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut authorization, mut offset) = (None, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            let (name, value) = line.trim().split_once(": ").unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorization = Some(value.to_owned()),
                "range" => offset = value.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap(),
                _ => {}
            }
        }
        let (status, headers, body, cut, slow) = {
            let mut content = content.lock().unwrap();
            *content.requests.entry(path.clone()).or_default() += 1;
            let bearer = content.bearer.clone();
            let plain = path.split('?').next().unwrap_or_default();
            match (bearer, content.refusals.get(&path).cloned(), content.documents.get(&path).cloned()) {
                (Some((token, basic)), _, _) if plain == "/token" => {
                    assert!(path.contains("scope=repository:app:pull") && path.contains("service=here"), "{path}");
                    let good = authorization == Some(basic);
                    (
                        if good { 200 } else { 401 },
                        String::new(),
                        format!(r#"{{"token":"{token}"}}"#).into_bytes(),
                        None,
                        None,
                    )
                }
                (Some((token, _)), _, _) if authorization != Some(format!("Bearer {token}")) => {
                    let challenge = format!(
                        "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"here\",scope=\"repository:app:pull\"\r\n",
                        stream.local_addr().unwrap()
                    );
                    (401, challenge, b"who are you".to_vec(), None, None)
                }
                (_, Some((status, body)), _) => (status, String::new(), body.into_bytes(), None, None),
                (_, _, Some(document)) => {
                    let status = if offset > 0 { 206 } else { 200 };
                    (
                        status,
                        String::new(),
                        document[offset..].to_vec(),
                        content.cuts.remove(&path),
                        content.slow.get(&path).copied(),
                    )
                }
                _ => (404, String::new(), br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#.to_vec(), None, None),
            }
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
        for chunk in body[..cut.unwrap_or(body.len()).min(body.len())].chunks(64 << 10) {
            if let Some(pause) = slow {
                std::thread::sleep(pause);
            }
            if stream.write_all(chunk).is_err() {
                return;
            }
        }
        if cut.is_some() {
            return;
        }
    }
}

/// One layer: its archive's digest and its bytes as a registry has them.
pub struct Layer {
    pub diff_id: String,
    pub packed: Vec<u8>,
}

/// How a layer is packed.
#[derive(Clone, Copy)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// An entry: type, name, content or link target, permissions, owner.
pub type Entry<'a> = (EntryType, &'a str, &'a [u8], u32, u64);

pub fn layer(packing: Packing, entries: &[Entry<'_>]) -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, content, mode, owner) in entries {
        let link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_000_000_000);
        header.set_size(if link { 0 } else { content.len() as u64 });
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if link {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content);
        }
        header.set_cksum();
        builder.append(&header, if link { &b""[..] } else { content }).unwrap();
    }
    let archive = builder.into_inner().unwrap();
    let packed = match packing {
        Packing::Plain => archive.clone(),
        Packing::Gzip => {
            let mut encoder = flate2::read::GzEncoder::new(archive.as_slice(), flate2::Compression::fast());
            let mut packed = Vec::new();
            encoder.read_to_end(&mut packed).unwrap();
            packed
        }
        Packing::Zstd => {
            ruzstd::encoding::compress_to_vec(archive.as_slice(), ruzstd::encoding::CompressionLevel::Fastest)
        }
    };
    Layer { diff_id: Digest::of(&archive).to_string(), packed }
}
