//! The seam to what keeps blobs: content under its digest, never changed, whole or not there.
//!
//! All calls block; the callers run them on threads made for that.

use std::{io, path::Path, time::Duration};

use domain::repositories::Digest;

/// What keeps blobs. Which repository may see one is not its business.
pub trait BlobStore: Send + Sync + 'static {
    /// Makes the file at `staged` the blob `digest`: when this returns, the blob survives a power cut, and the staged
    /// file is gone. Whoever calls has verified the digest. A blob that is already there is replaced by the same bytes.
    fn adopt(&self, staged: &Path, digest: &Digest) -> io::Result<()>;

    /// Opens a blob for reading; `None` when it is not there. An open blob stays readable when it is removed.
    fn open(&self, digest: &Digest) -> io::Result<Option<Box<dyn Blob>>>;

    /// How many bytes a blob has; `None` when it is not there.
    fn size(&self, digest: &Digest) -> io::Result<Option<u64>>;

    /// Removes a blob, if it is there.
    fn remove(&self, digest: &Digest) -> io::Result<()>;

    /// Gives every blob and how long ago it was adopted.
    fn list(&self, each: &mut dyn FnMut(Digest, Duration)) -> io::Result<()>;
}

/// An open blob.
pub trait Blob: Send + Sync {
    /// How many bytes it has.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on, and returns how many they are: fewer only at the end. Blocks.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`Blob::read`], but only with what is at hand without waiting; `None` when that is nothing.
    fn read_at_hand(&self, _offset: u64, _buffer: &mut [u8]) -> Option<usize> {
        None
    }
}
