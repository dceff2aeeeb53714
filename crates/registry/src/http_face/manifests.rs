//! `/v2/{name}/manifests/{reference}`.

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{
    Answer, Exchange,
    answer::{CONTENT_DIGEST, OCI_SUBJECT, Refusal, empty, json, set},
};
use crate::{
    ImageReference, MAX_MANIFEST_BYTES, ManifestError, PutImage, RegistryError, RequestBody, images, media_types,
};

impl Exchange<'_> {
    pub(super) async fn get_manifest(&self, reference: &Option<ImageReference>) -> Answer {
        self.authorise("ecr:BatchGetImage")?;
        let repository = self.repository();
        let reference = reference.as_ref().ok_or(RegistryError::ImageNotFound);
        repository?;
        let image = images::find(&self.registry.snapshot(), self.scope, &self.name, reference?)?;
        if !self.accepts(&image.media_type) {
            let kind = if media_types::is_index(&image.media_type) { "image index" } else { "image manifest" };
            let text =
                format!("The {kind} has the media type '{}', which the client does not accept", image.media_type);
            return Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", text));
        }
        let mut response = if self.is_head() {
            let mut response = empty(StatusCode::OK);
            set(&mut response, header::CONTENT_LENGTH, &image.manifest_size.to_string());
            set(&mut response, header::CONTENT_TYPE, &image.media_type);
            response
        } else {
            json(StatusCode::OK, &image.media_type, self.registry.manifest(&image).await?)
        };
        set(&mut response, CONTENT_DIGEST, image.digest.as_str());
        set(&mut response, header::ETAG, &format!("\"{}\"", image.digest));
        Ok(response)
    }

    pub(super) async fn put_manifest(&self, reference: &Option<ImageReference>, body: RequestBody) -> Answer {
        self.authorise("ecr:PutImage")?;
        self.repository()?;
        let (tag, digest) = match reference {
            Some(ImageReference::Tag(tag)) => (Some(tag.clone()), None),
            Some(ImageReference::Digest(digest)) => (None, Some(digest.clone())),
            None => {
                let reference = self.parts.uri.path().rsplit('/').next().unwrap_or_default();
                return Err(RegistryError::TagInvalid(reference.chars().take(160).collect()).into());
            }
        };
        let media_type = self.parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let put = PutImage { manifest: read(body).await?, media_type: media_type.map(str::to_owned), digest, tag };
        let put = self.registry.put_image(self.scope, &self.name, put).await?;
        let mut response = empty(StatusCode::CREATED);
        set(&mut response, header::LOCATION, &format!("/v2/{}/manifests/{}", self.name, put.image.digest));
        set(&mut response, CONTENT_DIGEST, put.image.digest.as_str());
        if let Some(subject) = &put.image.subject {
            set(&mut response, OCI_SUBJECT, subject.as_str());
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(&self, reference: &Option<ImageReference>) -> Answer {
        self.authorise("ecr:BatchDeleteImage")?;
        self.repository()?;
        let reference = reference.as_ref().ok_or(RegistryError::ImageNotFound)?;
        self.registry.delete_image(self.scope, &self.name, reference).await?;
        Ok(empty(StatusCode::ACCEPTED))
    }

    /// Whether the client takes a media type: one that says nothing takes everything.
    fn accepts(&self, media_type: &str) -> bool {
        let mut said = false;
        for value in self.parts.headers.get_all(header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default();
                if kind.is_empty() {
                    continue;
                }
                said = true;
                let refused = parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
                if !refused && (kind == media_type || kind == "*/*" || kind == "application/*") {
                    return true;
                }
            }
        }
        !said
    }
}

async fn read(body: RequestBody) -> Result<Bytes, Refusal> {
    match Limited::new(body, MAX_MANIFEST_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(RegistryError::from(ManifestError::TooLarge).into()),
        Err(error) => Err(RegistryError::Body(error.to_string()).into()),
    }
}
