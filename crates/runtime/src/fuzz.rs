//! Entry points for `cargo xtask fuzz`: hostile bytes in, no privileges and no file system needed. None of them may panic.

use crate::image::layer::{self, Forgetful};
use crate::image::{Reference, UnpackLimits, manifest as manifests};

/// What a target does with bytes from outside.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[("layer", layer), ("manifest", manifest)];

/// A manifest or index, a configuration, and a reference.
pub fn manifest(bytes: &[u8]) {
    // What is refused is refused with a reason, which is all that is asked here.
    let _ = manifests::parse(bytes);
    let _ = manifests::configuration(bytes).map(|configuration| configuration.chain());
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(reference) = text.parse::<Reference>()
    {
        assert_eq!(
            reference.to_string().parse::<Reference>().ok(),
            Some(reference),
            "a reference reads back differently"
        );
    }
}

/// A layer, packed or not: everything the unpacker would make goes through the rules, and the names that come through are checked.
///
/// The archive is read as it is, and once more with the checksums that its headers should have: no fuzzer guesses those,
/// so that it would hardly get beyond the first header.
pub fn layer(bytes: &[u8]) {
    let limits = UnpackLimits { bytes: 16 << 20, entries: 10_000, ..UnpackLimits::default() };
    // As above.
    let _ = layer::read(bytes, &limits, &mut Forgetful::default());
    let _ = layer::read(&*with_checksums(bytes), &limits, &mut Forgetful::default());
}

/// The size of everything in an archive.
const BLOCK: usize = 512;

/// An archive with the right checksum in each header.
fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    let mut blocks = archive.chunks_exact_mut(BLOCK);
    while let Some(block) = blocks.next() {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        // What the entry holds is no header.
        let content = header.entry_size().unwrap_or(0).div_ceil(BLOCK as u64);
        if let Some(last) = usize::try_from(content).unwrap_or(usize::MAX).checked_sub(1) {
            blocks.nth(last);
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A small archive to damage.
    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, link) in [("a/b", None), ("a/.wh.c", None), ("s", Some("a/b")), (&*"long/".repeat(40), None)] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(0);
            header.set_entry_type(if link.is_some() { tar::EntryType::Symlink } else { tar::EntryType::Regular });
            let added = match link {
                Some(target) => builder.append_link(&mut header, name, target),
                None => builder.append_data(&mut header, name, &b""[..]),
            };
            added.unwrap();
        }
        builder.into_inner().unwrap()
    }

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

    #[test]
    fn damaged_headers_get_their_checksums() {
        let mut bytes = archive();
        assert_eq!(with_checksums(&bytes), bytes);
        let whole = bytes.clone();
        bytes
            .chunks_exact_mut(BLOCK)
            .filter(|block| block.get(257..262) == Some(&b"ustar"[..]))
            .for_each(|header| header[150] ^= 1);
        assert_ne!(bytes, whole);
        assert_eq!(with_checksums(&bytes), whole);
    }

    proptest! {
        #[test]
        fn noise_is_refused_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            manifest(&bytes);
            layer(&bytes);
        }

        #[test]
        fn damage_is_refused_not_a_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in any::<prop::sample::Index>()) {
            let mut bytes = archive();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            layer(&bytes);
            layer(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn references_read_back(text in "[a-zA-Z0-9./:@_-]{0,60}") {
            manifest(text.as_bytes());
        }
    }
}
