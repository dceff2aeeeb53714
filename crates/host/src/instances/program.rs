//! This program inside an instance whose files are an OCI image's: nothing of the machine's `/usr` is there, and the image
//! may have another C library or none. So the program is started by the machine's own dynamic loader, with the machine's
//! libraries, all of them in a directory of `/run` that no program of the image looks into.
//!
//! A loader's name is written in the program itself: what is brought in is a copy with another name in that place. That its
//! libraries are looked for there first is said at the linking (`server/build.rs`).

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use super::{image, mounts};

/// Where it is inside.
pub(super) const PROGRAM: &str = "/run/longshore/bin/longshore";
/// The directory that `server/build.rs` names.
const LIBRARIES: &str = "/run/longshore/lib";
const LOADER: &str = "/run/longshore/lib/ld.so";

/// Programs of the machine's that the agent calls, and where they are inside. They are found through a script beside [`PROGRAM`].
const TOOLS: &[(&str, &str)] = &[("nft", "/run/longshore/lib/nft")];

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

/// What must be brought in. To be asked before the machine's file systems are left.
pub(super) fn pieces(executable: &Path, directory: &Path) -> io::Result<Vec<Piece>> {
    let mut pieces = BTreeMap::from([(PathBuf::from(PROGRAM), prepare(executable, directory)?)]);
    with_libraries(executable, &mut pieces)?;
    for (tool, target) in TOOLS {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().map(|place| Path::new(place).join(tool));
        // Without it the agent says what it misses.
        if let Some(found) = found.into_iter().find(|path| path.is_file()) {
            with_libraries(&found, &mut pieces)?;
            pieces.insert(PathBuf::from(target), fs::canonicalize(found)?);
        }
    }
    Ok(pieces.into_iter().map(|(target, source)| (source, target)).collect())
}

/// Adds a program's loader, and the libraries that this one finds for it.
fn with_libraries(program: &Path, pieces: &mut BTreeMap<PathBuf, PathBuf>) -> io::Result<()> {
    let file = File::open(program)?;
    let Some((at, length)) = loader(&file)? else { return Ok(()) };
    let mut name = vec![0; length];
    file.read_exact_at(&mut name, at)?;
    let loader = fs::canonicalize(String::from_utf8_lossy(&name).trim_end_matches('\0'))?;
    let output = Command::new(&loader).arg("--list").arg(program).env_clear().output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{}: {}", program.display(), said.trim())));
    }
    for (name, path) in libraries(&String::from_utf8_lossy(&output.stdout)) {
        pieces.insert(Path::new(LIBRARIES).join(name), fs::canonicalize(path)?);
    }
    pieces.insert(PathBuf::from(LOADER), loader);
    Ok(())
}

/// Libraries by the names they are asked for, as a loader lists them.
fn libraries(list: &str) -> Vec<(&str, &str)> {
    let found = list.lines().filter_map(|line| {
        let (name, path) = line.trim().split_once(" => ")?;
        let path = path.split(" (").next()?;
        (path.starts_with('/') && !name.contains('/')).then_some((name, path))
    });
    found.collect()
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
    for (name, path) in TOOLS {
        let script = format!("#!/bin/sh\nexec {LOADER} --library-path {LIBRARIES} {path} \"$@\"\n");
        image::command(&Path::new(PROGRAM).with_file_name(name), &script)?;
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
    fn libraries_are_found_as_the_loader_finds_them() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibnone.so => not found\n";
        assert_eq!(libraries(list), [("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6")]);
        let own = pieces(&std::env::current_exe().unwrap(), tempfile::tempdir().unwrap().path()).unwrap();
        assert!(own.iter().any(|(_, target)| target == Path::new(PROGRAM)));
        assert!(own.iter().all(|(source, _)| source.is_absolute()));
    }
}
