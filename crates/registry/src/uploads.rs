//! Bytes on their way in: files that have no digest yet.
//!
//! An upload is a file named by its id and its repository, so that it can be continued after a restart of the server;
//! its running digest is kept in memory and computed anew when it is lost. Bytes go to disk in batches while the next
//! batch is being received: memory stays the same for any size, and no thread waits for a slow client.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use domain::repositories::Digest;
use http_body_util::BodyExt;
use tokio::sync::OwnedMutexGuard;

use crate::{Hasher, RegistryError, blocking, disk};

/// A request's body of any origin.
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// A request's body of bytes that are there already.
pub fn body_of(bytes: Vec<u8>) -> RequestBody {
    http_body_util::Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

/// The largest layer: Amazon's quota, 52,000 MiB.
pub const MAX_LAYER_BYTES: u64 = 52_000 * 1024 * 1024;
/// How many bytes are gathered before they are written.
const BATCH_BYTES: usize = 1 << 20;
/// How many bytes may wait for the disk before it is told to begin.
const WRITE_BACK_BYTES: u64 = 16 << 20;
/// How long a client may send nothing.
const IDLE: Duration = Duration::from_secs(60);
/// How many uploads may be unfinished at once.
const MAX_UPLOADS: usize = 10_000;

/// An upload's id: a version 4 UUID.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UploadId(String);

impl UploadId {
    /// An id from a request; `None` when it is none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let id = uuid::Uuid::try_parse(text).ok()?;
        // Only the one form is a file name.
        (id.hyphenated().to_string() == text).then(|| Self(text.to_owned()))
    }

    fn new() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The unfinished uploads of all repositories.
pub struct Uploads {
    directory: PathBuf,
    open: Mutex<HashMap<String, Arc<tokio::sync::Mutex<State>>>>,
}

/// An upload between two requests.
#[derive(Default)]
struct State {
    size: u64,
    /// Missing when this process did not see all the bytes.
    hasher: Option<Hasher>,
    /// Finished, cancelled or swept while somebody waited for it.
    gone: bool,
}

/// A finished upload, ready to become a blob.
pub struct Staged {
    /// Where the bytes are.
    pub path: PathBuf,
    /// What they are.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

impl Uploads {
    /// The uploads in a directory, which is made if it is missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), open: Mutex::default() })
    }

    /// Begins an upload into a repository.
    pub async fn begin(&self, repository: &str) -> Result<UploadId, RegistryError> {
        let id = UploadId::new();
        let name = file_name(repository, &id);
        let path = self.directory.join(&name);
        let state = State { hasher: Some(Hasher::default()), ..State::default() };
        {
            let mut open = self.lock();
            if open.len() >= MAX_UPLOADS {
                return Err(RegistryError::TooManyUploads);
            }
            open.insert(name, Arc::new(tokio::sync::Mutex::new(state)));
        }
        let made = blocking(move || OpenOptions::new().write(true).create_new(true).open(path).map(drop)).await;
        if made.is_err() {
            self.lock().remove(&file_name(repository, &id));
        }
        made?;
        Ok(id)
    }

    /// How many bytes an upload has.
    pub async fn size(&self, repository: &str, id: &UploadId) -> Result<u64, RegistryError> {
        Ok(self.state(repository, id).await?.size)
    }

    /// Appends a body to an upload and returns how many bytes it has then. When the body or the disk fails half-way,
    /// what was written before stays, and the upload can be continued from there. `at` is where the client thinks that
    /// the upload ends, `length` how many bytes it announced.
    pub async fn append(
        &self,
        repository: &str,
        id: &UploadId,
        at: Option<u64>,
        length: Option<u64>,
        mut body: RequestBody,
    ) -> Result<u64, RegistryError> {
        let mut state = self.state(repository, id).await?;
        if at.is_some_and(|at| at != state.size) {
            return Err(RegistryError::RangeInvalid { offset: state.size });
        }
        let limit = MAX_LAYER_BYTES.saturating_sub(state.size);
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let path = self.directory.join(file_name(repository, id));
        let (file, state) = blocking(move || {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            if state.hasher.is_none() {
                let (hasher, size) = disk::rehash(&mut file)?;
                (state.hasher, state.size) = (Some(hasher), size);
            }
            Ok((Arc::new(file), state))
        })
        .await?;
        let mut received = 0;
        let mut write_back = WriteBack::new(file.clone());
        let mut turn = Turn::Ready(state);
        loop {
            // The next batch comes in while the last one is hashed and written.
            let (batch, end) = gather(&mut body).await;
            let mut state = turn.wait().await?;
            received += batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            if received > limit {
                return Err(too_large());
            }
            // The lock travels with the work: when this request is dropped, its write still ends before another's.
            let file = file.clone();
            turn = match batch.is_empty() {
                true => Turn::Ready(state),
                false => Turn::Writing(tokio::task::spawn_blocking(move || state.write(&file, &batch).map(|()| state))),
            };
            write_back.received(received);
            if let Some(end) = end {
                let size = turn.wait().await?.size;
                end?;
                return match length {
                    Some(length) if length != received => Err(RegistryError::SizeInvalid(format!(
                        "The request announced {length} bytes and had {received}"
                    ))),
                    _ => Ok(size),
                };
            }
        }
    }

    /// Ends an upload: checks its digest and hands its file over. A wrong digest removes the upload.
    pub async fn finish(
        &self,
        repository: &str,
        id: &UploadId,
        expected: Option<&Digest>,
    ) -> Result<Staged, RegistryError> {
        let mut state = self.state(repository, id).await?;
        let path = self.directory.join(file_name(repository, id));
        if state.hasher.is_none() {
            let path = path.clone();
            state = blocking(move || {
                let (hasher, size) = disk::rehash(&mut File::open(path)?)?;
                (state.hasher, state.size) = (Some(hasher), size);
                Ok(state)
            })
            .await?;
        }
        let digest = state.hasher.take().unwrap_or_default().finish();
        state.gone = true;
        self.lock().remove(&file_name(repository, id));
        if expected.is_none_or(|expected| *expected == digest) {
            return Ok(Staged { path, digest, size: state.size });
        }
        remove(path).await?;
        Err(RegistryError::DigestInvalid(format!("The layer's digest is '{digest}', not the one that was provided")))
    }

    /// Removes an upload.
    pub async fn cancel(&self, repository: &str, id: &UploadId) -> Result<(), RegistryError> {
        self.state(repository, id).await?.gone = true;
        let name = file_name(repository, id);
        self.lock().remove(&name);
        remove(self.directory.join(name)).await
    }

    /// A path for bytes that are whole already, where they are swept if they do not become a blob.
    pub(crate) fn staging_path(&self) -> PathBuf {
        self.directory.join(format!("{}-staged", UploadId::new().as_str()))
    }

    /// Removes what nobody has written to for `grace`, and returns how many that were.
    pub(crate) fn sweep(&self, grace: Duration) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let stale = disk::found(entry.metadata())?.is_some_and(|metadata| disk::age(&metadata) >= grace);
            if !stale {
                continue;
            }
            // Whoever is writing to it now keeps it.
            let mut open = self.lock();
            let free = match open.get(&name).map(|state| state.clone().try_lock_owned()) {
                None => true,
                Some(Ok(mut state)) => {
                    state.gone = true;
                    true
                }
                Some(Err(_)) => false,
            };
            if free {
                open.remove(&name);
                disk::found(fs::remove_file(entry.path()))?;
                swept += 1;
            }
        }
        // What has no file any more was taken from under us; forget it.
        self.lock().retain(|name, _| self.directory.join(name).exists());
        Ok(swept)
    }

    /// The upload, locked: from memory, or from the disk after a restart.
    async fn state(&self, repository: &str, id: &UploadId) -> Result<OwnedMutexGuard<State>, RegistryError> {
        let unknown = || RegistryError::UploadNotFound(id.as_str().to_owned());
        let name = file_name(repository, id);
        let known = self.lock().get(&name).cloned();
        let state = match known {
            Some(state) => state,
            None => {
                let path = self.directory.join(&name);
                let metadata = blocking(move || disk::found(fs::metadata(path))).await?.ok_or_else(unknown)?;
                let state = State { size: metadata.len(), ..State::default() };
                self.lock().entry(name).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(state))).clone()
            }
        };
        let state = state.lock_owned().await;
        if state.gone { Err(unknown()) } else { Ok(state) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<State>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes a batch, or nothing of it that counts.
    fn write(&mut self, file: &File, batch: &[Bytes]) -> io::Result<()> {
        let mut end = self.size;
        for bytes in batch {
            if let Err(error) = file.write_all_at(bytes, end) {
                // The running digest has only what came before this batch; the file must not have more.
                file.set_len(self.size)?;
                return Err(error);
            }
            end += bytes.len() as u64;
        }
        if let Some(hasher) = &mut self.hasher {
            batch.iter().for_each(|bytes| hasher.update(bytes));
        }
        self.size = end;
        Ok(())
    }
}

/// Whose turn it is to have the upload's state.
enum Turn {
    Ready(OwnedMutexGuard<State>),
    Writing(tokio::task::JoinHandle<io::Result<OwnedMutexGuard<State>>>),
}

impl Turn {
    async fn wait(self) -> io::Result<OwnedMutexGuard<State>> {
        match self {
            Self::Ready(state) => Ok(state),
            Self::Writing(writing) => writing.await.map_err(io::Error::other)?,
        }
    }
}

/// Tells the disk to begin while bytes still come in, so that little is left to wait for at the end.
struct WriteBack {
    file: Arc<File>,
    begun: u64,
    running: Arc<AtomicBool>,
}

impl WriteBack {
    fn new(file: Arc<File>) -> Self {
        Self { file, begun: 0, running: Arc::default() }
    }

    fn received(&mut self, received: u64) {
        if received - self.begun < WRITE_BACK_BYTES || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        self.begun = received;
        let (file, running) = (self.file.clone(), self.running.clone());
        drop(tokio::task::spawn_blocking(move || {
            // A failure shows again when the blob is synced before it is adopted.
            drop(file.sync_data());
            running.store(false, Ordering::Release);
        }));
    }
}

/// The next batch of a body, and how it ended when it did.
async fn gather(body: &mut RequestBody) -> (Vec<Bytes>, Option<Result<(), RegistryError>>) {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < BATCH_BYTES {
        match tokio::time::timeout(IDLE, body.frame()).await {
            Ok(None) => return (batch, Some(Ok(()))),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    size += bytes.len();
                    batch.push(bytes);
                }
            }
            Ok(Some(Err(error))) => return (batch, Some(Err(RegistryError::Body(error.to_string())))),
            Err(_) => {
                let text = format!("nothing was sent for {} seconds", IDLE.as_secs());
                return (batch, Some(Err(RegistryError::Body(text))));
            }
        }
    }
    (batch, None)
}

async fn remove(path: PathBuf) -> Result<(), RegistryError> {
    blocking(move || disk::found(fs::remove_file(path))).await?;
    Ok(())
}

fn too_large() -> RegistryError {
    RegistryError::TooLarge(format!("A layer can have at most {MAX_LAYER_BYTES} bytes"))
}

/// The id and the repository together: an upload is known only where it was begun.
fn file_name(repository: &str, id: &UploadId) -> String {
    let digest = Hasher::of(repository.as_bytes());
    format!("{}-{}", id.as_str(), digest.hex().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn append(uploads: &Uploads, id: &UploadId, at: Option<u64>, bytes: &[u8]) -> Result<u64, RegistryError> {
        uploads.append("r", id, at, None, body_of(bytes.to_vec())).await
    }

    #[tokio::test]
    async fn an_upload_is_known_only_where_it_was_begun() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(directory.path()).unwrap();
        let id = uploads.begin("r").await.unwrap();
        assert!(matches!(uploads.size("other", &id).await, Err(RegistryError::UploadNotFound(_))));
        assert_eq!(uploads.size("r", &id).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_upload_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(directory.path()).unwrap();
        let id = uploads.begin("r").await.unwrap();
        assert_eq!(append(&uploads, &id, Some(0), b"hello ").await.unwrap(), 6);
        let uploads = Uploads::open(directory.path()).unwrap();
        assert_eq!(uploads.size("r", &id).await.unwrap(), 6);
        assert!(matches!(append(&uploads, &id, Some(5), b"x").await, Err(RegistryError::RangeInvalid { offset: 6 })));
        assert_eq!(append(&uploads, &id, Some(6), b"world").await.unwrap(), 11);
        let staged = uploads.finish("r", &id, Some(&Hasher::of(b"hello world"))).await.unwrap();
        assert_eq!((staged.size, fs::read(&staged.path).unwrap()), (11, b"hello world".to_vec()));
    }

    #[tokio::test]
    async fn a_wrong_digest_removes_the_upload() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(directory.path()).unwrap();
        let id = uploads.begin("r").await.unwrap();
        append(&uploads, &id, None, b"a").await.unwrap();
        let refused = uploads.finish("r", &id, Some(&Hasher::of(b"b"))).await;
        assert!(matches!(refused, Err(RegistryError::DigestInvalid(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_came_before_a_broken_connection_stays() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(directory.path()).unwrap();
        let id = uploads.begin("r").await.unwrap();
        let broken = Broken(vec![Ok(Bytes::from_static(b"abc")), Err(io::ErrorKind::ConnectionReset.into())]);
        let error = uploads.append("r", &id, None, None, broken.boxed_unsync()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Body(_)), "{error}");
        assert_eq!(append(&uploads, &id, Some(3), b"def").await.unwrap(), 6);
        assert_eq!(uploads.finish("r", &id, None).await.unwrap().digest, Hasher::of(b"abcdef"));
    }

    #[tokio::test]
    async fn stale_uploads_are_swept_and_fresh_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(directory.path()).unwrap();
        let id = uploads.begin("r").await.unwrap();
        fs::write(uploads.staging_path(), b"a manifest that was never adopted").unwrap();
        assert_eq!(uploads.sweep(Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(uploads.size("r", &id).await.unwrap(), 0);
        assert_eq!(uploads.sweep(Duration::ZERO).unwrap(), 2);
        assert!(uploads.size("r", &id).await.is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn ids_are_file_names_and_nothing_else() {
        let id = UploadId::new();
        assert_eq!(UploadId::parse(id.as_str()), Some(id.clone()));
        for wrong in ["", "..", "../../etc/passwd", &id.as_str().to_uppercase(), &id.as_str().replace('-', "")] {
            assert_eq!(UploadId::parse(wrong), None, "{wrong}");
        }
    }

    /// A body of which each item comes at its turn, failures too.
    struct Broken(Vec<io::Result<Bytes>>);

    impl http_body::Body for Broken {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            let next = if self.0.is_empty() { None } else { Some(self.0.remove(0).map(http_body::Frame::data)) };
            std::task::Poll::Ready(next)
        }
    }
}
