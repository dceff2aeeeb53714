//! The one writer: runs transactions in order, makes many durable at once, then lets the world see them.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast, oneshot};

use crate::{
    Batch, Change, Changes, Journal, JournalError, Kinds, Revision, Snapshot, Transaction, Watch, snapshot::Table,
};

/// How many change notices, one for each batch, are kept for a slow watch before it is told to look at everything again.
const WATCH_CAPACITY: usize = 1024;
/// A batch of at least so many transactions says that many come at once: then the next one is given time to become as
/// large, since making one durable costs much the same whatever it holds.
const BUSY: usize = 16;
/// A batch that gathers is let go when nothing has come for so long, …
const LULL: Duration = Duration::from_millis(1);
/// … at the latest after this, …
const GATHERING: Duration = Duration::from_millis(8);
/// … or when it has so many transactions.
const GATHERED: usize = 256;
/// How long the writer waits before it tries again to read a journal that failed.
const RECOVERY_PAUSE: Duration = Duration::from_millis(200);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal below failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds a kind that this program does not know.
    #[error(
        "the data has resources of the kind '{0}', which this version does not know: use the version that wrote them"
    )]
    UnknownKind(String),
    /// A resource on disk cannot be read.
    #[error("the {kind} '{key}' cannot be read: {cause}")]
    Unreadable {
        /// The resource's kind.
        kind: String,
        /// The resource's key.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TransactError<E> {
    /// The closure refused: nothing was written.
    #[error("{0}")]
    Refused(E),
    /// The state could not be made durable: nothing was written.
    #[error("the state could not be saved: {0}")]
    NotDurable(Arc<JournalError>),
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

/// Everything the platform knows. Cloning gives another handle to the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    committer: Mutex<Option<thread::JoinHandle<()>>>,
}

struct Shared {
    /// The state after the last transaction that ran, and the transactions that are not durable yet.
    writer: Mutex<Writer>,
    wake: Condvar,
    /// The last durable state.
    durable: RwLock<Snapshot>,
    changes: broadcast::Sender<Changes>,
}

struct Writer {
    head: Transaction,
    pending: Vec<Pending>,
    committing: bool,
    closed: bool,
}

struct Pending {
    batch: Batch,
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), Arc<JournalError>>>,
}

/// A transaction that runs: unless it is kept, be it that it refuses or that it panics, what it wrote is undone.
struct Running<'a>(&'a mut Transaction);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.undo();
    }
}

impl Store {
    /// Reads everything from the journal and starts the writer.
    pub fn open(mut journal: impl Journal, kinds: Kinds) -> Result<Self, OpenError> {
        let snapshot = load(&mut journal, Snapshot::empty(Arc::new(kinds)))?;
        let revision = snapshot.revision;
        let writer =
            Writer { head: Transaction::new(snapshot.clone()), pending: Vec::new(), committing: false, closed: false };
        let shared = Arc::new(Shared {
            writer: Mutex::new(writer),
            wake: Condvar::new(),
            durable: RwLock::new(snapshot),
            changes: broadcast::channel(WATCH_CAPACITY).0,
        });
        let committer = thread::Builder::new()
            .name("store-committer".into())
            .spawn({
                let shared = shared.clone();
                move || shared.commit_until_closed(journal, revision)
            })
            .map_err(|error| JournalError::Engine(error.to_string()))?;
        Ok(Self(Arc::new(Inner { shared, committer: Mutex::new(Some(committer)) })))
    }

    /// The last durable state.
    pub fn snapshot(&self) -> Snapshot {
        self.0.shared.durable.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows changes from now on.
    pub fn watch(&self) -> Watch {
        Watch(self.0.shared.changes.subscribe())
    }

    /// Runs `work` on the newest state; when it succeeds, makes what it wrote durable and returns its result. When it
    /// refuses, nothing is written. `work` must be quick: no other transaction runs meanwhile.
    ///
    /// What it read may have been written by a transaction that is not durable yet; since batches become durable in
    /// order, it returns only after that one is.
    pub async fn transact<R, E>(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<R, E>,
    ) -> Result<R, TransactError<E>> {
        let (result, done) = {
            let mut writer = self.0.shared.lock();
            if writer.closed {
                return Err(TransactError::Closed);
            }
            let running = Running(&mut writer.head);
            let result = work(running.0).map_err(TransactError::Refused)?;
            let (batch, changes) = running.0.keep();
            drop(running);
            if changes.is_empty() && writer.pending.is_empty() && !writer.committing {
                return Ok(result);
            }
            let (done, wait) = oneshot::channel();
            writer.pending.push(Pending { batch, changes, done });
            // The committer waits for the first one, or for a batch that is full.
            if matches!(writer.pending.len(), 1 | GATHERED) {
                self.0.shared.wake.notify_one();
            }
            (result, wait)
        };
        match done.await {
            Ok(Ok(())) => Ok(result),
            Ok(Err(error)) => Err(TransactError::NotDurable(error)),
            Err(_) => Err(TransactError::Closed),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(committer) = committer {
            // What was acknowledged is durable already; the join only lets the journal close its file.
            drop(committer.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A closure that panicked has changed nothing: see `Running`.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_until_closed(&self, mut journal: impl Journal, mut revision: Revision) {
        let mut last = 0;
        loop {
            let (mut work, mut state) = {
                let mut writer = self.lock();
                while writer.pending.is_empty() && !writer.closed {
                    writer = self.wake.wait(writer).unwrap_or_else(PoisonError::into_inner);
                }
                if last >= BUSY {
                    writer = self.gather(writer);
                }
                if writer.pending.is_empty() {
                    return;
                }
                writer.committing = true;
                last = writer.pending.len();
                (std::mem::take(&mut writer.pending), Snapshot::clone(&writer.head))
            };
            let batch: Batch = work.iter_mut().flat_map(|pending| std::mem::take(&mut pending.batch)).collect();
            let outcome = if batch.is_empty() { Ok(revision) } else { journal.append(&batch, revision) };
            match outcome {
                Ok(new) => {
                    revision = new;
                    state.revision = new;
                    *self.durable.write().unwrap_or_else(PoisonError::into_inner) = state;
                    self.lock().committing = false;
                    let changes: Arc<[Change]> =
                        work.iter_mut().flat_map(|pending| std::mem::take(&mut pending.changes)).collect();
                    if !changes.is_empty() {
                        // Nobody watching is no failure.
                        let _ = self.changes.send(Changes::Keys(changes));
                    }
                    for pending in work {
                        let _ = pending.done.send(Ok(()));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the state could not be saved");
                    self.fail(work, Arc::new(error));
                    match self.recover(&mut journal) {
                        Some(found) => revision = found,
                        None => return,
                    }
                }
            }
        }
    }

    /// Waits for as long as transactions keep coming, within bounds.
    fn gather<'a>(&'a self, mut writer: MutexGuard<'a, Writer>) -> MutexGuard<'a, Writer> {
        let begin = Instant::now();
        loop {
            let before = writer.pending.len();
            let open = |writer: &mut Writer| writer.pending.len() < GATHERED && !writer.closed;
            let waited = self.wake.wait_timeout_while(writer, LULL, open);
            writer = waited.unwrap_or_else(PoisonError::into_inner).0;
            let now = writer.pending.len();
            if now == before || now >= GATHERED || writer.closed || begin.elapsed() >= GATHERING {
                return writer;
            }
        }
    }

    /// Nothing that ran since the last durable state counts: later transactions may have read what was lost.
    fn fail(&self, work: Vec<Pending>, error: Arc<JournalError>) {
        let later = {
            let mut writer = self.lock();
            writer.head = Transaction::new(self.durable.read().unwrap_or_else(PoisonError::into_inner).clone());
            writer.committing = false;
            std::mem::take(&mut writer.pending)
        };
        for pending in work.into_iter().chain(later) {
            let _ = pending.done.send(Err(error.clone()));
        }
    }

    /// Reads the journal again until that works, refusing transactions meanwhile: whether a batch whose append failed is
    /// there after all, only the journal knows. `None` when the store is closed.
    fn recover(&self, journal: &mut impl Journal) -> Option<Revision> {
        loop {
            let volatile = self.durable.read().unwrap_or_else(PoisonError::into_inner).volatile_only();
            match load(journal, volatile) {
                Ok(found) => {
                    let revision = found.revision;
                    *self.durable.write().unwrap_or_else(PoisonError::into_inner) = found;
                    self.fail(Vec::new(), Arc::new(JournalError::Engine("the state is being read again".to_owned())));
                    // What changed is not known: whoever watches looks at everything again.
                    let _ = self.changes.send(Changes::Lagged);
                    return Some(revision);
                }
                Err(error) => {
                    tracing::error!(%error, "the state cannot be read again yet");
                    self.fail(Vec::new(), Arc::new(JournalError::Engine(error.to_string())));
                }
            }
            let open = |writer: &mut Writer| !writer.closed;
            let waited = self.wake.wait_timeout_while(self.lock(), RECOVERY_PAUSE, open);
            if waited.unwrap_or_else(PoisonError::into_inner).0.closed {
                return None;
            }
        }
    }
}

/// Reads everything from the journal into a snapshot.
fn load(journal: &mut impl Journal, mut snapshot: Snapshot) -> Result<Snapshot, OpenError> {
    let kinds = snapshot.kinds.clone();
    let mut failure = None;
    let revision = journal.load(&mut |kind, key, json| {
        if failure.is_none() {
            failure = load_one(&kinds, &mut snapshot.tables, kind, key, json).err();
        }
    })?;
    snapshot.revision = revision;
    failure.map_or(Ok(snapshot), Err)
}

fn load_one(
    kinds: &Kinds,
    tables: &mut imbl::Vector<Table>,
    kind: &str,
    key: &str,
    json: &[u8],
) -> Result<(), OpenError> {
    let index = kinds.index_of_name(kind).ok_or_else(|| OpenError::UnknownKind(kind.to_owned()))?;
    let (Some(known), Some(table)) = (kinds.list.get(index), tables.get_mut(index)) else {
        return Err(OpenError::UnknownKind(kind.to_owned()));
    };
    let (value, indexes) = (known.read)(json).map_err(|error| OpenError::Unreadable {
        kind: kind.to_owned(),
        key: key.to_owned(),
        cause: error.to_string(),
    })?;
    table.insert(key.into(), value, &[], &indexes);
    Ok(())
}
