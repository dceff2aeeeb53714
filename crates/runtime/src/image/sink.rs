//! Makes a layer's entries in a directory of the disk.
//!
//! Every name is looked up from a descriptor of the layer's root with `openat2`, which refuses to leave it and to follow links, so a
//! layer cannot reach outside even without the process around being confined.
//!
//! A layer may put `bin/x` where a layer below has `bin -> usr/bin`. Made as it stands, the new `bin` would hide the link and everything
//! behind it, so names are resolved through the links of lower layers first, as they would be on the merged file system.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::layer::{Metadata, Refusal, Sink};

/// Links followed in one name.
const MAXIMUM_LINKS: usize = 40;

/// A layer being made.
pub(crate) struct Directory {
    pub(super) root: OwnedFd,
    /// Layers below, the top one first.
    pub(super) lowers: Vec<OwnedFd>,
    /// The last parent, which the next entry often shares.
    pub(super) parent: Option<(PathBuf, OwnedFd)>,
    /// Directories that are in this layer.
    pub(super) known: HashSet<PathBuf>,
    /// What the directory part of a name means.
    pub(super) resolved: HashMap<PathBuf, PathBuf>,
    /// Times of directories, set at the end: making entries changes them.
    times: HashMap<PathBuf, i64>,
    /// What this layer has made, where the layers below are in the same directory: see [`super::merged`].
    pub(super) made: Option<BTreeSet<PathBuf>>,
    opaque: HashSet<PathBuf>,
}

impl Directory {
    /// Of the directory open as `root`, over these layers, the top one first.
    pub(crate) fn new(root: OwnedFd, lowers: Vec<OwnedFd>) -> Self {
        let known = HashSet::from([PathBuf::new()]);
        Self {
            root,
            lowers,
            parent: None,
            known,
            resolved: HashMap::new(),
            times: HashMap::new(),
            made: None,
            opaque: HashSet::new(),
        }
    }

    /// Sets what had to wait; returns the directories to be marked opaque, which takes a privilege this process has not.
    pub(crate) fn finish(mut self) -> Result<Vec<PathBuf>, Refusal> {
        for (path, seconds) in std::mem::take(&mut self.times) {
            let directory = match self.open(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
                // Gone again, with what was below.
                Err(nix::Error::ENOENT | nix::Error::ENOTDIR) if self.made.is_some() => continue,
                opened => opened.map_err(refused(&path))?,
            };
            let time = TimeSpec::new(seconds, 0);
            futimens(&directory, &time, &time).map_err(refused(&path))?;
        }
        let mut opaque: Vec<PathBuf> = self.opaque.into_iter().collect();
        opaque.sort();
        Ok(opaque)
    }

    pub(super) fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        open_beneath(&self.root, path, flags)
    }

    /// The name as the merged file system would understand it, and its parent, made if it was missing.
    fn place(&mut self, path: &Path) -> Result<(PathBuf, OwnedFd), Refusal> {
        let parent = self.resolve(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().ok_or_else(|| Refusal::at(path, "no name"))?;
        if self.parent.as_ref().is_none_or(|(known, _)| *known != parent) {
            self.make_parents(&parent)?;
            let descriptor = self.open(&parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(refused(path))?;
            self.parent = Some((parent.clone(), descriptor));
        }
        let descriptor =
            self.parent.as_ref().map(|(_, descriptor)| descriptor.try_clone()).transpose().map_err(Refusal::Io)?;
        Ok((parent.join(name), descriptor.ok_or_else(|| Refusal::at(path, "no parent"))?))
    }

    /// Follows the links of lower layers in a directory's name.
    pub(super) fn resolve(&mut self, path: &Path) -> Result<PathBuf, Refusal> {
        if self.lowers.is_empty() || path.as_os_str().is_empty() {
            return Ok(path.to_path_buf());
        }
        if let Some(resolved) = self.resolved.get(path) {
            return Ok(resolved.clone());
        }
        let mut pending: Vec<PathBuf> = path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect();
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match Path::new(&part).components().next() {
                Some(Component::ParentDir) => drop(done.pop()),
                Some(Component::Normal(name)) => {
                    let candidate = done.join(name);
                    match self.lower_link(&candidate) {
                        Some(target) => {
                            links += 1;
                            if links > MAXIMUM_LINKS {
                                return Err(Refusal::at(path, "too many symbolic links"));
                            }
                            if target.is_absolute() {
                                done = PathBuf::new();
                            }
                            pending.extend(
                                target
                                    .components()
                                    .rev()
                                    .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
                                    .map(|part| PathBuf::from(part.as_os_str())),
                            );
                        }
                        None => done = candidate,
                    }
                }
                _ => {}
            }
        }
        self.resolved.insert(path.to_path_buf(), done.clone());
        Ok(done)
    }

    /// The target if lower layers show a symbolic link there, and this layer has nothing in its place.
    fn lower_link(&self, path: &Path) -> Option<PathBuf> {
        if self.known.contains(path) || self.has(path) {
            return None;
        }
        let (lower, stat) = self.lower(path)?;
        (stat.st_mode & libc::S_IFMT == libc::S_IFLNK).then_some(())?;
        let parent = open_beneath(lower, path.parent()?, OFlag::O_PATH | OFlag::O_DIRECTORY).ok()?;
        readlinkat(&parent, path.file_name()?).ok().map(PathBuf::from)
    }

    /// The topmost lower layer that says something about this name.
    fn lower(&self, path: &Path) -> Option<(&OwnedFd, FileStat)> {
        let found = self.lowers.iter().find_map(|lower| self.stat(lower, path).map(|stat| (lower, stat)))?;
        // A whiteout: nothing is there.
        let whiteout = found.1.st_mode & libc::S_IFMT == libc::S_IFCHR && found.1.st_rdev == 0;
        (!whiteout).then_some(found)
    }

    pub(super) fn stat(&self, root: &OwnedFd, path: &Path) -> Option<FileStat> {
        let parent = open_beneath(root, path.parent()?, OFlag::O_PATH | OFlag::O_DIRECTORY).ok()?;
        fstatat(&parent, path.file_name()?, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// Makes a directory that the archive only implies, with the owner and permissions it has below.
    pub(super) fn make_parents(&mut self, path: &Path) -> Result<(), Refusal> {
        if self.known.contains(path) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.make_parents(parent)?;
        let name = path.file_name().ok_or_else(|| Refusal::at(path, "no name"))?;
        let descriptor = self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(refused(path))?;
        match mkdirat(&descriptor, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                if let Some((_, stat)) =
                    self.lower(path).filter(|(_, stat)| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
                {
                    let metadata = Metadata {
                        uid: stat.st_uid,
                        gid: stat.st_gid,
                        mode: stat.st_mode & 0o7777,
                        modified: stat.st_mtime,
                        ..Metadata::default()
                    };
                    apply(&descriptor, name, &metadata, false).map_err(refused(path))?;
                    self.times.insert(path.to_path_buf(), metadata.modified);
                }
            }
            Err(nix::Error::EEXIST) => self.make_way(&descriptor, path)?,
            Err(error) => return Err(refused(path)(error)),
        }
        self.known.insert(path.to_path_buf());
        Ok(())
    }

    /// Makes room for an entry that is not a directory: a later entry of the same name counts.
    pub(super) fn clear(&mut self, parent: &OwnedFd, path: &Path) -> Result<(), Refusal> {
        let name = path.file_name().unwrap_or_default();
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(nix::Error::EISDIR) => match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) => Ok(()),
                Err(nix::Error::ENOTEMPTY) if self.is_of_lower_layers(path) => self.remove_lower(path),
                Err(nix::Error::ENOTEMPTY) => Err(Refusal::at(path, "takes the place of a directory with content")),
                Err(error) => Err(refused(path)(error)),
            },
            Err(error) => Err(refused(path)(error)),
        }
    }
}

impl Sink for Directory {
    fn directory(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Refusal> {
        if path.as_os_str().is_empty() {
            let root = self.open(Path::new(""), OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(refused(path))?;
            attributes(&root, metadata).map_err(refused(path))?;
            apply(&root, OsStr::new("."), metadata, false).map_err(refused(path))?;
            self.times.insert(PathBuf::new(), metadata.modified);
            return Ok(());
        }
        let (path, parent) = self.place(path)?;
        let name = path.file_name().unwrap_or_default();
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
            Ok(()) => {}
            Err(nix::Error::EEXIST) => {
                let is_directory = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
                if !is_directory {
                    self.clear(&parent, &path)?;
                    mkdirat(&parent, name, Mode::from_bits_truncate(0o700)).map_err(refused(&path))?;
                }
            }
            Err(error) => return Err(refused(&path)(error)),
        }
        let own = self.open(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(refused(&path))?;
        apply(&parent, name, metadata, false).map_err(refused(&path))?;
        attributes(&own, metadata).map_err(refused(&path))?;
        self.times.insert(path.clone(), metadata.modified);
        self.note(&path);
        self.known.insert(path);
        Ok(())
    }

    fn file(&mut self, path: &Path, metadata: &Metadata, content: &mut dyn Read) -> Result<(), Refusal> {
        let (path, parent) = self.place(path)?;
        let name = path.file_name().unwrap_or_default();
        self.clear(&parent, &path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file =
            std::fs::File::from(openat(&parent, name, flags, Mode::from_bits_truncate(0o600)).map_err(refused(&path))?);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count =
                content.read(&mut buffer).map_err(|error| Refusal::Invalid(format!("{}: {error}", path.display())))?;
            if count == 0 {
                break;
            }
            file.write_all(buffer.get(..count).unwrap_or_default()).map_err(Refusal::Io)?;
        }
        // Ownership first: a change of it takes away setuid bits and capabilities.
        self.note(&path);
        apply(&parent, name, metadata, false).map_err(refused(&path))?;
        attributes(&file, metadata).map_err(refused(&path))?;
        let time = TimeSpec::new(metadata.modified, 0);
        futimens(&file, &time, &time).map_err(refused(&path))
    }

    fn symbolic_link(&mut self, path: &Path, target: &OsStr, metadata: &Metadata) -> Result<(), Refusal> {
        let (path, parent) = self.place(path)?;
        self.clear(&parent, &path)?;
        let name = path.file_name().unwrap_or_default();
        symlinkat(target, &parent, name).map_err(refused(&path))?;
        self.note(&path);
        apply(&parent, name, metadata, true).map_err(refused(&path))
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Refusal> {
        let target_name =
            target.file_name().ok_or_else(|| Refusal::at(path, "a hard link to the root"))?.to_os_string();
        let target_parent = self.resolve(target.parent().unwrap_or(Path::new("")))?;
        let missing = |_| Refusal::at(path, "a hard link to what the layer does not have");
        let source = self.open(&target_parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(missing)?;
        let (path, parent) = self.place(path)?;
        if target_parent.join(&target_name) == path {
            return Err(Refusal::at(&path, "a hard link to itself"));
        }
        self.clear(&parent, &path)?;
        self.note(&path);
        linkat(&source, target_name.as_os_str(), &parent, path.file_name().unwrap_or_default(), AtFlags::empty())
            .map_err(missing)
    }

    fn fifo(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Refusal> {
        let (path, parent) = self.place(path)?;
        self.clear(&parent, &path)?;
        let name = path.file_name().unwrap_or_default();
        mknodat(&parent, name, SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0).map_err(refused(&path))?;
        self.note(&path);
        apply(&parent, name, metadata, false).map_err(refused(&path))
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), Refusal> {
        if self.made.is_some() {
            return self.whiteout_merged(path);
        }
        let (path, parent) = self.place(path)?;
        self.clear(&parent, &path)?;
        // The kernel's own mark, which needs no privilege.
        mknodat(&parent, path.file_name().unwrap_or_default(), SFlag::S_IFCHR, Mode::empty(), 0).map_err(refused(&path))
    }

    fn opaque(&mut self, path: &Path) -> Result<(), Refusal> {
        let path = self.resolve(path)?;
        self.make_parents(&path)?;
        if self.made.is_some() {
            return self.empty(&path);
        }
        self.opaque.insert(path);
        Ok(())
    }
}

/// Opens a name below a directory; links and everything that leads out are errors.
pub(super) fn open_beneath(root: &impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Owner, then permissions, then (for what has no descriptor) the time.
fn apply(parent: &OwnedFd, name: &OsStr, metadata: &Metadata, link: bool) -> nix::Result<()> {
    fchownat(
        parent,
        name,
        Some(Uid::from_raw(metadata.uid)),
        Some(Gid::from_raw(metadata.gid)),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if link {
        let time = TimeSpec::new(metadata.modified, 0);
        return utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink);
    }
    // The entry was made by us a moment ago and nobody else is here, so it is no link.
    fchmodat(parent, name, Mode::from_bits_truncate(metadata.mode), FchmodatFlags::FollowSymlink)
}

fn attributes(file: &impl std::os::fd::AsRawFd, metadata: &Metadata) -> nix::Result<()> {
    for (name, value) in &metadata.attributes {
        let Ok(name) = std::ffi::CString::new(name.as_bytes()) else { continue };
        // SAFETY: descriptor, name and value are valid through the call, and the length is the value's.
        let set = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        nix::Error::result(set)?;
    }
    Ok(())
}

/// What a refusal of the kernel means for the entry.
pub(super) fn refused(path: &Path) -> impl FnOnce(nix::Error) -> Refusal {
    let path = path.to_path_buf();
    move |error| match error {
        nix::Error::ELOOP | nix::Error::EXDEV => Refusal::at(&path, "a path through a symbolic link"),
        nix::Error::ENOTDIR => Refusal::at(&path, "a path through something that is no directory"),
        error => Refusal::Io(io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::files;

    #[test]
    fn capabilities_and_setuid_survive_the_change_of_owner() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let temporary = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut directory = Directory::new(files::open_directory(temporary.path()).unwrap(), Vec::new());
        // Version 2, effective: CAP_NET_RAW permitted.
        let capability =
            [1u32 | 0x0200_0000, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let attributes = BTreeMap::from([("security.capability".to_owned(), capability.clone())]);
        let metadata = Metadata { uid: 1234, gid: 5678, mode: 0o4755, modified: 77, attributes };
        directory.file(Path::new("a/b"), &metadata, &mut &b"content"[..]).unwrap();
        // A later entry of the same name counts.
        directory.file(Path::new("a/b"), &metadata, &mut &b"newer"[..]).unwrap();
        directory.opaque(Path::new("o")).unwrap();
        assert_eq!(directory.finish().unwrap(), [PathBuf::from("o")]);
        let path = temporary.path().join("a/b");
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (made.uid(), made.gid(), made.mode() & 0o7777, made.mtime(), made.len()),
            (1234, 5678, 0o4755, 77, 5)
        );
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let mut value = [0u8; 64];
        // SAFETY: both names are valid C strings, and the buffer is as long as we say.
        let length = unsafe {
            libc::getxattr(name.as_ptr(), c"security.capability".as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        assert_eq!(value.get(..usize::try_from(length).unwrap()), Some(capability.as_slice()));
    }
}
