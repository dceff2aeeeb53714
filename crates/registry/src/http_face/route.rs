//! What a path means.

use domain::repositories::{Digest, valid_name};

use super::answer::Refusal;
use crate::{ImageReference, UploadId};

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`: is this a registry, and are the credentials good?
    Base,
    /// `/v2/_catalog`.
    Catalog,
    /// Something in a repository.
    Repository(String, Target),
}

/// Something in a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Blob(Digest),
    Uploads,
    Upload(UploadId),
    /// `None` when what stands there can be no tag and no digest, so that there can be no such image.
    Manifest(Option<ImageReference>),
    Tags,
    Referrers(Digest),
}

/// Reads a path. A repository's name can itself have components such as `blobs`, so it is read from its end.
pub(super) fn route(path: &str) -> Result<Route, Refusal> {
    let rest = path.strip_prefix("/v2").ok_or_else(Refusal::path)?;
    match rest {
        "" | "/" => return Ok(Route::Base),
        "/_catalog" => return Ok(Route::Catalog),
        _ => {}
    }
    let rest = rest.strip_prefix('/').ok_or_else(Refusal::path)?;
    let parts: Vec<&str> = rest.split('/').collect();
    let (name, target): (&[&str], Target) = match parts.as_slice() {
        [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => (name, Target::Uploads),
        [name @ .., "blobs", "uploads", id] => {
            (name, Target::Upload(UploadId::parse(id).ok_or_else(|| Refusal::upload(id))?))
        }
        [name @ .., "blobs", digest] => (name, Target::Blob(parse_digest(digest)?)),
        [name @ .., "manifests", reference] => {
            // What has the form of a digest but is none must be told apart from a tag that does not exist.
            let reference = match reference.contains(':') {
                true => Some(ImageReference::Digest(parse_digest(reference)?)),
                false => ImageReference::parse(reference),
            };
            (name, Target::Manifest(reference))
        }
        [name @ .., "tags", "list"] => (name, Target::Tags),
        [name @ .., "referrers", digest] => (name, Target::Referrers(parse_digest(digest)?)),
        _ => return Err(Refusal::path()),
    };
    let name = name.join("/");
    if valid_name(&name) { Ok(Route::Repository(name, target)) } else { Err(Refusal::name(&name)) }
}

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    // Clients may encode the colon.
    text.replacen("%3A", ":", 1).replacen("%3a", ":", 1).parse().map_err(|_| Refusal::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hasher;

    #[test]
    fn names_may_have_components_that_look_like_ours() {
        let digest = Hasher::of(b"x");
        let check = |path: &str, name: &str, target| {
            assert_eq!(route(path).ok(), Some(Route::Repository(name.to_owned(), target)), "{path}");
        };
        check(&format!("/v2/a/blobs/blobs/{digest}"), "a/blobs", Target::Blob(digest.clone()));
        check("/v2/team/manifests/manifests/v1", "team/manifests", Target::Manifest(ImageReference::parse("v1")));
        check("/v2/aa/blobs/uploads/", "aa", Target::Uploads);
        check("/v2/aa/tags/list", "aa", Target::Tags);
        check(&format!("/v2/aa/referrers/{digest}"), "aa", Target::Referrers(digest));
        check("/v2/aa/manifests/.none", "aa", Target::Manifest(None));
        assert_eq!(route("/v2/").ok(), Some(Route::Base));
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "/v2x",
            "/v2/aa",
            "/v2/../tags/list",
            "/v2/A/tags/list",
            "/v2//tags/list",
            "/v2/aa/blobs/x",
            "/v2/aa/blobs/uploads/..",
            "/v2/aa/manifests/sha256:1",
            "/v1/",
            "/v2/aa/tags",
            "/v2/a%2f..%2fb/tags/list",
        ] {
            assert!(route(path).is_err(), "{path}");
        }
    }
}
