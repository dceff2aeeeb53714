//! `/v2/{name}/blobs/uploads/`: in one request, in two, or in chunks; mounting from another repository.

use domain::repositories::{Digest, valid_name};
use http::{StatusCode, header};

use super::{
    Answer, Exchange,
    answer::{CONTENT_DIGEST, Refusal, UPLOAD_UUID, empty, set},
    parse,
};
use crate::{RegistryError, RequestBody, UploadId};

const INITIATE: &str = "ecr:InitiateLayerUpload";
const UPLOAD: &str = "ecr:UploadLayerPart";
const COMPLETE: &str = "ecr:CompleteLayerUpload";

impl Exchange<'_> {
    pub(super) async fn begin_upload(&self, body: RequestBody) -> Answer {
        self.authorise(INITIATE)?;
        let repository = self.repository()?;
        let digest = parse::query(&self.parts, "digest").map(|text| digest(&text)).transpose()?;
        let mount = parse::query(&self.parts, "mount").map(|text| self::digest(&text)).transpose()?;
        if let Some(mount) = mount
            && let Some(from) = parse::query(&self.parts, "from").filter(|from| valid_name(from))
            && self.may_read_from(&from)
            && self.registry.mount(self.scope, &self.name, &from, &mount).await?.is_some()
        {
            return Ok(self.created(&mount));
        }
        let id = self.registry.uploads().begin(&repository).await?;
        if let Some(digest) = digest {
            // All in one request: nobody else knows the id, so nothing stays when it fails.
            let outcome = self.complete(&repository, &id, &digest, body).await;
            if outcome.is_err() {
                drop(self.registry.uploads().cancel(&repository, &id).await);
            }
            return outcome;
        }
        Ok(self.progress(StatusCode::ACCEPTED, &id, 0))
    }

    /// Whether a layer of another repository may be had: otherwise the client uploads it, as if it were not there.
    fn may_read_from(&self, from: &str) -> bool {
        ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer"]
            .iter()
            .all(|action| self.access.authorise(action, self.scope, from).is_ok())
    }

    pub(super) async fn upload_status(&self, id: &UploadId) -> Answer {
        self.authorise(UPLOAD)?;
        let size = self.registry.uploads().size(&self.repository()?, id).await?;
        Ok(self.progress(StatusCode::NO_CONTENT, id, size))
    }

    pub(super) async fn append_upload(&self, id: &UploadId, body: RequestBody) -> Answer {
        self.authorise(UPLOAD)?;
        let size = self.append(&self.repository()?, id, body).await?;
        Ok(self.progress(StatusCode::ACCEPTED, id, size))
    }

    pub(super) async fn finish_upload(&self, id: &UploadId, body: RequestBody) -> Answer {
        let digest = match parse::query(&self.parts, "digest") {
            Some(text) => digest(&text)?,
            None => return Err(Refusal::digest("")),
        };
        self.complete(&self.repository()?, id, &digest, body).await
    }

    pub(super) async fn cancel_upload(&self, id: &UploadId) -> Answer {
        self.authorise(UPLOAD)?;
        self.registry.uploads().cancel(&self.repository()?, id).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn complete(&self, repository: &str, id: &UploadId, digest: &Digest, body: RequestBody) -> Answer {
        self.authorise(UPLOAD)?;
        self.authorise(COMPLETE)?;
        self.append(repository, id, body).await?;
        let (layer, _) = self.registry.finish_upload(self.scope, &self.name, id, Some(digest)).await?;
        Ok(self.created(&layer.digest))
    }

    async fn append(&self, repository: &str, id: &UploadId, body: RequestBody) -> Result<u64, Refusal> {
        let header = |name| self.parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let length = header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let mut at = None;
        if let Some(range) = header(header::CONTENT_RANGE) {
            let Some((first, count)) = parse::content_range(range) else {
                let text = "The Content-Range must be '{first}-{last}'";
                return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", text));
            };
            // An empty last request may repeat the range of the whole; it appends nothing.
            if length.is_some_and(|length: u64| length != count) {
                let text = "The Content-Range and the Content-Length differ".to_owned();
                return Err(RegistryError::SizeInvalid(text).into());
            }
            at = Some(first);
        }
        match self.registry.uploads().append(repository, id, at, length, body).await {
            Err(RegistryError::RangeInvalid { offset }) => {
                let refusal = Refusal::from(RegistryError::RangeInvalid { offset });
                Err(refusal.with(header::RANGE, range(offset)).with(header::LOCATION, self.location(id)))
            }
            Err(RegistryError::Storage(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                // What is there of it may be all that fills the disk.
                drop(self.registry.uploads().cancel(repository, id).await);
                Err(RegistryError::Storage(error).into())
            }
            other => Ok(other?),
        }
    }

    fn location(&self, id: &UploadId) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.name, id.as_str())
    }

    fn progress(&self, status: StatusCode, id: &UploadId, size: u64) -> http::Response<super::ResponseBody> {
        let mut response = empty(status);
        set(&mut response, header::LOCATION, &self.location(id));
        set(&mut response, header::RANGE, &range(size));
        set(&mut response, UPLOAD_UUID, id.as_str());
        response
    }

    fn created(&self, digest: &Digest) -> http::Response<super::ResponseBody> {
        let mut response = empty(StatusCode::CREATED);
        set(&mut response, header::LOCATION, &format!("/v2/{}/blobs/{digest}", self.name));
        set(&mut response, CONTENT_DIGEST, digest.as_str());
        response
    }
}

/// The bytes that an upload has; an empty one says the same as one with a single byte, for want of a better form.
fn range(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal::digest(text))
}
