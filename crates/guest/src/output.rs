//! What started programs print: to the console, to a file that stays bounded, or both.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// A file with more is set aside, and the one set aside before it is forgotten.
const FILE_LIMIT: u64 = 8 << 20;

/// Where output goes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<Sink>>);

struct Sink {
    path: PathBuf,
    file: File,
    written: u64,
    console: bool,
    /// The end of what was written, for whoever must say why a program ended.
    tail: Vec<u8>,
}

/// How much of the end is kept.
const TAIL: usize = 1024;

impl Output {
    /// To the file, and to the console too if that is wanted.
    pub(crate) fn open(path: &Path, console: bool) -> io::Result<Output> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Output(Arc::new(Mutex::new(Sink { path: path.to_owned(), file, written, console, tail: Vec::new() }))))
    }

    /// Copies all that is read until the other side is closed.
    pub(crate) async fn copy(&self, mut from: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 8 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            self.write(buffer.get(..count).unwrap_or_default());
        }
    }

    /// One message.
    pub(crate) fn line(&self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// The last line with something in it.
    pub(crate) fn last_line(&self) -> String {
        let sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&sink.tail).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    }

    fn write(&self, bytes: &[u8]) {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk or a console nobody reads is no reason for an instance not to work.
        let _ = sink.write(bytes);
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        if self.console {
            let mut console = io::stdout().lock();
            console.write_all(bytes)?;
            console.flush()?;
        }
        if self.written > FILE_LIMIT {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            fs::rename(&self.path, aside)?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.written = 0;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log/agent.log");
        let output = Output::open(&path, false).expect("a file");
        let block = vec![b'x'; 1 << 20];
        for _ in 0..24 {
            output.write(&block);
        }
        output.line("\nthe end");
        output.line("");
        let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
        assert!(size(&path) <= FILE_LIMIT + (2 << 20));
        assert!(size(&directory.path().join("log/agent.log.1")) > FILE_LIMIT);
        assert_eq!(output.last_line(), "the end");
    }
}
