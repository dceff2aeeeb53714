//! This program inside an instance whose files are an OCI image's: nothing of the machine's `/usr` is there, and the image
//! may have another C library or none. So the program is started by the machine's own dynamic loader, with the machine's
//! libraries, all of them in a directory of `/run` that no program of the image looks into.
//!
//! A loader's name is written in the program itself: what is brought in is a copy with another name in that place. That its
//! libraries are looked for there first is said at the linking (`server/build.rs`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{image, mounts};

/// Where it is inside.
pub(super) const PROGRAM: &str = "/run/longshore/bin/longshore";
/// The directory that `server/build.rs` names.
const LIBRARIES: &str = "/run/longshore/lib";
const LOADER: &str = "/run/longshore/lib/ld.so";

/// A file and the path it gets inside.
type Piece = (PathBuf, PathBuf);

/// Finds the copy of a program in a directory, or makes it; copies of others go.
pub(super) fn prepare(executable: &Path, directory: &Path) -> io::Result<PathBuf> {
    let metadata = fs::metadata(executable)?;
    let stamp = (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    let name = format!("program-{:x}-{:x}-{:x}-{:x}-{:x}", stamp.0, stamp.1, stamp.2, stamp.3, stamp.4);
    let path = directory.join(&name);
    if path.exists() {
        return Ok(path);
    }
    // Several instances boot at the same time.
    let lock = File::create(directory.join("program.lock"))?;
    lock.lock()?;
    if !path.exists() {
        for entry in fs::read_dir(directory)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("program-") {
                fs::remove_file(entry.path())?;
            }
        }
        let temporary = directory.join("program-new");
        fs::copy(executable, &temporary)?;
        let file = OpenOptions::new().read(true).write(true).open(&temporary)?;
        if let Some((at, length)) = loader(&file)? {
            let mut name = LOADER.as_bytes().to_vec();
            name.resize(length, 0);
            if name.last() != Some(&0) {
                return Err(io::Error::other(format!("{}: no room for another loader's name", executable.display())));
            }
            file.write_all_at(&name, at)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
    }
    Ok(path)
}

/// Where a program names its loader, and how many bytes there are for it; `None` if it needs none.
fn loader(mut file: &File) -> io::Result<Option<(u64, usize)>> {
    const INTERPRETER: u32 = 3;
    let mut header = [0; 64];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut header)?;
    let (class, order) = (header[4], header[5]);
    if !header.starts_with(b"\x7fELF") || (class, order) != (2, 1) {
        return Err(io::Error::other("it is no 64-bit program"));
    }
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let (offset, count) = (word(&header[32..40]), u16::from_le_bytes([header[56], header[57]]));
    for number in 0..u64::from(count) {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, offset + 56 * number)?;
        if u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) == INTERPRETER {
            let length = usize::try_from(word(&entry[32..40])).unwrap_or(usize::MAX);
            return Ok(Some((word(&entry[8..16]), length.min(4096))));
        }
    }
    Ok(None)
}

/// What must be brought in. To be asked by this program, before the machine's file systems are left.
pub(super) fn pieces(executable: &Path, directory: &Path) -> io::Result<Vec<Piece>> {
    let mut pieces = vec![(prepare(executable, directory)?, PathBuf::from(PROGRAM))];
    let own = File::open(executable)?;
    let Some((at, length)) = loader(&own)? else { return Ok(pieces) };
    let mut name = vec![0; length];
    own.read_exact_at(&mut name, at)?;
    let name = String::from_utf8_lossy(&name);
    let loader = fs::canonicalize(name.trim_end_matches('\0'))?;
    for library in libraries(&fs::read_to_string("/proc/self/maps")?) {
        if library == loader {
            continue;
        }
        for name in names(&library)? {
            pieces.push((library.clone(), Path::new(LIBRARIES).join(name)));
        }
    }
    pieces.push((loader, PathBuf::from(LOADER)));
    Ok(pieces)
}

/// The libraries that a process has loaded.
fn libraries(maps: &str) -> Vec<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")));
    let mut libraries: Vec<PathBuf> =
        paths.filter(|path| path.rsplit('/').next().is_some_and(|name| name.contains(".so"))).map(Into::into).collect();
    libraries.sort();
    libraries.dedup();
    libraries
}

/// A library's name, and those that links beside it give it: programs ask for `libc.so.6` where the file is `libc-2.31.so`.
fn names(library: &Path) -> io::Result<Vec<PathBuf>> {
    let Some((directory, own)) = library.parent().zip(library.file_name()) else { return Ok(Vec::new()) };
    let mut names = vec![PathBuf::from(own)];
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().contains(".so") && fs::read_link(entry.path()).is_ok_and(|link| link == own) {
            names.push(name.into());
        }
    }
    Ok(names)
}

/// Brings it in. `/` is the instance's, the working directory the machine's; after `/run` is there.
pub(super) fn bring_in(pieces: &[Piece]) -> io::Result<()> {
    for (source, target) in pieces {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(target)?;
        mounts::bind_read_only_file(source, target)?;
    }
    image::power_commands(PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_names_another_loader_and_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        fs::write(directory.path().join("program-1-2-3"), "an older one").unwrap();
        let copy = prepare(&own, directory.path()).unwrap();
        let file = File::open(&copy).unwrap();
        if let Some((at, length)) = loader(&file).unwrap() {
            let mut name = vec![0; length];
            file.read_exact_at(&mut name, at).unwrap();
            assert_eq!(String::from_utf8(name).unwrap().trim_end_matches('\0'), LOADER);
        }
        assert_eq!(fs::metadata(&own).unwrap().len(), fs::metadata(&copy).unwrap().len());
        let inode = fs::metadata(&copy).unwrap().ino();
        assert_eq!(prepare(&own, directory.path()).unwrap(), copy);
        assert_eq!(fs::metadata(&copy).unwrap().ino(), inode);
        assert!(!directory.path().join("program-1-2-3").exists());
    }

    #[test]
    fn loaded_libraries_are_found() {
        let maps = "7f1 r--p 00 08:01 1   /usr/lib/x86_64-linux-gnu/libc.so.6\n\
             7f2 r-xp 00 08:01 1   /usr/lib/x86_64-linux-gnu/libc.so.6\n\
             7f3 rw-p 00 00:00 0   [heap]\n7f4 r--p 00 08:01 2   /opt/longshore\n";
        assert_eq!(libraries(maps), [Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6")]);
        let own = pieces(&std::env::current_exe().unwrap(), tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(own[0].1, Path::new(PROGRAM));
    }
}
