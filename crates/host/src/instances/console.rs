//! What an instance prints, as GetConsoleOutput has it: the last 64 KiB, in two files of which the older goes when the
//! newer is full. An instance never waits for its console and never fills a disk with it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How much is kept.
pub(crate) const KEPT: usize = 64 << 10;

const CURRENT: &str = "console.log";
const OLDER: &str = "console.old";

/// The writing end.
pub(crate) struct Console {
    directory: PathBuf,
    file: Option<File>,
    written: usize,
}

impl Console {
    /// Begins an empty one.
    pub(crate) fn begin(directory: &Path) -> io::Result<Self> {
        super::record::forget(directory, OLDER)?;
        let file = File::create(directory.join(CURRENT))?;
        Ok(Self { directory: directory.to_owned(), file: Some(file), written: 0 })
    }

    /// Appends. A full disk loses lines; the instance goes on.
    pub(crate) fn write(&mut self, text: &[u8]) {
        for part in text.chunks(KEPT) {
            if self.written + part.len() > KEPT {
                let current = self.directory.join(CURRENT);
                let _ = fs::rename(&current, self.directory.join(OLDER));
                self.file = OpenOptions::new().append(true).create(true).open(&current).ok();
                self.written = 0;
            }
            if let Some(file) = &mut self.file {
                let _ = file.write_all(part);
            }
            self.written += part.len();
        }
    }
}

/// Changes when there is more to read.
pub(crate) fn stamp(directory: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(directory.join(CURRENT)).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The last 64 KiB.
pub(crate) fn tail(directory: &Path) -> Vec<u8> {
    let mut text = fs::read(directory.join(OLDER)).unwrap_or_default();
    text.extend(fs::read(directory.join(CURRENT)).unwrap_or_default());
    let excess = text.len().saturating_sub(KEPT);
    text.split_off(excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_is_kept_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut console = Console::begin(directory.path()).unwrap();
        for line in 0..30_000 {
            console.write(format!("line {line}\n").as_bytes());
        }
        let text = String::from_utf8(tail(directory.path())).unwrap();
        assert_eq!(text.len(), KEPT);
        assert!(text.ends_with("line 29998\nline 29999\n"));
        let size = |name: &str| fs::metadata(directory.path().join(name)).unwrap().len();
        assert!(size(CURRENT) + size(OLDER) <= 2 * KEPT as u64);
        drop(Console::begin(directory.path()).unwrap());
        assert!(tail(directory.path()).is_empty());
    }
}
