//! Names of images, by Docker's rules, and digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ImageError;

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(ring::digest::digest(&ring::digest::SHA256, bytes))
    }

    pub(crate) fn from_hash(hash: ring::digest::Digest) -> Self {
        Self(hex::encode(hash))
    }

    /// The digits alone, as file names.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let digits = text
            .strip_prefix("sha256:")
            .filter(|digits| digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        let invalid = || ImageError::InvalidReference {
            reference: text.chars().take(200).collect(),
            reason: "not a sha256 digest".to_owned(),
        };
        digits.map(|digits| Self(digits.to_owned())).ok_or_else(invalid)
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// A name of an image: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// Host, with a port where there is one; `docker.io` without any.
    pub registry: String,
    /// Lower-case path.
    pub repository: String,
    /// `latest` without tag and digest.
    pub tag: Option<String>,
    /// Counts more than the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What a registry is asked for.
    pub(crate) fn wanted(&self) -> String {
        self.digest.as_ref().map(Digest::to_string).or_else(|| self.tag.clone()).unwrap_or_else(|| "latest".to_owned())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let invalid = |reason: &str| ImageError::InvalidReference {
            reference: text.chars().take(300).collect(),
            reason: reason.to_owned(),
        };
        if text.len() > 1024 {
            return Err(invalid("too long"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| invalid("invalid digest"))?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !valid_tag(tag)
        {
            return Err(invalid("invalid tag"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, path)
            }
            _ => ("docker.io", name),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if !valid_registry(registry) {
            return Err(invalid("invalid registry host"));
        }
        let path =
            if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if path.len() > 255 || !path.split('/').all(valid_component) {
            return Err(invalid(
                "invalid reference format: repository name must be lowercase letters, digits and separators",
            ));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository: path, tag, digest })
    }
}

fn valid_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

/// A host name or an address, with an optional port.
fn valid_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                })
        }
    };
    host_is_good && registry.len() <= 260 && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Letters and digits, separated by one of `.`, `_`, `__` or any number of `-`.
fn valid_component(component: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = component.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
        && !component.contains("..")
        && !component.contains("___")
        && !["._", "_.", ".-", "-.", "_-", "-_"].iter().any(|pair| component.contains(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(text.parse::<Reference>().ok().map(|r| r.to_string()).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn dockers_rules() {
        let digest = format!("sha256:{}", "a".repeat(64));
        check("nginx", Some("docker.io/library/nginx:latest"));
        check("nginx:1.27", Some("docker.io/library/nginx:1.27"));
        check("someone/app", Some("docker.io/someone/app:latest"));
        check("index.docker.io/library/x", Some("docker.io/library/x:latest"));
        check("public.ecr.aws/nginx/nginx:stable", Some("public.ecr.aws/nginx/nginx:stable"));
        check("localhost/app", Some("localhost/app:latest"));
        check("localhost:4580/a/b/c:v1", Some("localhost:4580/a/b/c:v1"));
        check(
            "123456789012.dkr.ecr.us-east-1.localhost:4580/app",
            Some("123456789012.dkr.ecr.us-east-1.localhost:4580/app:latest"),
        );
        check("[::1]:5000/app", Some("[::1]:5000/app:latest"));
        check(&format!("app@{digest}"), Some(&format!("docker.io/library/app@{digest}")));
        check(&format!("app:v1@{digest}"), Some(&format!("docker.io/library/app:v1@{digest}")));
        for bad in [
            "",
            "/",
            "UPPER",
            "app:",
            "app:-x",
            "a//b",
            "../x",
            "host.example/",
            "host.example:99999/a",
            "app@sha256:short",
            "a..b",
            "a b",
            "x/.wh",
            "host.example:/a",
            "a\nb",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_digest_is_lower_case_sha256() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for bad in
            ["sha256:", "sha512:00", &format!("sha256:{}", "A".repeat(64)), &format!("sha256:{}/../x", "a".repeat(59))]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
