//! Volumes: sparse files that instances have as block devices. Made and deleted by threads of their own, because making
//! a file system can take a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use domain::{
    instances::{VolumeItem, volume_key},
    network::host::HostReport,
};

use super::{fill::Filler, image};
use crate::{desired::Desired, ruleset::is_id};

/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Volumes that are being made at the same time.
const PARALLEL: usize = 4;

/// What is known of a volume.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    /// A thread is at it.
    Working,
    /// It has this size in GiB, and a file system if it must have one.
    Made {
        size_gib: u64,
        root: bool,
    },
    Failed {
        problem: String,
        at: Instant,
    },
}

/// A volume's id, and what is known of it now.
type Finding = (String, Known);

pub(super) struct Volumes {
    directory: PathBuf,
    filler: Arc<Filler>,
    known: BTreeMap<String, Known>,
    /// What the threads have come to.
    results: Receiver<Finding>,
    sender: Sender<Finding>,
}

impl Volumes {
    pub(super) fn open(directory: PathBuf, filler: Filler) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let (sender, results) = channel();
        Ok(Self { directory, filler: Arc::new(filler), known: BTreeMap::new(), results, sender })
    }

    /// Whether there is nothing to make and nothing to delete.
    pub(super) fn is_idle(&self, desired: &Desired) -> bool {
        desired.volumes.is_empty() && self.known.is_empty()
    }

    /// The file of a volume with a file system; `None` while it is not there yet, an error if it cannot be made.
    pub(super) fn root(&self, volume_id: &str) -> io::Result<Option<PathBuf>> {
        match self.known.get(volume_id) {
            Some(Known::Made { root: true, .. }) => Ok(Some(self.file(volume_id))),
            Some(Known::Failed { problem, .. }) => Err(io::Error::other(format!("{volume_id}: {problem}"))),
            _ => Ok(None),
        }
    }

    /// The file of a volume; `None` while it is not there yet, an error if it cannot be made.
    pub(super) fn data(&self, volume_id: &str) -> io::Result<Option<PathBuf>> {
        match self.known.get(volume_id) {
            Some(Known::Made { .. }) => Ok(Some(self.file(volume_id))),
            Some(Known::Failed { problem, .. }) => Err(io::Error::other(format!("{volume_id}: {problem}"))),
            _ => Ok(None),
        }
    }

    fn file(&self, volume_id: &str) -> PathBuf {
        self.directory.join(format!("{volume_id}.ext4"))
    }

    /// Makes and grows what is wanted, deletes what is not and is not `in_use`.
    pub(super) fn reconcile(&mut self, desired: &Desired, in_use: &BTreeSet<String>) -> Vec<(String, HostReport)> {
        while let Ok((volume_id, known)) = self.results.try_recv() {
            self.known.insert(volume_id, known);
        }
        let roots: BTreeSet<&str> =
            desired.instances.values().map(|instance| instance.root_volume_id.as_str()).collect();
        for item in desired.volumes.values() {
            let wanted = roots.contains(item.volume_id.as_str());
            let root = wanted || !item.layers.is_empty();
            let due = match self.known.get(&item.volume_id) {
                None => true,
                Some(Known::Working) => false,
                Some(Known::Made { size_gib, root: formatted }) => *size_gib < item.size_gib || root && !formatted,
                // An image that cannot be unpacked will hardly be the next time: somebody must ask for it.
                Some(Known::Failed { at, .. }) => at.elapsed() > RETRY && (item.layers.is_empty() || wanted),
            };
            if due && self.working() < PARALLEL {
                self.work_on(item, root);
            }
        }
        if desired.confirmed {
            self.delete_others(desired, in_use);
        }
        self.reports(desired)
    }

    fn working(&self) -> usize {
        self.known.values().filter(|known| **known == Known::Working).count()
    }

    fn work_on(&mut self, item: &VolumeItem, root: bool) {
        self.known.insert(item.volume_id.clone(), Known::Working);
        let (file, item, sender) = (self.file(&item.volume_id), item.clone(), self.sender.clone());
        let filler = self.filler.clone();
        thread::spawn(move || {
            let known = match ensure(&file, &item, root, &filler) {
                Ok(()) => Known::Made { size_gib: item.size_gib, root },
                Err(error) => {
                    tracing::error!(%error, volume = item.volume_id, "a volume cannot be made");
                    Known::Failed { problem: error.to_string(), at: Instant::now() }
                }
            };
            // Nobody listens any more when the process ends.
            let _ = sender.send((item.volume_id, known));
        });
    }

    fn delete_others(&mut self, desired: &Desired, in_use: &BTreeSet<String>) {
        let unwanted = |id: &str| !desired.volumes.contains_key(id) && !in_use.contains(id);
        let working: BTreeSet<String> =
            self.known.iter().filter(|(_, known)| **known == Known::Working).map(|(id, _)| id.clone()).collect();
        self.known.retain(|id, known| *known == Known::Working || desired.volumes.contains_key(id));
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let id = name.split('.').next().unwrap_or_default();
            if is_id(id, "vol-")
                && unwanted(id)
                && !working.contains(id)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(%error, volume = id, "a volume cannot be deleted");
            }
        }
    }

    fn reports(&self, desired: &Desired) -> Vec<(String, HostReport)> {
        let reports = desired.volumes.keys().filter_map(|volume_id| {
            let problem = match self.known.get(volume_id)? {
                Known::Working => return None,
                Known::Made { .. } => None,
                Known::Failed { problem, .. } => Some(problem.clone()),
            };
            Some((volume_key(volume_id), HostReport::Volume { volume_id: volume_id.clone(), problem }))
        });
        reports.collect()
    }
}

/// Makes the file, or grows it; formats it if it must have a file system and has nothing at all, and fills that.
fn ensure(file: &Path, item: &VolumeItem, root: bool, filler: &Filler) -> io::Result<()> {
    let bytes = item.size_gib << 30;
    let blank = match fs::metadata(file) {
        Ok(metadata) => {
            if metadata.len() < bytes {
                let file = OpenOptions::new().write(true).open(file)?;
                file.set_len(bytes)?;
                file.sync_all()?;
            }
            metadata.blocks() == 0
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    if root && !blank && !image::is_formatted(file)? {
        return Err(io::Error::other("it is to be a root volume and has something else on it"));
    }
    if file.exists() && !(root && blank) {
        return Ok(());
    }
    let temporary = file.with_extension("tmp");
    // What was killed while it filled the last one may still be writing to that.
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    new.set_len(bytes)?;
    let formatted = if root { format(&temporary) } else { Ok(()) };
    let filled = formatted.and_then(|()| match item.layers.as_slice() {
        [] => Ok(()),
        layers => filler.fill(&temporary, item.size_gib, layers),
    });
    let made = filled.and_then(|()| new.sync_all());
    if let Err(error) = made {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    fs::rename(&temporary, file)?;
    let parent = file.parent().unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// With a journal, because it must survive a power cut, but a small one: it is all that an empty volume takes.
fn format(file: &Path) -> io::Result<()> {
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-J", "size=8", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"])
        .arg(file)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("mkfs.ext4 cannot be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("mkfs.ext4: {}", said.trim().chars().take(300).collect::<String>())))
}
