//! Entry points for `cargo xtask fuzz`: each takes arbitrary bytes and must neither panic nor hang.

use crate::{logs, pattern::Pattern};

/// What a target does with bytes from outside.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[("filter-pattern", filter_pattern), ("log-chunk", log_chunk)];

/// Reads a filter pattern and, where it is one, a message behind the first newline, and matches them.
///
/// # Panics
/// When the two ways to match disagree: that is what the fuzzer looks for.
pub fn filter_pattern(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, message) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(pattern) = Pattern::parse(pattern) {
        let words = pattern.extract(message);
        assert_eq!(pattern.matches(message), words.is_some(), "a message that matches has words, and no other has");
    }
}

/// Reads a stored chunk of log events.
pub fn log_chunk(data: &[u8]) {
    logs::fuzz_chunk(data);
}

#[cfg(test)]
mod tests {
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
}
