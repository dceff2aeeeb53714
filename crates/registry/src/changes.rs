//! What the registry changes on its disk: everything whose order decides what a power cut leaves.
//!
//! A seam for one reason: the tests put a disk below that forgets what was not synced, and replay what was done up to
//! any moment. Reading needs no seam.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// Changes of files and directories. As implemented here they are the kernel's own calls.
pub(crate) trait Changes: Send + Sync + 'static {
    /// Makes a directory, and those above it, where they are missing.
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    /// Makes a file that was not there.
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// Writes all the bytes at an offset.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Cuts a file off.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Returns when a file's bytes, or a directory's entries, survive a power cut.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Gives a file another name, in place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The real disk.
pub(crate) struct Kernel;

impl Changes for Kernel {}
