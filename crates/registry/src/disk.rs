//! Blobs as files of a directory: `sha256/{two digits}/{64 digits}`.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use domain::repositories::Digest;

use crate::{
    Blob, BlobStore,
    changes::{Changes, Kernel},
};

/// A directory of blobs.
pub struct DiskBlobs {
    disk: Arc<dyn Changes>,
    directory: PathBuf,
    root: PathBuf,
}

impl DiskBlobs {
    /// The blobs in a directory, which is made, with its 256 parts, if it is missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::open_on(Arc::new(Kernel), directory)
    }

    pub(crate) fn open_on(disk: Arc<dyn Changes>, directory: &Path) -> io::Result<Self> {
        let root = directory.join("sha256");
        disk.make_directory(&root)?;
        for part in 0..=255_u8 {
            disk.make_directory(&root.join(format!("{part:02x}")))?;
        }
        // The entries that lead to the blobs must outlive a power cut just as the blobs themselves.
        for directory in [root.as_path(), directory] {
            disk.sync(&File::open(directory)?)?;
        }
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync(&File::open(parent)?)?;
        }
        Ok(Self { disk, directory: directory.to_owned(), root })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.file())
    }
}

impl BlobStore for DiskBlobs {
    fn adopt(&self, staged: &Path, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        self.disk.sync(&File::open(staged)?)?;
        self.disk.rename(staged, &path)?;
        match path.parent() {
            Some(parent) => self.disk.sync(&File::open(parent)?),
            None => Ok(()),
        }
    }

    fn open(&self, digest: &Digest) -> io::Result<Option<Box<dyn Blob>>> {
        let Some(file) = found(File::open(self.path(digest)))? else { return Ok(None) };
        let size = file.metadata()?.len();
        Ok(Some(Box::new(BlobFile { file, size })))
    }

    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        Ok(found(fs::metadata(self.path(digest)))?.map(|metadata| metadata.len()))
    }

    fn remove(&self, digest: &Digest) -> io::Result<()> {
        found(self.disk.remove(&self.path(digest))).map(|_| ())
    }

    fn list(&self, each: &mut dyn FnMut(Digest, Duration)) -> io::Result<()> {
        for part in fs::read_dir(&self.root)? {
            let part = part?;
            if !part.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(part.path())? {
                let entry = entry?;
                // What has no digest for a name is not ours.
                let digest = entry.file_name().to_str().and_then(|name| format!("sha256:{name}").parse().ok());
                if let (Some(digest), Some(metadata)) = (digest, found(entry.metadata())?) {
                    each(digest, age(&metadata));
                }
            }
        }
        Ok(())
    }
}

struct BlobFile {
    file: File,
    size: u64,
}

impl Blob for BlobFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_at_hand(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let buffers = &mut [io::IoSliceMut::new(buffer)];
        // What is not in the page cache, or cannot be asked for so, is read by a thread that may wait.
        match rustix::io::preadv2(&self.file, buffers, offset, rustix::io::ReadWriteFlags::NOWAIT) {
            Ok(0) | Err(_) => None,
            Ok(count) => Some(count),
        }
    }
}

/// The digest's state over the bytes that a file has, and how many they are. Leaves the file's position at its end.
pub(crate) fn rehash(file: &mut File) -> io::Result<(crate::Hasher, u64)> {
    let mut hasher = crate::Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    file.seek(SeekFrom::Start(0))?;
    loop {
        let count = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok((hasher, size)) };
        hasher.update(bytes);
        size += count as u64;
    }
}

/// How long ago a file was written.
#[allow(clippy::disallowed_methods, reason = "compared with the kernel's own time stamps")]
pub(crate) fn age(metadata: &fs::Metadata) -> Duration {
    let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    SystemTime::now().duration_since(written).unwrap_or_default()
}

/// A missing file is an answer, not a failure.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hasher;

    fn store() -> (tempfile::TempDir, DiskBlobs) {
        let directory = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(&directory.path().join("blobs")).unwrap();
        (directory, blobs)
    }

    #[test]
    fn a_blob_is_read_back_removed_and_listed() {
        let (directory, blobs) = store();
        let staged = directory.path().join("staged");
        fs::write(&staged, b"hello").unwrap();
        let digest = Hasher::of(b"hello");
        assert_eq!(blobs.size(&digest).unwrap(), None);
        blobs.adopt(&staged, &digest).unwrap();
        assert!(!staged.exists());
        let blob = blobs.open(&digest).unwrap().unwrap();
        let read = |offset, length| {
            let mut buffer = vec![0; length];
            let count = blob.read(offset, &mut buffer).unwrap();
            if let Some(at_hand) = blob.read_at_hand(offset, &mut vec![0; length]) {
                assert!(at_hand <= count);
            }
            buffer.truncate(count);
            buffer
        };
        assert_eq!((blob.size(), read(1, 3), read(3, 100), read(9, 10)), (5, b"ell".to_vec(), b"lo".to_vec(), vec![]));
        let mut seen = Vec::new();
        blobs.list(&mut |digest, _| seen.push(digest)).unwrap();
        assert_eq!(seen, std::slice::from_ref(&digest));
        blobs.remove(&digest).unwrap();
        blobs.remove(&digest).unwrap();
        assert!(blobs.open(&digest).unwrap().is_none());
        assert_eq!(read(0, 5), b"hello", "an open blob stays readable");
    }

    #[test]
    fn strangers_in_the_directory_are_left_alone() {
        let (directory, blobs) = store();
        fs::write(directory.path().join("blobs/sha256/ab/notes.txt"), b"x").unwrap();
        fs::write(directory.path().join("blobs/sha256/notes.txt"), b"x").unwrap();
        blobs.list(&mut |digest, _| panic!("{digest}")).unwrap();
    }
}
