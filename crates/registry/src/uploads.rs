//! Bytes on their way in: files that have no digest yet.
//!
//! An upload is a file named by its id and its repository, so that it can be continued after a restart of the server;
//! its running digest is kept in memory and computed anew when it is lost. Bytes go to disk in batches while the next
//! batch is being received: memory stays the same for any size, and no thread waits for a slow client.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use domain::repositories::Digest;
use http_body_util::BodyExt;
use tokio::sync::OwnedMutexGuard;

use crate::{Hasher, RegistryError, blocking, changes::Changes, disk, write_back::WriteBack};

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
    disk: Arc<dyn Changes>,
    directory: PathBuf,
    open: Mutex<HashMap<String, Arc<tokio::sync::Mutex<State>>>>,
}

/// An upload between two requests.
#[derive(Default)]
struct State {
    size: u64,
    /// Missing when this process did not see all the bytes.
    hasher: Option<Hasher>,
    write_back: WriteBack,
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
    pub(crate) fn open_on(disk: Arc<dyn Changes>, directory: &Path) -> io::Result<Self> {
        disk.make_directory(directory)?;
        Ok(Self { disk, directory: directory.to_owned(), open: Mutex::default() })
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
        let disk = self.disk.clone();
        let made = blocking(move || disk.create(&path).map(drop)).await;
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
        let mut turn = Turn::Ready(state);
        loop {
            // The next batch comes in while the last one is hashed and written.
            let (batch, end) = gather(&mut body).await;
            let mut state = turn.wait().await?;
            received += batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            if received > limit {
                return Err(too_large());
            }
            let size = state.size;
            state.write_back.written(size, &file, &self.disk).await;
            // The lock travels with the work: when this request is dropped, its write still ends before another's.
            let (file, disk) = (file.clone(), self.disk.clone());
            turn = match batch.is_empty() {
                true => Turn::Ready(state),
                false => Turn::Writing(tokio::task::spawn_blocking(move || {
                    state.write(&*disk, &file, &batch).map(|()| state)
                })),
            };
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
        let written = state.write_back.end().await;
        state.gone = true;
        self.lock().remove(&file_name(repository, id));
        if let Err(error) = written {
            self.remove(path).await?;
            return Err(error.into());
        }
        if expected.is_none_or(|expected| *expected == digest) {
            return Ok(Staged { path, digest, size: state.size });
        }
        self.remove(path).await?;
        Err(RegistryError::DigestInvalid(format!("The layer's digest is '{digest}', not the one that was provided")))
    }

    /// Removes an upload.
    pub async fn cancel(&self, repository: &str, id: &UploadId) -> Result<(), RegistryError> {
        self.state(repository, id).await?.gone = true;
        let name = file_name(repository, id);
        self.lock().remove(&name);
        self.remove(self.directory.join(name)).await
    }

    async fn remove(&self, path: PathBuf) -> Result<(), RegistryError> {
        let disk = self.disk.clone();
        blocking(move || disk::found(disk.remove(&path))).await?;
        Ok(())
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
                disk::found(self.disk.remove(&entry.path()))?;
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
    fn write(&mut self, disk: &dyn Changes, file: &File, batch: &[Bytes]) -> io::Result<()> {
        let mut end = self.size;
        for bytes in batch {
            if let Err(error) = disk.write(file, bytes, end) {
                // The running digest has only what came before this batch; the file must not have more.
                disk.truncate(file, self.size)?;
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
    use crate::changes::Kernel;

    fn open(directory: &tempfile::TempDir) -> io::Result<Uploads> {
        Uploads::open_on(Arc::new(Kernel), directory.path())
    }

    async fn append(uploads: &Uploads, id: &UploadId, at: Option<u64>, bytes: &[u8]) -> Result<u64, RegistryError> {
        uploads.append("r", id, at, None, body_of(bytes.to_vec())).await
    }

    #[tokio::test]
    async fn an_upload_is_known_only_where_it_was_begun() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = open(&directory).unwrap();
        let id = uploads.begin("r").await.unwrap();
        assert!(matches!(uploads.size("other", &id).await, Err(RegistryError::UploadNotFound(_))));
        assert_eq!(uploads.size("r", &id).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_upload_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = open(&directory).unwrap();
        let id = uploads.begin("r").await.unwrap();
        assert_eq!(append(&uploads, &id, Some(0), b"hello ").await.unwrap(), 6);
        let uploads = open(&directory).unwrap();
        assert_eq!(uploads.size("r", &id).await.unwrap(), 6);
        assert!(matches!(append(&uploads, &id, Some(5), b"x").await, Err(RegistryError::RangeInvalid { offset: 6 })));
        assert_eq!(append(&uploads, &id, Some(6), b"world").await.unwrap(), 11);
        let staged = uploads.finish("r", &id, Some(&Hasher::of(b"hello world"))).await.unwrap();
        assert_eq!((staged.size, fs::read(&staged.path).unwrap()), (11, b"hello world".to_vec()));
    }

    #[tokio::test]
    async fn a_wrong_digest_removes_the_upload() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = open(&directory).unwrap();
        let id = uploads.begin("r").await.unwrap();
        append(&uploads, &id, None, b"a").await.unwrap();
        let refused = uploads.finish("r", &id, Some(&Hasher::of(b"b"))).await;
        assert!(matches!(refused, Err(RegistryError::DigestInvalid(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_came_before_a_broken_connection_stays() {
        let directory = tempfile::tempdir().unwrap();
        let uploads = open(&directory).unwrap();
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
        let uploads = open(&directory).unwrap();
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
