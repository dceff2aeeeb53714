//! Entry points of the fuzz targets: each takes arbitrary bytes and must neither panic nor hang.

use crate::{logs, pattern::Pattern};

/// Reads a filter pattern and, where it is one, a message behind the first newline, and matches them.
pub fn filter_pattern(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, message) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(pattern) = Pattern::parse(pattern) {
        pattern.matches(message);
        pattern.extract(message);
    }
}

/// Reads a stored chunk of log events.
pub fn log_chunk(data: &[u8]) {
    logs::fuzz_chunk(data);
}
