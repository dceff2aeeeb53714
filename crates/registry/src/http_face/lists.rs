//! `/v2/{name}/tags/list` and `/v2/{name}/referrers/{digest}`, a page at a time.

use domain::repositories::{Digest, Image, ImageTag, content_key};
use http::{StatusCode, header};
use serde_json::json;

use super::{
    Answer, Exchange,
    answer::{OCI_FILTERS, Refusal, json as document, set},
    parse,
};
use crate::media_types;

/// The most tags of a page.
const MAX_TAGS: usize = 1000;
/// The most referrers of a page. Each can have its annotations, so a page stays below some megabytes.
const MAX_REFERRERS: usize = 100;

impl Exchange<'_> {
    pub(super) fn list_tags(&self) -> Answer {
        self.authorise("ecr:ListImages")?;
        self.repository()?;
        let count = match parse::query(&self.parts, "n") {
            None => MAX_TAGS,
            Some(text) => text.parse::<usize>().map_err(|_| {
                let text = "The number of results 'n' must be a number from 0 on";
                Refusal::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", text)
            })?,
        };
        let count = count.min(MAX_TAGS);
        let prefix = self.scope.key(&format!("{}:", self.name));
        let last = parse::query(&self.parts, "last").map_or_else(String::new, |last| format!("{prefix}{last}"));
        let snapshot = self.registry.snapshot();
        let mut rest = snapshot.list_after::<ImageTag>(&prefix, &last).map(|tag| tag.tag.clone());
        let tags: Vec<String> = rest.by_ref().take(count).collect();
        let more = rest.next().is_some();
        let page = json!({"name": self.name, "tags": tags}).to_string();
        let mut response = document(StatusCode::OK, "application/json", page.into());
        if let Some(last) = tags.last().filter(|_| more) {
            let link = format!("</v2/{}/tags/list?n={count}&last={}>; rel=\"next\"", self.name, parse::encode(last));
            set(&mut response, header::LINK, &link);
        }
        Ok(response)
    }

    pub(super) fn list_referrers(&self, subject: &Digest) -> Answer {
        self.authorise("ecr:BatchGetImage")?;
        self.repository()?;
        let filter = parse::query(&self.parts, "artifactType");
        let last = parse::query(&self.parts, "last").unwrap_or_default();
        let snapshot = self.registry.snapshot();
        let key = content_key(self.scope, &self.name, subject);
        let mut rest = snapshot
            .find::<Image>(Image::BY_SUBJECT, key)
            .filter(|image| filter.is_none() || image.artifact_type == filter)
            .filter(|image| image.digest.as_str() > last.as_str());
        let page: Vec<_> = rest.by_ref().take(MAX_REFERRERS).collect();
        let more = rest.next().is_some();
        let manifests: Vec<_> = page.iter().map(|image| descriptor(image)).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": manifests});
        let mut response = document(StatusCode::OK, media_types::OCI_INDEX, index.to_string().into());
        if filter.is_some() {
            set(&mut response, OCI_FILTERS, "artifactType");
        }
        if let Some(last) = page.last().filter(|_| more) {
            let filter = filter.map(|filter| format!("artifactType={}&", parse::encode(&filter))).unwrap_or_default();
            let last = parse::encode(last.digest.as_str());
            let link = format!("</v2/{}/referrers/{subject}?{filter}last={last}>; rel=\"next\"", self.name);
            set(&mut response, header::LINK, &link);
        }
        Ok(response)
    }
}

fn descriptor(image: &Image) -> serde_json::Value {
    let mut descriptor = json!({
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": image.manifest_size,
    });
    if let Some(members) = descriptor.as_object_mut() {
        if let Some(artifact_type) = &image.artifact_type {
            members.insert("artifactType".to_owned(), json!(artifact_type));
        }
        if !image.annotations.is_empty() {
            members.insert("annotations".to_owned(), json!(image.annotations));
        }
    }
    descriptor
}
