//! Entry points for `cargo xtask fuzz`: hostile bytes in, no panic and no broken promise out.

use crate::{Manifest, media_types};

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
