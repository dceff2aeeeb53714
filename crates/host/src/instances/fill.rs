//! Filling a root volume from the layers of an OCI image: a process of its own, because it mounts the volume where nobody
//! else sees it. Each layer is read from the registry's directory by its digest and unpacked by a further process, confined
//! to the volume; what comes out must have the digest that the image names. A volume that is not filled to the end is
//! never used: it has its name only afterwards.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use domain::{instances::ImageLayer, repositories};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{getppid, syncfs},
};
use runtime::{Helper, ImageError, LoopDevice, UnpackLimits};
use serde::{Deserialize, Serialize};

use super::FILL;

/// How much of what went wrong is told.
const MAX_TEXT: usize = 400;

/// What a volume is filled with.
pub(super) struct Filler {
    /// This program.
    pub(super) executable: PathBuf,
    /// The platform's data.
    pub(super) data_dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Job {
    volume: PathBuf,
    size_gib: u64,
    /// Where the volume is mounted, in a mount namespace of the process's own.
    place: PathBuf,
    registry: PathBuf,
    layers: Vec<ImageLayer>,
    /// Who waits for it.
    parent: u32,
}

impl Filler {
    /// Fills the empty file system in the file `volume`. Waits for it.
    pub(super) fn fill(&self, volume: &Path, size_gib: u64, layers: &[ImageLayer]) -> io::Result<()> {
        let place = super::directory(&self.data_dir).join("filling");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let registry = self.data_dir.join(repositories::DIRECTORY);
        let (volume, layers, parent) = (volume.to_owned(), layers.to_vec(), std::process::id());
        let job = Job { volume, size_gib, place, registry, layers, parent };
        let mut command = Command::new(&self.executable);
        command.arg(FILL).arg(serde_json::to_string(&job)?).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(MAX_TEXT).collect();
        let said = if said.is_empty() { format!("the process that fills it ended: {}", output.status) } else { said };
        Err(io::Error::other(said))
    }
}

/// Fills a volume and ends; what went wrong is on standard error.
pub(super) fn main(job: &str) -> i32 {
    match serde_json::from_str(job).map_err(io::Error::from).and_then(|job| run(&job)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn run(job: &Job) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if u32::try_from(getppid().as_raw()) != Ok(job.parent) {
        return Err(io::Error::other("host has ended"));
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    let device = LoopDevice::attach(&job.volume)?;
    mount(Some(device.path()), &job.place, Some("ext4"), MsFlags::MS_RELATIME, none)?;
    unpack(job)?;
    // What the machine's own disk had no room for comes to light here.
    syncfs(fs::File::open(&job.place)?)?;
    umount2(&job.place, MntFlags::empty())?;
    Ok(())
}

fn unpack(job: &Job) -> io::Result<()> {
    let helper = Helper::current()?;
    let limits = UnpackLimits::default();
    let limits = UnpackLimits { bytes: limits.bytes.max(job.size_gib << 30), ..limits };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for layer in &job.layers {
        let file = job.registry.join(layer.digest.file());
        let digest = digest(&layer.digest)?;
        let unpacked = runtime::unpack_over(&helper, &job.place, &file, &digest, limits);
        let found = runtime.block_on(unpacked).map_err(|error| io::Error::other(told(job, layer, &error)))?;
        if found.to_string() != layer.diff_id.as_str() {
            let text = format!("the image's layer {} holds {found}, and not {}", layer.digest, layer.diff_id);
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}

fn digest(digest: &repositories::Digest) -> io::Result<runtime::Digest> {
    digest.as_str().parse().map_err(|error| io::Error::other(format!("{digest}: {error}")))
}

fn told(job: &Job, layer: &ImageLayer, error: &ImageError) -> String {
    match error {
        ImageError::NoSpace => format!("the image does not fit on a volume of {} GiB", job.size_gib),
        ImageError::Io(error) if error.kind() == ErrorKind::NotFound => {
            format!("the image's layer {} is not in the registry", layer.digest)
        }
        error => format!("the image cannot be unpacked: {error}"),
    }
}
