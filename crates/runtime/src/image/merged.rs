//! One layer upon the other in a single directory, as the root of a system that has no overlay beneath: what a layer deletes is
//! deleted, and what it puts in the place of something else takes it.
//!
//! An archive's order says nothing about which layer an entry is of: a deletion is of what is below only, so what this layer has made
//! is remembered.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::layer::Refusal;
use super::sink::{Directory, refused};

fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

impl Directory {
    /// Over what the directory open as `root` holds of the layers below.
    pub(crate) fn merged(root: OwnedFd) -> io::Result<Self> {
        let below = root.try_clone()?;
        let mut directory = Self::new(root, vec![below]);
        directory.made = Some(BTreeSet::new());
        Ok(directory)
    }

    /// Whether this layer has something under the name.
    pub(super) fn has(&self, path: &Path) -> bool {
        match &self.made {
            Some(made) => made.contains(path),
            None => self.stat(&self.root, path).is_some(),
        }
    }

    pub(super) fn note(&mut self, path: &Path) {
        if let Some(made) = &mut self.made {
            made.insert(path.to_path_buf());
        }
    }

    /// Whether all that is in a directory comes from layers below, and can make room.
    pub(super) fn is_of_lower_layers(&self, path: &Path) -> bool {
        self.made.as_ref().is_some_and(|made| {
            let first = made.range(path.to_path_buf()..).find(|known| known.as_path() != path);
            !first.is_some_and(|known| known.starts_with(path))
        })
    }

    /// Makes the directory that a name goes through, where a layer below has something else.
    pub(super) fn make_way(&mut self, parent: &OwnedFd, path: &Path) -> Result<(), Refusal> {
        let in_the_way = |stat: &FileStat| !is_directory(stat);
        if self.made.is_none() || self.has(path) || !self.stat(&self.root, path).as_ref().is_some_and(in_the_way) {
            return Ok(());
        }
        self.clear(parent, path)?;
        let name = path.file_name().unwrap_or_default();
        mkdirat(parent, name, Mode::from_bits_truncate(0o755)).map_err(refused(path))?;
        self.note(path);
        Ok(())
    }

    pub(super) fn whiteout_merged(&mut self, path: &Path) -> Result<(), Refusal> {
        let name = path.file_name().ok_or_else(|| Refusal::at(path, "no name"))?;
        let parent = self.resolve(path.parent().unwrap_or(Path::new("")))?;
        self.remove_lower(&parent.join(name))
    }

    /// Removes what a directory holds of the layers below.
    pub(super) fn empty(&mut self, path: &Path) -> Result<(), Refusal> {
        for name in self.names(path)? {
            self.remove_lower(&path.join(name))?;
        }
        Ok(())
    }

    /// Removes what is under a name, and all below it, but for what this layer has made. Without recursion: the depth is the image's.
    pub(super) fn remove_lower(&mut self, path: &Path) -> Result<(), Refusal> {
        let mut pending = vec![(path.to_path_buf(), false)];
        while let Some((path, emptied)) = pending.pop() {
            let Some(stat) = self.stat(&self.root, &path) else { continue };
            let parent = path.parent().unwrap_or(Path::new(""));
            let parent = self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(refused(&path))?;
            let name = path.file_name().unwrap_or_default();
            if !is_directory(&stat) {
                if !self.has(&path) {
                    unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir).map_err(refused(&path))?;
                }
            } else if emptied {
                match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
                    // It holds something of this layer's.
                    Ok(()) | Err(nix::Error::ENOTEMPTY) => {}
                    Err(error) => return Err(refused(&path)(error)),
                }
            } else {
                let names = self.names(&path)?;
                if !self.has(&path) {
                    pending.push((path.clone(), true));
                }
                pending.extend(names.into_iter().map(|name| (path.join(name), false)));
            }
        }
        // What was remembered of it may be gone.
        self.parent = None;
        self.resolved.clear();
        self.known.retain(|known| known.as_os_str().is_empty());
        Ok(())
    }

    fn names(&self, path: &Path) -> Result<Vec<OsString>, Refusal> {
        let opened = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(refused(path))?;
        let mut directory = Dir::from_fd(opened).map_err(refused(path))?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(refused(path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_os_string());
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
#[path = "merged_tests.rs"]
mod tests;
