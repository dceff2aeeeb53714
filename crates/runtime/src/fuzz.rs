//! Entry points for the fuzzers: hostile bytes in, no privileges and no file system needed. None of them may panic.

use crate::image::layer::{self, Forgetful};
use crate::image::{Reference, UnpackLimits, manifest as manifests};

/// A manifest or index, a configuration, and a reference.
pub fn manifest(bytes: &[u8]) {
    // What is refused is refused with a reason, which is all that is asked here.
    let _ = manifests::parse(bytes);
    let _ = manifests::configuration(bytes).map(|configuration| configuration.chain());
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(reference) = text.parse::<Reference>()
    {
        assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference), "a reference reads back differently");
    }
}

/// A layer, packed or not: everything the unpacker would make goes through the rules, and the names that come through are checked.
pub fn layer(bytes: &[u8]) {
    let limits = UnpackLimits { bytes: 16 << 20, entries: 10_000, ..UnpackLimits::default() };
    // As above.
    let _ = layer::read(bytes, &limits, &mut Forgetful::default());
}
