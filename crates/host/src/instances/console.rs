//! What an instance prints: the last of it, in a file of bounded size.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// So much is shown: as Amazon does.
pub(super) const SHOWN: u64 = 64 << 10;

/// The file of one instance.
pub(super) struct Console {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Console {
    /// Goes on writing where the boot before ended.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written })
    }

    pub(super) fn line(&mut self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// Never fails for the instance: one whose console cannot be kept still runs.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.file.write_all(bytes).is_ok() {
            self.written += bytes.len() as u64;
        }
        if self.written > 4 * SHOWN && self.forget().is_err() {
            self.written = 0;
        }
    }

    /// Keeps only what is shown.
    fn forget(&mut self) -> io::Result<()> {
        let kept = tail(&self.path)?;
        let temporary = self.path.with_extension("tmp");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&kept)?;
        fs::rename(&temporary, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.written = kept.len() as u64;
        Ok(())
    }
}

/// The last of what is in such a file.
pub(super) fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_stays_bounded_and_keeps_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut console = Console::open(&path).unwrap();
        for number in 0..100_000 {
            console.line(&format!("line {number}"));
        }
        drop(console);
        Console::open(&path).unwrap().line("again");
        let kept = String::from_utf8(tail(&path).unwrap()).unwrap();
        assert!(kept.ends_with("line 99999\nagain\n"));
        assert_eq!(kept.len() as u64, SHOWN);
        assert!(fs::metadata(&path).unwrap().len() <= 4 * SHOWN + 64);
    }
}
