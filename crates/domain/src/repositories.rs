//! Elastic Container Registry: repositories, the images and tags in them, and the layers they may read.
//!
//! The bytes of layers and manifests are blobs, kept once per content by the `registry` crate; what is here says who
//! may see which of them. A repository reaches a blob only through a [`Layer`] or an [`Image`] of its own.
//! Leaves the API's shapes to `services::ecr`. Mirrors <https://docs.aws.amazon.com/AmazonECR/latest/userguide/>.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{Arn, Resource, Scope, Tags, Timestamp};

/// The registry's directory in the platform's data.
pub const DIRECTORY: &str = "registry";

/// The pattern that Amazon names when it refuses a repository's name.
pub const NAME_PATTERN: &str = "(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*";

/// Whether a text is a repository's name: 2 to 256 characters of [`NAME_PATTERN`].
pub fn valid_name(name: &str) -> bool {
    let component = |part: &str| {
        let bytes = part.as_bytes();
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || b"._-".contains(byte))
            && bytes.windows(2).all(|pair| pair.iter().any(alphanumeric))
    };
    (2..=256).contains(&name.len()) && name.split('/').all(component)
}

/// Whether a text is an image tag: 1 to 128 of `A–Z a–z 0–9 _ . -`, not beginning with a dot or a dash.
pub fn valid_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && tag.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
}

/// The store key of a repository: `{account}/{region}/{name}`.
pub fn repository_key(scope: &Scope, name: &str) -> String {
    scope.key(name)
}

/// The store key of something that a repository holds by digest: `{account}/{region}/{name}@{digest}`.
pub fn content_key(scope: &Scope, name: &str, digest: &Digest) -> String {
    scope.key(&format!("{name}@{digest}"))
}

/// The store key of a tag: `{account}/{region}/{name}:{tag}`.
pub fn tag_key(scope: &Scope, name: &str, tag: &str) -> String {
    scope.key(&format!("{name}:{tag}"))
}

/// The text is not a digest that the registry takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a sha256 digest")]
pub struct DigestError(String);

/// What identifies content: `sha256:` and 64 lower-case hexadecimal digits. Amazon takes no other algorithm.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// A digest from the 32 bytes of a SHA-256.
    pub fn sha256(bytes: &[u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            text.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        }
        Self(text)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file that holds this content, from the registry's directory: `sha256/{two digits}/{64 digits}`.
    pub fn file(&self) -> PathBuf {
        let hex = self.hex();
        Path::new("sha256").join(hex.get(..2).unwrap_or_default()).join(hex)
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let right = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        if right { Ok(Self(text.to_owned())) } else { Err(DigestError(text.chars().take(160).collect())) }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a tag that exists may be moved to another image.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TagMutability {
    /// Whether tags are immutable, but for the exclusions.
    pub immutable: bool,
    /// Wildcard patterns of tags for which the opposite holds, each with at most two `*`.
    #[serde(default)]
    pub exclusions: Vec<String>,
}

impl TagMutability {
    /// The most exclusions of a repository.
    pub const MAX_EXCLUSIONS: usize = 5;

    /// Amazon's name: `MUTABLE`, `IMMUTABLE`, `MUTABLE_WITH_EXCLUSION` or `IMMUTABLE_WITH_EXCLUSION`.
    pub fn name(&self) -> &'static str {
        match (self.immutable, self.exclusions.is_empty()) {
            (false, true) => "MUTABLE",
            (true, true) => "IMMUTABLE",
            (false, false) => "MUTABLE_WITH_EXCLUSION",
            (true, false) => "IMMUTABLE_WITH_EXCLUSION",
        }
    }

    /// Whether a tag that exists must stay where it is.
    pub fn is_immutable(&self, tag: &str) -> bool {
        self.immutable != self.exclusions.iter().any(|pattern| wildcard_matches(pattern, tag))
    }
}

/// Whether a text matches a pattern in which `*` stands for any characters.
fn wildcard_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

/// A repository: a named set of images.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// The registry (an account's in a region) it belongs to.
    pub scope: Scope,
    /// Its name, see [`valid_name`].
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether tags can be moved.
    pub mutability: TagMutability,
    /// Its tags (of the resource, not of images).
    pub tags: Tags,
    /// Who else may use it: a policy document, kept as it was given.
    #[serde(default)]
    pub policy: Option<String>,
}

impl Repository {
    /// `arn:aws:ecr:{region}:{account}:repository/{name}`.
    pub fn arn(&self) -> Arn {
        repository_arn(&self.scope, &self.name)
    }
}

/// `arn:aws:ecr:{region}:{account}:repository/{name}`.
pub fn repository_arn(scope: &Scope, name: &str) -> Arn {
    scope.arn("ecr", &format!("repository/{name}"))
}

impl Resource for Repository {
    const KIND: &'static str = "ecr/repository";
    fn key(&self) -> String {
        repository_key(&self.scope, &self.name)
    }
}

/// An image, an image index or another artifact: a manifest in a repository.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Image {
    /// The registry it belongs to.
    pub scope: Scope,
    /// Its repository's name.
    pub repository: String,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest's `artifactType`, or else its config's media type.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// How many bytes the manifest has.
    pub manifest_size: u64,
    /// How many bytes its layers and its config have, as pushed.
    pub size: u64,
    /// Its config and layers, as far as they are in the registry.
    #[serde(default)]
    pub layers: Vec<Digest>,
    /// The manifests that an index names.
    #[serde(default)]
    pub children: Vec<Digest>,
    /// The manifest that this one is about (a signature, a list of parts).
    #[serde(default)]
    pub subject: Option<Digest>,
    /// The manifest's annotations; kept only when it has a subject, for the list of referrers.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When it was pushed first.
    pub pushed: Timestamp,
}

impl Image {
    /// Index: the images of a repository, by [`repository_key`].
    pub const BY_REPOSITORY: &'static str = "repository";
    /// Index: the images whose manifest is this blob, in any repository.
    pub const BY_BLOB: &'static str = "blob";
    /// Index: the images that have this layer, by [`content_key`].
    pub const BY_LAYER: &'static str = "layer";
    /// Index: the indexes that name this image, by [`content_key`].
    pub const BY_CHILD: &'static str = "child";
    /// Index: the manifests about this one, by [`content_key`].
    pub const BY_SUBJECT: &'static str = "subject";
}

impl Resource for Image {
    const KIND: &'static str = "ecr/image";
    fn key(&self) -> String {
        content_key(&self.scope, &self.repository, &self.digest)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let within = |digest: &Digest| content_key(&self.scope, &self.repository, digest);
        let mut entries = vec![
            (Self::BY_REPOSITORY, repository_key(&self.scope, &self.repository)),
            (Self::BY_BLOB, self.digest.to_string()),
        ];
        entries.extend(self.layers.iter().map(|digest| (Self::BY_LAYER, within(digest))));
        entries.extend(self.children.iter().map(|digest| (Self::BY_CHILD, within(digest))));
        entries.extend(self.subject.iter().map(|digest| (Self::BY_SUBJECT, within(digest))));
        entries
    }
}

/// A tag of an image.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ImageTag {
    /// The registry it belongs to.
    pub scope: Scope,
    /// The repository's name.
    pub repository: String,
    /// The tag, see [`valid_tag`].
    pub tag: String,
    /// The image it points at.
    pub digest: Digest,
}

impl ImageTag {
    /// Index: the tags of an image, by [`content_key`].
    pub const BY_IMAGE: &'static str = "image";
}

impl Resource for ImageTag {
    const KIND: &'static str = "ecr/tag";
    fn key(&self) -> String {
        tag_key(&self.scope, &self.repository, &self.tag)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![(Self::BY_IMAGE, content_key(&self.scope, &self.repository, &self.digest))]
    }
}

/// A repository's right to a blob: it was uploaded into it, or mounted from another one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// The registry it belongs to.
    pub scope: Scope,
    /// The repository's name.
    pub repository: String,
    /// The blob.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// When the repository got it.
    pub linked: Timestamp,
}

impl Layer {
    /// Index: the layers that are this blob, in any repository.
    pub const BY_BLOB: &'static str = "blob";
}

impl Resource for Layer {
    const KIND: &'static str = "ecr/layer";
    fn key(&self) -> String {
        content_key(&self.scope, &self.repository, &self.digest)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![(Self::BY_BLOB, self.digest.to_string())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_amazons() {
        for right in ["ab", "a/b", "nginx", "my-org/web_app/v1.2", "a1", "0/0"] {
            assert!(valid_name(right), "{right}");
        }
        let long = "a".repeat(257);
        for wrong in
            ["", "a", "A/b", "a//b", "/ab", "ab/", "a..b", "a.-b", "-ab", "ab-", "a b", "../ab", "a:b", long.as_str()]
        {
            assert!(!valid_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn tags_are_those_of_the_distribution_specification() {
        let longest = "a".repeat(128);
        for right in ["latest", "v1.0", "_x", "A-b", longest.as_str()] {
            assert!(valid_tag(right), "{right}");
        }
        let too_long = "a".repeat(129);
        for wrong in ["", ".a", "-a", "a/b", "a:b", "a b", too_long.as_str()] {
            assert!(!valid_tag(wrong), "{wrong}");
        }
    }

    #[test]
    fn digests_are_sha256_in_lower_case() {
        let digest = Digest::sha256(&[0xab; 32]);
        assert_eq!(digest.as_str(), format!("sha256:{}", "ab".repeat(32)));
        assert_eq!(digest.as_str().parse(), Ok(digest));
        for wrong in ["", "sha256:", "sha256:AB", &format!("sha512:{}", "a".repeat(128)), "sha256:../../x"] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        assert!(format!("sha256:{}", "A".repeat(64)).parse::<Digest>().is_err());
    }

    #[test]
    fn exclusions_turn_mutability_around() {
        let check = |immutable, pattern: &str, tag, expect: bool| {
            let mutability = TagMutability { immutable, exclusions: vec![pattern.to_owned()] };
            assert_eq!(mutability.is_immutable(tag), expect, "{pattern} {tag}");
        };
        check(true, "dev-*", "dev-1", false);
        check(true, "dev-*", "prod", true);
        check(true, "latest", "latest", false);
        check(true, "latest", "latest2", true);
        check(false, "*release*", "a-release-b", true);
        check(false, "*release*", "a", false);
        check(false, "a*a", "a", false);
        check(false, "a*a", "aa", true);
        assert!(TagMutability { immutable: true, exclusions: Vec::new() }.is_immutable("x"));
        assert!(!TagMutability::default().is_immutable("x"));
    }
}
