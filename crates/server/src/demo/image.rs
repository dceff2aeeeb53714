//! The demo's image: one layer with one static program, built here and pushed through the registry's own API.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{aws::Client, data_directory::Settings, supervisor::Error};

/// The program, built by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(env!("WHOAMI"));
/// The repository that the demo pushes to.
pub const REPOSITORY: &str = "longshore-demo";

/// An image, ready to be pushed.
pub struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    /// The manifest's digest.
    pub digest: String,
}

impl Image {
    /// How many bytes are pushed.
    pub fn size(&self) -> usize {
        self.layer.len() + self.config.len() + self.manifest.len()
    }
}

/// Builds the image. The same program gives the same digest.
pub fn build() -> Result<Image, Error> {
    let archive = archive()?;
    let diff_id = digest(&archive);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&archive)?;
    let layer = gzip.finish()?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/whoami"], "ExposedPorts": { "80/tcp": {} } },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    }))?;
    let descriptor = |media_type: &str, content: &[u8]| -> Value {
        json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
    };
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    }))?;
    let digest = digest(&manifest);
    Ok(Image { layer, config, manifest, digest })
}

fn archive() -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut entry = tar::Header::new_gnu();
    entry.set_size(PROGRAM.len() as u64);
    entry.set_mode(0o755);
    entry.set_cksum();
    archive.append_data(&mut entry, "whoami", PROGRAM)?;
    archive.into_inner()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// Creates the repository and pushes the image as `docker push` does. Gives the image's name for a task definition.
pub async fn push(client: &Client, settings: &Settings, image: &Image) -> Result<String, Error> {
    let input =
        api::ecr::CreateRepositoryRequest { repository_name: Some(REPOSITORY.to_owned()), ..Default::default() };
    let created: Result<api::ecr::CreateRepositoryResponse, _> =
        client.call(&api::ecr::operation::CREATE_REPOSITORY, &input).await;
    match created {
        Err(error) if error.code() != "RepositoryAlreadyExistsException" => return Err(error.into()),
        _ => {}
    }
    let tokens: api::ecr::GetAuthorizationTokenResponse = client
        .call(&api::ecr::operation::GET_AUTHORIZATION_TOKEN, &api::ecr::GetAuthorizationTokenRequest::default())
        .await?;
    let token = tokens.authorization_data.and_then(|data| data.into_iter().next()?.authorization_token);
    let token = token.ok_or("the registry gave no token")?;
    STANDARD.decode(&token).map_err(|_| "the registry's token is not base64")?;
    let registry = Pusher { client, authorization: format!("Basic {token}") };
    registry.blob(&image.layer).await?;
    registry.blob(&image.config).await?;
    registry.manifest(&image.manifest, "latest").await?;
    Ok(format!("{}.dkr.ecr.{}.amazonaws.com/{REPOSITORY}:latest", settings.account, settings.region))
}

struct Pusher<'a> {
    client: &'a Client,
    authorization: String,
}

impl Pusher<'_> {
    async fn blob(&self, content: &[u8]) -> Result<(), Error> {
        let digest = digest(content);
        let head = self.send(Method::HEAD, &format!("/v2/{REPOSITORY}/blobs/{digest}"), &[], "").await?;
        if head.status() == StatusCode::OK {
            return Ok(());
        }
        let begun = self.send(Method::POST, &format!("/v2/{REPOSITORY}/blobs/uploads/"), &[], "").await?;
        let location = begun.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or_else(|| refused("an upload", &begun))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let put = format!("{location}{separator}digest={digest}");
        let done = self.send(Method::PUT, &put, content, "application/octet-stream").await?;
        if done.status() == StatusCode::CREATED { Ok(()) } else { Err(refused("a layer", &done)) }
    }

    async fn manifest(&self, content: &[u8], tag: &str) -> Result<(), Error> {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let done = self.send(Method::PUT, &format!("/v2/{REPOSITORY}/manifests/{tag}"), content, media_type).await?;
        if done.status() == StatusCode::CREATED { Ok(()) } else { Err(refused("the manifest", &done)) }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: &[u8],
        content_type: &str,
    ) -> Result<http::Response<Bytes>, Error> {
        let mut request =
            Request::builder().method(method).uri(target).header(header::AUTHORIZATION, &self.authorization);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        Ok(self.client.send(request.body(Bytes::copy_from_slice(body))?).await?)
    }
}

fn refused(what: &str, response: &http::Response<Bytes>) -> Error {
    let page: String = String::from_utf8_lossy(response.body()).chars().take(500).collect();
    format!("the registry refused {what}: {} {page}", response.status()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_image() {
        assert_eq!(build().unwrap().digest, build().unwrap().digest);
    }
}
