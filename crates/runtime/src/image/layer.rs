//! What a layer archive asks for, checked: which entries may be made, under which names, within which bounds.
//!
//! This module reads hostile bytes and touches no file; a [`Sink`] makes what it is told. Docker's whiteouts (`.wh.name`, `.wh..wh..opq`)
//! become calls of their own. Refused are absolute names, `..`, names through symbolic links, hard links out of the layer, device
//! nodes, and everything beyond the bounds.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tar::EntryType;

use super::{Digest, UnpackLimits, compression};

/// The kernel takes no longer name, and no longer path.
const MAXIMUM_NAME: usize = 255;
const MAXIMUM_PATH: usize = 4095;
/// Deeper trees nobody builds.
const MAXIMUM_DEPTH: usize = 512;
/// The ratio is looked at from here on: a small file of zeros is no attack.
const RATIO_FROM: u64 = 64 << 20;
/// Extended attributes of one file.
const MAXIMUM_ATTRIBUTES: usize = 64 << 10;

/// Why a layer is not unpacked.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// An entry that no layer may have.
    Unsafe { path: String, reason: String },
    /// A bound.
    TooLarge(String),
    /// No archive, or a damaged one.
    Invalid(String),
    /// The disk.
    Io(io::Error),
}

impl Refusal {
    pub(crate) fn at(path: &Path, reason: impl Into<String>) -> Self {
        let shown: String = path.to_string_lossy().chars().take(300).collect();
        Self::Unsafe { path: shown, reason: reason.into() }
    }
}

/// Owner, permissions, time, and the extended attributes that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
    pub attributes: BTreeMap<String, Vec<u8>>,
}

/// Makes what a layer holds. Paths are relative, without `.` and `..`; the empty one is the layer's root.
pub(crate) trait Sink {
    fn directory(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Refusal>;
    fn file(&mut self, path: &Path, metadata: &Metadata, content: &mut dyn Read) -> Result<(), Refusal>;
    fn symbolic_link(&mut self, path: &Path, target: &OsStr, metadata: &Metadata) -> Result<(), Refusal>;
    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Refusal>;
    fn fifo(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Refusal>;
    /// What lower layers have under this name is gone.
    fn whiteout(&mut self, path: &Path) -> Result<(), Refusal>;
    /// What lower layers have in this directory is gone.
    fn opaque(&mut self, path: &Path) -> Result<(), Refusal>;
}

/// A layer that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Of the unpacked archive.
    pub diff_id: Digest,
    pub bytes: u64,
    pub entries: u64,
}

/// Reads a layer, packed or not, into a sink.
pub(crate) fn read(layer: impl Read, limits: &UnpackLimits, sink: &mut dyn Sink) -> Result<Summary, Refusal> {
    let bounds = Bounds { limits: *limits, packed: Rc::default(), exceeded: Rc::default() };
    let counted = Counted { source: layer, count: Rc::clone(&bounds.packed) };
    let archive = compression::open(counted).map_err(|error| Refusal::Invalid(error.to_string()))?;
    let measured = Measured {
        source: archive,
        hash: ring::digest::Context::new(&ring::digest::SHA256),
        count: 0,
        bounds: bounds.clone(),
    };
    let mut archive = tar::Archive::new(measured);
    let outcome = entries(&mut archive, &bounds, sink).and_then(|entries| {
        let mut rest = archive.into_inner();
        // The digest is of everything, padding after the last entry included.
        io::copy(&mut rest, &mut io::sink()).map_err(|error| Refusal::Invalid(error.to_string()))?;
        Ok(Summary { diff_id: Digest::from_hash(rest.hash.finish()), bytes: rest.count, entries })
    });
    // A bound that stops the reading surfaces as a damaged archive otherwise.
    bounds.exceeded.take().map_or(outcome, |bound| Err(Refusal::TooLarge(bound)))
}

fn entries<R: Read>(archive: &mut tar::Archive<R>, bounds: &Bounds, sink: &mut dyn Sink) -> Result<u64, Refusal> {
    let invalid = |error: io::Error| Refusal::Invalid(error.to_string());
    let limits = bounds.limits;
    let mut count = 0;
    let mut content = 0;
    for entry in archive.entries().map_err(invalid)? {
        let mut entry = entry.map_err(invalid)?;
        count += 1;
        if count > limits.entries {
            return Err(Refusal::TooLarge(format!("more than {} entries", limits.entries)));
        }
        one(&mut entry, &mut content, bounds, sink)?;
    }
    Ok(count)
}

/// Makes one entry; `content` is how many bytes all files have so far.
fn one<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    content: &mut u64,
    bounds: &Bounds,
    sink: &mut dyn Sink,
) -> Result<(), Refusal> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let path = plain(&entry.path_bytes())?;
    if let Some(name) = path.file_name().map(OsStr::as_bytes)
        && let Some(hidden) = name.strip_prefix(b".wh.")
    {
        let parent = path.parent().unwrap_or(Path::new(""));
        return match hidden {
            b".wh..opq" => sink.opaque(parent),
            // Other marks of that old file system mean nothing here.
            _ if hidden.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(Refusal::at(&path, "a whiteout of nothing")),
            _ => sink.whiteout(&parent.join(OsStr::from_bytes(hidden))),
        };
    }
    if path.as_os_str().is_empty() && kind != EntryType::Directory {
        return Err(Refusal::at(Path::new("."), "the root is no directory"));
    }
    let metadata = metadata(entry, &path)?;
    match kind {
        EntryType::Directory => sink.directory(&path, &metadata),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            sink.file(&path, &metadata, &mut Content { source: entry, count: content, bounds })
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            if target.is_empty() || target.len() > MAXIMUM_PATH || target.contains(&0) {
                return Err(Refusal::at(&path, "a symbolic link to nothing"));
            }
            sink.symbolic_link(&path, OsStr::from_bytes(&target), &metadata)
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let target = plain(&target).map_err(|_| Refusal::at(&path, "a hard link out of the layer"))?;
            sink.hard_link(&path, &target)
        }
        EntryType::Fifo => sink.fifo(&path, &metadata),
        EntryType::Block | EntryType::Char => Err(Refusal::at(&path, "a device node")),
        other => Err(Refusal::at(&path, format!("an entry of unknown type {:?}", char::from(other.as_byte())))),
    }
}

/// A name without empty parts and `.`; refuses those that could mean anything outside.
fn plain(name: &[u8]) -> Result<PathBuf, Refusal> {
    let shown = Path::new(OsStr::from_bytes(name));
    if name.starts_with(b"/") {
        return Err(Refusal::at(shown, "an absolute path"));
    }
    if name.len() > MAXIMUM_PATH || name.contains(&0) {
        return Err(Refusal::at(shown, "no path of this system"));
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for part in name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        depth += 1;
        if part == b".." {
            return Err(Refusal::at(shown, "a path with \"..\""));
        }
        if part.len() > MAXIMUM_NAME || depth > MAXIMUM_DEPTH {
            return Err(Refusal::at(shown, "too long or too deep a path"));
        }
        path.push(OsStr::from_bytes(part));
    }
    Ok(path)
}

fn metadata<R: Read>(entry: &mut tar::Entry<'_, R>, path: &Path) -> Result<Metadata, Refusal> {
    let invalid = |error: io::Error| Refusal::Invalid(format!("{}: {error}", path.display()));
    let id = |id: u64| u32::try_from(id).map_err(|_| Refusal::at(path, "an owner beyond 32 bits"));
    let header = entry.header();
    let old = header.as_old();
    // A field left blank is a zero; one that holds something else is not a number, and damage.
    let number = |value: io::Result<u64>, field: &[u8]| {
        if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { value.map_err(invalid) }
    };
    let mode = u32::try_from(number(header.mode().map(u64::from), &old.mode)? & 0o7777).unwrap_or(0);
    let (uid, gid) = (id(number(header.uid(), &old.uid)?)?, id(number(header.gid(), &old.gid)?)?);
    let modified = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
    let mut metadata = Metadata { uid, gid, mode, modified, attributes: BTreeMap::new() };
    let mut size = 0;
    if let Some(extensions) = entry.pax_extensions().map_err(invalid)? {
        for extension in extensions {
            let extension = extension.map_err(invalid)?;
            let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else { continue };
            size += name.len() + extension.value_bytes().len();
            if size > MAXIMUM_ATTRIBUTES || name.len() > MAXIMUM_NAME || name.contains('\0') {
                return Err(Refusal::at(path, "too large extended attributes"));
            }
            // Those of the overlay itself would redirect it; those of a security module belong to the host. Docker keeps no others either.
            if name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.overlay.") {
                metadata.attributes.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
    }
    Ok(metadata)
}

/// Counts what was read from below.
struct Counted<R> {
    source: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Hashes and bounds what is handed up.
struct Measured<R> {
    source: R,
    hash: ring::digest::Context,
    count: u64,
    bounds: Bounds,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        self.bounds.check(self.count).map(|()| count)
    }
}

/// The content of a file. Bounded too, because the holes of a sparse one are nowhere in the archive.
struct Content<'a, R> {
    source: R,
    count: &'a mut u64,
    bounds: &'a Bounds,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        *self.count += count as u64;
        self.bounds.check(*self.count).map(|()| count)
    }
}

/// How much may come out of how much.
#[derive(Clone)]
struct Bounds {
    limits: UnpackLimits,
    /// Bytes of the packed layer so far.
    packed: Rc<Cell<u64>>,
    /// The bound that was exceeded, in words.
    exceeded: Rc<Cell<Option<String>>>,
}

impl Bounds {
    fn check(&self, count: u64) -> io::Result<()> {
        let bound = if count > self.limits.bytes {
            format!("more than {} bytes unpacked", self.limits.bytes)
        } else if count > RATIO_FROM && count > self.packed.get().saturating_mul(self.limits.ratio) {
            format!("compressed more than {} to 1", self.limits.ratio)
        } else {
            return Ok(());
        };
        self.exceeded.set(Some(bound));
        Err(io::Error::other("a bound was exceeded"))
    }
}

/// Forgets everything: what the fuzzer and the tests of the rules need.
#[derive(Default)]
pub(crate) struct Forgetful {
    pub calls: Vec<String>,
}

impl Forgetful {
    fn note(&mut self, what: &str, path: &Path) -> Result<(), Refusal> {
        assert!(
            path.components().all(|part| matches!(part, std::path::Component::Normal(_))),
            "a path that is not plain came through"
        );
        if self.calls.len() < 10_000 {
            self.calls.push(format!("{what} {}", path.display()));
        }
        Ok(())
    }
}

impl Sink for Forgetful {
    fn directory(&mut self, path: &Path, _: &Metadata) -> Result<(), Refusal> {
        self.note("directory", path)
    }

    fn file(&mut self, path: &Path, _: &Metadata, content: &mut dyn Read) -> Result<(), Refusal> {
        io::copy(content, &mut io::sink()).map_err(|error| Refusal::Invalid(error.to_string()))?;
        self.note("file", path)
    }

    fn symbolic_link(&mut self, path: &Path, _: &OsStr, _: &Metadata) -> Result<(), Refusal> {
        self.note("link", path)
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Refusal> {
        self.note("hard", target)?;
        self.note("link", path)
    }

    fn fifo(&mut self, path: &Path, _: &Metadata) -> Result<(), Refusal> {
        self.note("fifo", path)
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), Refusal> {
        self.note("whiteout", path)
    }

    fn opaque(&mut self, path: &Path) -> Result<(), Refusal> {
        self.note("opaque", path)
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
