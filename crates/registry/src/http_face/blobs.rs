//! `/v2/{name}/blobs/{digest}`.

use domain::repositories::Digest;
use http::{Response, StatusCode, header};
use http_body_util::BodyExt;

use super::{
    Answer, Exchange,
    answer::{CONTENT_DIGEST, Refusal, empty, set},
    parse::{self, Range},
};
use crate::BlobBody;

impl Exchange<'_> {
    pub(super) async fn get_blob(&self, digest: &Digest) -> Answer {
        // Engines ask with HEAD before they push, and with GET when they pull.
        self.authorise(if self.is_head() { "ecr:BatchCheckLayerAvailability" } else { "ecr:GetDownloadUrlForLayer" })?;
        let layer = self.registry.layer(self.scope, &self.name, digest)?;
        let etag = format!("\"{digest}\"");
        let header = |name| self.parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        if header(header::IF_NONE_MATCH).is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
            return Ok(empty(StatusCode::NOT_MODIFIED));
        }
        let range = header(header::RANGE).map_or(Range::Whole, |range| parse::range(range, layer.size));
        let (status, start, end) = match range {
            Range::Whole => (StatusCode::OK, 0, layer.size),
            Range::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
            Range::Unsatisfiable => {
                let refusal = Refusal::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "SIZE_INVALID",
                    format!("The layer has {} bytes: the range is beyond its end", layer.size),
                );
                return Err(refusal.with(header::CONTENT_RANGE, format!("bytes */{}", layer.size)));
            }
        };
        let mut response = if self.is_head() {
            empty(status)
        } else {
            let blob = self.registry.open_layer(&layer).await?;
            let mut response = Response::new(BlobBody::new(blob, start, end).boxed_unsync());
            *response.status_mut() = status;
            response
        };
        set(&mut response, header::CONTENT_LENGTH, &(end - start).to_string());
        set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
        set(&mut response, header::ACCEPT_RANGES, "bytes");
        set(&mut response, header::ETAG, &etag);
        set(&mut response, CONTENT_DIGEST, digest.as_str());
        if status == StatusCode::PARTIAL_CONTENT {
            let last = end.saturating_sub(1);
            set(&mut response, header::CONTENT_RANGE, &format!("bytes {start}-{last}/{}", layer.size));
        }
        Ok(response)
    }

    pub(super) async fn delete_blob(&self, digest: &Digest) -> Answer {
        self.authorise("ecr:BatchDeleteImage")?;
        self.registry.delete_layer(self.scope, &self.name, digest).await?;
        Ok(empty(StatusCode::ACCEPTED))
    }
}
