//! The face from outside, by the specification's own list: pull, push, discovery, management, and what is refused.

mod faults;
mod management;
mod pull;
mod push;
mod refused;

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    Clock, Scope,
    instances::{ImageLayer, MachineImage},
    repositories::{Digest, Image, ImageTag, Layer, Repository, TagMutability},
};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Full;
use iam::{AccessKey, Authority, Principal, SealingKey};
use serde_json::{Value, json};
use store::{Kinds, Store};

use super::*;
use crate::{Hasher, media_types};

/// A registry with the repositories `demo` and `other/repo`, and somebody who may use them.
struct Fixture {
    directory: tempfile::TempDir,
    registry: Arc<Registry>,
    authority: Authority,
    scope: Scope,
    token: String,
}

/// A response, read to its end.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status, the error's code and its text.
    fn error(&self) -> (u16, String, String) {
        let error = &self.json()["errors"][0];
        let text = |member: &str| error[member].as_str().unwrap().to_owned();
        (self.status.as_u16(), text("code"), text("message"))
    }
}

fn kinds() -> Kinds {
    Kinds::new()
        .durable::<Repository>()
        .durable::<Image>()
        .durable::<ImageTag>()
        .durable::<Layer>()
        .durable::<MachineImage>()
}

fn open(directory: &Path) -> Arc<Registry> {
    let store = Store::open(store::embedded::open(&directory.join("store")).unwrap(), kinds()).unwrap();
    Registry::open(&directory.join("blobs"), store, Clock::system()).unwrap()
}

impl Fixture {
    async fn new() -> Self {
        Self::with(TagMutability::default()).await
    }

    async fn with(mutability: TagMutability) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = open(directory.path());
        Self::on(directory, registry, mutability).await
    }

    async fn on(directory: tempfile::TempDir, registry: Arc<Registry>, mutability: TagMutability) -> Self {
        let scope = Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() };
        let key = AccessKey { access_key_id: "AKIAROOT".into(), secret_access_key: "secret".into() };
        let authority = Authority::new(scope.account.clone(), key.clone(), key, SealingKey::new(&[7; 32]).unwrap());
        let principal = Principal::Root { account: scope.account.clone() };
        let (token, _) = authority.issue_registry_token(&principal, &scope.account, Clock::system().now()).unwrap();
        for name in ["demo", "other/repo"] {
            let repository = Repository {
                scope: scope.clone(),
                name: name.to_owned(),
                created: Clock::system().now(),
                mutability: mutability.clone(),
                tags: Default::default(),
                policy: None,
            };
            let put = |tx: &mut store::Transaction| {
                tx.put(repository);
                Ok::<_, ()>(())
            };
            registry.store.transact(put).await.unwrap();
        }
        Self { directory, registry, authority, scope, token }
    }

    /// The same data after a restart of the server.
    fn restart(self) -> Self {
        let Self { directory, registry, authority, scope, token } = self;
        drop(Arc::into_inner(registry).expect("nobody else holds the registry"));
        Self { registry: open(directory.path()), directory, authority, scope, token }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let body = body.into();
        let authorization = format!("Basic {}", STANDARD.encode(format!("AWS:{}", self.token)));
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost:4580");
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", authorization);
        }
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            request = request.header("content-length", body.len());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.exchange(request.body(Full::new(body)).unwrap()).await
    }

    async fn exchange<B>(&self, request: Request<B>) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let response = handle(&self.registry, &self.authority, &self.scope, request).await;
        let (parts, body) = response.into_parts();
        Reply { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], "").await
    }

    async fn head(&self, path: &str) -> Reply {
        self.send(Method::HEAD, path, &[], "").await
    }

    /// Pushes a blob in one request.
    async fn push_blob(&self, name: &str, content: &'static [u8]) -> Digest {
        let digest = Hasher::of(content);
        let reply = self.send(Method::POST, &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], content).await;
        assert_eq!(reply.status, StatusCode::CREATED);
        digest
    }

    /// Pushes an image of one layer, and returns its digest.
    async fn push_image(&self, name: &str, reference: &str, content: &'static [u8]) -> Digest {
        let config = self.push_blob(name, b"{}").await;
        let layer = self.push_blob(name, content).await;
        let manifest = image(&[(&config, 2), (&layer, content.len())]);
        let reply = self.put_manifest(name, reference, &manifest).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
        reply.header("docker-content-digest").parse().unwrap()
    }

    async fn put_manifest(&self, name: &str, reference: &str, manifest: &Value) -> Reply {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send(Method::PUT, &path, &[("content-type", media_type)], manifest.to_string()).await
    }
}

/// An OCI image manifest: the config, then the layers.
fn image(parts: &[(&Digest, usize)]) -> Value {
    let mut descriptors = parts.iter().map(
        |(digest, size)| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}),
    );
    let mut config = descriptors.next().unwrap();
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let layers: Vec<Value> = descriptors.collect();
    json!({"schemaVersion": 2, "mediaType": media_types::OCI_MANIFEST, "config": config, "layers": layers})
}
