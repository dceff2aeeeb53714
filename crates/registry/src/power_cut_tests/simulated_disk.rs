//! A disk that forgets what was not synced: it does everything for real and writes down in which order, so that what a
//! power cut at any of these moments would leave can be laid out in another directory.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::{Rng, rngs::StdRng};

use crate::changes::{Changes, Kernel};

/// A file, known by a number under all its names.
type FileId = usize;

/// What was done, by paths below the disk's root. `M` is what the test itself marks.
#[derive(Clone, Debug)]
pub enum Step<M> {
    MakeDirectory(PathBuf),
    Create(PathBuf, FileId),
    Write(FileId, u64, Vec<u8>),
    Truncate(FileId, u64),
    SyncFile(FileId),
    SyncDirectory(PathBuf),
    Rename(PathBuf, PathBuf, FileId),
    Remove(PathBuf),
    Mark(M),
}

/// What the disk lies about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    None,
    /// Syncing a file does nothing.
    Files,
    /// Syncing a directory does nothing.
    Directories,
}

pub struct SimulatedDisk<M> {
    root: tempfile::TempDir,
    lie: Lie,
    failing: AtomicBool,
    history: Mutex<History<M>>,
}

struct History<M> {
    steps: Vec<Step<M>>,
    files: usize,
    by_inode: HashMap<u64, FileId>,
}

/// Which of the changes that were not synced a power cut leaves.
pub enum Luck<'a> {
    /// None.
    Bad,
    /// All.
    Good,
    /// Any, and of a file's last write a part.
    Mixed(&'a mut StdRng),
}

impl Luck<'_> {
    fn spares(&mut self) -> bool {
        match self {
            Self::Bad => false,
            Self::Good => true,
            Self::Mixed(random) => random.random_bool(0.5),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl<M: Clone + Send + 'static> SimulatedDisk<M> {
    /// An empty disk.
    pub fn new(lie: Lie) -> Self {
        // Nothing is ever synced for real.
        let memory = fs::canonicalize("/dev/shm");
        let root = memory.map_or_else(|_| tempfile::tempdir(), tempfile::tempdir_in);
        let history = History { steps: Vec::new(), files: 0, by_inode: HashMap::new() };
        Self { root: root.unwrap(), lie, failing: AtomicBool::new(false), history: Mutex::new(history) }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Syncs fail from now on, or work again.
    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// Notes that something has happened by now.
    pub fn mark(&self, mark: M) {
        locked(&self.history).steps.push(Step::Mark(mark));
    }

    pub fn steps(&self) -> Vec<Step<M>> {
        locked(&self.history).steps.clone()
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root()).expect("a path on this disk").to_owned()
    }

    /// The disk as it is found when the power went after the first `count` steps.
    pub fn after_power_cut(&self, count: usize, mut luck: Luck<'_>) -> Self {
        let disk = Self::new(Lie::None);
        let steps = self.steps();
        let left = Left::of(&steps[..count], &mut luck);
        for (path, node) in left.tree() {
            let path = disk.root().join(path);
            match node {
                Node::Directory => disk.make_directory(&path).unwrap(),
                Node::File(id) => {
                    let file = disk.create(&path).unwrap();
                    disk.write(&file, left.contents.get(&id).map_or(&[], Vec::as_slice), 0).unwrap();
                    disk.sync(&file).unwrap();
                }
            }
        }
        // What is found is what is on the disk.
        let mut directories = vec![PathBuf::new()];
        directories.extend(left.tree().into_iter().filter(|(_, node)| *node == Node::Directory).map(|(path, _)| path));
        locked(&disk.history).steps.extend(directories.into_iter().map(Step::SyncDirectory));
        disk
    }
}

impl<M: Clone + Send + 'static> Changes for SimulatedDisk<M> {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut history = locked(&self.history);
        let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.is_dir()).collect();
        while let Some(path) = missing.pop() {
            Kernel.make_directory(path)?;
            history.steps.push(Step::MakeDirectory(self.below(path)));
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut history = locked(&self.history);
        let file = Kernel.create(path)?;
        history.files += 1;
        let id = history.files;
        history.by_inode.insert(file.metadata()?.ino(), id);
        history.steps.push(Step::Create(self.below(path), id));
        Ok(file)
    }

    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut history = locked(&self.history);
        Kernel.write(file, bytes, offset)?;
        let id = history.by_inode[&file.metadata()?.ino()];
        history.steps.push(Step::Write(id, offset, bytes.to_vec()));
        Ok(())
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        let mut history = locked(&self.history);
        Kernel.truncate(file, length)?;
        let id = history.by_inode[&file.metadata()?.ino()];
        history.steps.push(Step::Truncate(id, length));
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut history = locked(&self.history);
        // As the kernel: a failure is told once, and the next sync knows nothing of it.
        if self.failing.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))?;
            if self.lie != Lie::Directories {
                history.steps.push(Step::SyncDirectory(self.below(&path)));
            }
        } else if self.lie != Lie::Files {
            let id = history.by_inode[&metadata.ino()];
            history.steps.push(Step::SyncFile(id));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut history = locked(&self.history);
        let id = history.by_inode[&fs::metadata(from)?.ino()];
        Kernel.rename(from, to)?;
        history.steps.push(Step::Rename(self.below(from), self.below(to), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut history = locked(&self.history);
        Kernel.remove(path)?;
        history.steps.push(Step::Remove(self.below(path)));
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Directory,
    File(FileId),
}

/// A change of directories: all of its names, or none, are as it says. Renaming is one change, as in the journal of
/// every file system that has one.
struct Renaming {
    number: usize,
    names: Vec<(PathBuf, Option<Node>)>,
}

/// What a power cut leaves.
#[derive(Default)]
struct Left {
    /// By name, the number of the change that made it what it is.
    names: BTreeMap<PathBuf, (usize, Option<Node>)>,
    contents: HashMap<FileId, Vec<u8>>,
}

impl Left {
    fn of<M>(steps: &[Step<M>], luck: &mut Luck<'_>) -> Self {
        let mut left = Self::default();
        let mut renamings: Vec<Renaming> = Vec::new();
        let mut writes: BTreeMap<FileId, Vec<&Step<M>>> = BTreeMap::new();
        for (number, step) in steps.iter().enumerate() {
            let mut change = |names: &[(&Path, Option<Node>)]| {
                let names = names.iter().map(|(path, node)| ((*path).to_owned(), *node)).collect();
                renamings.push(Renaming { number, names });
            };
            match step {
                Step::MakeDirectory(path) => change(&[(path.as_path(), Some(Node::Directory))]),
                Step::Create(path, id) => change(&[(path.as_path(), Some(Node::File(*id)))]),
                Step::Rename(from, to, id) => change(&[(from.as_path(), None), (to.as_path(), Some(Node::File(*id)))]),
                Step::Remove(path) => change(&[(path.as_path(), None)]),
                Step::Write(id, ..) | Step::Truncate(id, _) => writes.entry(*id).or_default().push(step),
                Step::SyncFile(id) => {
                    writes.remove(id).into_iter().flatten().for_each(|step| left.apply(step, None));
                }
                Step::SyncDirectory(directory) => {
                    let touches = |change: &Renaming| {
                        change.names.iter().any(|(path, _)| path.parent() == Some(directory.as_path()))
                    };
                    renamings.extract_if(.., |change| touches(change)).for_each(|change| left.rename(change));
                }
                Step::Mark(_) => {}
            }
        }
        for change in renamings {
            if luck.spares() {
                left.rename(change);
            }
        }
        for pending in writes.into_values() {
            let spared: Vec<_> = pending.into_iter().filter(|_| luck.spares()).collect();
            for (index, step) in spared.iter().enumerate() {
                let last = index + 1 == spared.len();
                let torn = match luck {
                    Luck::Mixed(random) if last => Some(random.random_range(0.0..1.0)),
                    _ => None,
                };
                left.apply(step, torn);
            }
        }
        left
    }

    fn rename(&mut self, change: Renaming) {
        for (path, node) in change.names {
            let known = self.names.entry(path).or_insert((change.number, node));
            if known.0 < change.number {
                *known = (change.number, node);
            }
        }
    }

    /// Changes a file's bytes; of a torn write only that share arrives.
    fn apply<M>(&mut self, step: &Step<M>, torn: Option<f64>) {
        match step {
            Step::Write(id, offset, bytes) => {
                let content = self.contents.entry(*id).or_default();
                let (start, share) =
                    (*offset as usize, torn.map_or(bytes.len(), |share| (bytes.len() as f64 * share) as usize));
                content.resize(content.len().max(start + share), 0);
                content[start..start + share].copy_from_slice(&bytes[..share]);
            }
            Step::Truncate(id, length) => self.contents.entry(*id).or_default().resize(*length as usize, 0),
            _ => {}
        }
    }

    /// Everything that can be reached from the root, parents first.
    fn tree(&self) -> Vec<(PathBuf, Node)> {
        let node = |path: &Path| self.names.get(path).and_then(|(_, node)| *node);
        let reached = |path: &Path| {
            path.ancestors().skip(1).all(|above| above.as_os_str().is_empty() || node(above) == Some(Node::Directory))
        };
        let found = self.names.iter().filter_map(|(path, (_, node))| Some((path.clone(), (*node)?)));
        found.filter(|(path, _)| reached(path)).collect()
    }
}
