//! Telling the disk to begin while an upload's bytes still come in, so that little is left to wait for at its end.

use std::{fs::File, io, sync::Arc};

use tokio::task::JoinHandle;

use crate::changes::Changes;

/// How many bytes may wait for the disk before it is told to begin.
const BYTES: u64 = 16 << 20;

/// What is on its way to the disk of one upload.
#[derive(Default)]
pub(crate) struct WriteBack {
    /// How many bytes the upload had when the disk was last told.
    begun: u64,
    running: Option<JoinHandle<io::Result<()>>>,
    failed: Option<io::Error>,
}

impl WriteBack {
    /// The upload has `size` bytes by now.
    pub(crate) async fn written(&mut self, size: u64, file: &Arc<File>, disk: &Arc<dyn Changes>) {
        let busy = self.running.as_ref().is_some_and(|running| !running.is_finished());
        if busy || self.failed.is_some() || size.saturating_sub(self.begun) < BYTES {
            return;
        }
        self.failed = self.settle().await.err();
        self.begun = size;
        let (file, disk) = (file.clone(), disk.clone());
        self.running = Some(tokio::task::spawn_blocking(move || disk.sync(&file)));
    }

    /// Returns how it went. The kernel tells of bytes that it could not write only once, so that whoever syncs the file
    /// after us would not hear of it, and take for kept what is lost.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        let last = self.settle().await;
        self.failed.take().map_or(last, Err)
    }

    async fn settle(&mut self) -> io::Result<()> {
        match self.running.take() {
            Some(running) => running.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}
