//! Entry points for `cargo xtask fuzz`: hostile bytes in, no panic and no broken promise out.

use crate::{Manifest, media_types};

/// What a target does with bytes from outside.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[("manifest", manifest), ("request", request)];

/// Reads a manifest. What is accepted must keep the promises that [`Manifest`] makes.
///
/// # Panics
/// When a promise is broken: that is what the fuzzer looks for.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes, None) else { return };
    let index = media_types::is_index(&manifest.media_type);
    assert!(if index { manifest.layers.is_empty() } else { manifest.children.is_empty() });
    let mut digests: Vec<_> = manifest.layers.iter().chain(&manifest.children).collect();
    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count, "each digest once");
    let again = Manifest::parse(bytes, Some(&manifest.media_type));
    assert_eq!(again.as_ref(), Ok(&manifest), "the type it was given fits it");
}

/// Reads what comes after `/v2/`, a `Range`, a `Content-Range` and a `Host`.
pub fn request(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::http_face::fuzz(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the fuzzers start from, and what they once found.
    #[test]
    fn the_corpora_pass() {
        for (directory, target) in TARGETS {
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(directory);
            let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(files.len() > 5);
            files.iter().for_each(|file| target(&std::fs::read(file).unwrap()));
        }
    }

    proptest! {
        #[test]
        fn any_request_is_read_or_refused(text in "(/v2/)?[a-z0-9/:._%=&-]{0,80}") {
            request(text.as_bytes());
        }

        #[test]
        fn ranges_with_huge_numbers_are_read_or_refused(first in any::<u64>(), last in any::<u64>()) {
            request(format!("bytes={first}-{last}").as_bytes());
            request(format!("{first}-{last}").as_bytes());
        }
    }
}
