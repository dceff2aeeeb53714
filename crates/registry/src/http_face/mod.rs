//! The OCI distribution face: `/v2/…` over HTTP, as container engines speak it to Amazon ECR.
//!
//! One request comes in and one response goes out: connections, TLS and host names are the front door's. Each request
//! names its principal by the token of `ecr:GetAuthorizationToken` (Basic, user `AWS`), and passes the authorisation
//! seam with the IAM action that Amazon asks for.

mod access;
mod answer;
mod blobs;
mod lists;
mod manifests;
mod parse;
mod route;
mod uploads;

use std::{io, sync::Arc};

use bytes::Bytes;
use domain::Scope;
use http::{Method, Request, Response, request::Parts};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use iam::Authority;

use crate::{Registry, RegistryError, RequestBody};
use access::Access;
pub use access::LAYER_TOKEN;
use answer::{Refusal, empty};
pub use parse::host_scope;
use route::{Route, Target};

/// A response's body. It fails only when the disk does, after the head was sent.
pub type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

type Answer = Result<Response<ResponseBody>, Refusal>;

/// What a handler works with.
struct Exchange<'a> {
    registry: &'a Arc<Registry>,
    scope: &'a Scope,
    access: Access,
    parts: Parts,
    /// The repository.
    name: String,
}

/// Answers one request whose path begins with `/v2`. `scope` is the registry that the host name means, see
/// [`host_scope`]. Every failure is a response.
pub fn handle<'a, B>(
    registry: &'a Arc<Registry>,
    authority: &'a Authority,
    scope: &'a Scope,
    request: Request<B>,
) -> impl Future<Output = Response<ResponseBody>> + Send + 'a
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let body: RequestBody = body.map_err(io::Error::other).boxed_unsync();
    async move {
        let realm = parse::realm(&parts);
        let mut response = match answer(registry, authority, scope, parts, body).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(&realm),
        };
        let version = http::HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        response
    }
}

async fn answer(
    registry: &Arc<Registry>,
    authority: &Authority,
    scope: &Scope,
    parts: Parts,
    body: RequestBody,
) -> Answer {
    let access = Access::of(&parts, authority, registry.clock.now());
    let target = match route::route(parts.uri.path()) {
        Ok(target) => target,
        Err(refusal) => {
            // Strangers do not learn which paths there are.
            access?;
            return Err(refusal);
        }
    };
    let (name, target) = match target {
        Route::Base => {
            access?;
            return match parts.method {
                Method::GET | Method::HEAD => Ok(empty(http::StatusCode::OK)),
                _ => Err(Refusal::method()),
            };
        }
        Route::Catalog => {
            access?;
            return Err(Refusal::catalog());
        }
        Route::Repository(name, target) => (name, target),
    };
    // A layer's address carries its own token; nothing else can be reached with it.
    let access = match (&target, parse::query(&parts, LAYER_TOKEN)) {
        (Target::Blob(digest), Some(token)) if parts.method == Method::GET || parts.method == Method::HEAD => {
            Access::of_layer(authority, &token, scope, &name, digest, registry.clock.now())?
        }
        _ => access?,
    };
    let exchange = Exchange { registry, scope, access, parts, name };
    let method = exchange.parts.method.clone();
    match (target, method.as_str()) {
        (Target::Blob(digest), "GET" | "HEAD") => exchange.get_blob(&digest).await,
        (Target::Blob(digest), "DELETE") => exchange.delete_blob(&digest).await,
        (Target::Uploads, "POST") => exchange.begin_upload(body).await,
        (Target::Upload(id), "GET" | "HEAD") => exchange.upload_status(&id).await,
        (Target::Upload(id), "PATCH") => exchange.append_upload(&id, body).await,
        (Target::Upload(id), "PUT") => exchange.finish_upload(&id, body).await,
        (Target::Upload(id), "DELETE") => exchange.cancel_upload(&id).await,
        (Target::Manifest(reference), "GET" | "HEAD") => exchange.get_manifest(&reference).await,
        (Target::Manifest(reference), "PUT") => exchange.put_manifest(&reference, body).await,
        (Target::Manifest(reference), "DELETE") => exchange.delete_manifest(&reference).await,
        (Target::Tags, "GET" | "HEAD") => exchange.list_tags(),
        (Target::Referrers(digest), "GET" | "HEAD") => exchange.list_referrers(&digest),
        _ => Err(Refusal::method()),
    }
}

impl Exchange<'_> {
    /// Passes the authorisation seam with an IAM action on this repository.
    fn authorise(&self, action: &str) -> Result<(), Refusal> {
        self.access.authorise(action, self.scope, &self.name)
    }

    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    /// The store key of the repository, if there is one.
    fn repository(&self) -> Result<String, RegistryError> {
        use domain::Resource;
        Ok(crate::layers::repository(&self.registry.snapshot(), self.scope, &self.name)?.key())
    }
}

/// Reads everything that a request's text can say. For the fuzzer.
pub(crate) fn fuzz(text: &str) {
    drop(route::route(text));
    let _ = parse::range(text, 1000);
    let _ = parse::content_range(text);
    if let (Ok(account), Ok(region)) = ("123456789012".parse(), "us-east-1".parse()) {
        drop(host_scope(text, &Scope { account, region }));
    }
    drop(parse::query_in(text, "digest"));
}

#[cfg(test)]
mod tests;
