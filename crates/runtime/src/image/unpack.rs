//! The process that unpacks one layer: `longshore runtime-unpack`, and how it is run.
//!
//! It gets the layer as standard input and a directory to fill. Before it reads the first hostile byte its root is that directory, it holds
//! only the capabilities that ownership and permissions take, its memory and files are bounded, and a seccomp filter leaves it
//! the calls of plain file work: no sockets, no processes, no mounts. Its result is one JSON line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::layer::{self, Refusal};
use super::sink::{self, Directory};
use super::{Digest, ImageError, UnpackLimits};
use crate::{Helper, UNPACK, files};

/// Memory of the unpacker: a zstd window and some buffers.
const MEMORY: u64 = 1 << 30;
/// Directories marked opaque in one layer.
const MAXIMUM_OPAQUE: usize = 10_000;
/// Longer results are none of ours.
const MAXIMUM_RESULT: u64 = 64 << 20;

/// What to do. Nothing in it is secret: it is an argument.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub directory: PathBuf,
    /// Layers below, the top one first.
    pub lowers: Vec<PathBuf>,
    pub limits: UnpackLimits,
    /// Whether the layers below are in the directory itself.
    #[serde(default)]
    pub merged: bool,
}

/// A layer that was unpacked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    pub diff_id: Digest,
    pub bytes: u64,
    pub entries: u64,
    /// Directories that hide what is below, as the bytes of their names in hexadecimal.
    pub opaque: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Unpacked(Unpacked),
    Unsafe { path: String, reason: String },
    TooLarge(String),
    Invalid(String),
    NoSpace,
    Failed(String),
}

/// Runs the process on the blob at `layer`.
pub(crate) async fn run(helper: &Helper, job: &Job, layer: &Path, digest: &Digest) -> Result<Unpacked, ImageError> {
    let text = serde_json::to_string(job).map_err(|error| ImageError::Helper(error.to_string()))?;
    let mut command = helper.command(UNPACK);
    command.arg(text).stdin(File::open(layer)?).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let output = child.stdout.take().ok_or_else(|| ImageError::Helper("no output".to_owned()))?;
    let mut line = Vec::new();
    let digest = digest.to_string();
    let read = tokio::time::timeout(job.limits.time, output.take(MAXIMUM_RESULT).read_to_end(&mut line)).await;
    match read {
        Err(_) => {
            return Err(ImageError::LayerTooLarge {
                digest,
                reason: format!("not unpacked after {} seconds", job.limits.time.as_secs()),
            });
        }
        Ok(result) => drop(result?),
    }
    let status = child.wait().await?;
    match serde_json::from_slice(&line) {
        Ok(Outcome::Unpacked(unpacked)) => Ok(unpacked),
        Ok(Outcome::Unsafe { path, reason }) => Err(ImageError::UnsafeLayer { digest, path, reason }),
        Ok(Outcome::TooLarge(reason)) => Err(ImageError::LayerTooLarge { digest, reason }),
        Ok(Outcome::Invalid(reason)) => Err(ImageError::InvalidLayer { digest, reason }),
        Ok(Outcome::NoSpace) => Err(ImageError::NoSpace),
        Ok(Outcome::Failed(reason)) => Err(ImageError::Helper(format!("unpacking {digest}: {reason}"))),
        Err(_) => Err(ImageError::Helper(format!("unpacking {digest}: the unpacker ended with {status}"))),
    }
}

/// Unpacks the layer at `layer`, the blob `digest`, over what a directory holds of the layers below it, and returns the digest of
/// the archive: whoever knows which it must have compares. Deletions that the layer asks for are done.
///
/// # Errors
/// If the layer is refused or the disk is full; then the directory is of no use.
pub async fn unpack_over(
    helper: &Helper,
    directory: &Path,
    layer: &Path,
    digest: &Digest,
    limits: UnpackLimits,
) -> Result<Digest, ImageError> {
    let job = Job { directory: directory.to_owned(), lowers: Vec::new(), limits, merged: true };
    run(helper, &job, layer, digest).await.map(|unpacked| unpacked.diff_id)
}

/// Marks what the unpacker named: the attribute takes a privilege it has not. Names are looked up as carefully as it does.
pub(crate) fn mark_opaque(directory: &Path, names: &[String]) -> Result<(), ImageError> {
    let root = files::open_directory(directory).map_err(io::Error::from)?;
    for name in names {
        let bytes = hex::decode(name).map_err(|error| ImageError::Helper(error.to_string()))?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&bytes));
        let opened = sink::open_beneath(&root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(io::Error::from)?;
        use std::os::fd::AsRawFd;
        // SAFETY: descriptor, name and value are valid through the call, and the value is one byte long.
        let set = unsafe {
            libc::fsetxattr(opened.as_raw_fd(), c"trusted.overlay.opaque".as_ptr(), c"y".as_ptr().cast(), 1, 0)
        };
        if set != 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(())
}

pub(crate) fn main(arguments: &[OsString]) -> i32 {
    let outcome = match prepare(arguments) {
        Ok((directory, limits)) => unpack(directory, &limits),
        Err(error) => Outcome::Failed(error),
    };
    let line = serde_json::to_vec(&outcome).unwrap_or_default();
    // Without a reader nobody is left to tell.
    let written = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    i32::from(written.is_err() || !matches!(outcome, Outcome::Unpacked(_)))
}

fn unpack(mut directory: Directory, limits: &UnpackLimits) -> Outcome {
    let outcome =
        layer::read(io::stdin().lock(), limits, &mut directory).and_then(|summary| Ok((summary, directory.finish()?)));
    match outcome {
        Ok((_, opaque)) if opaque.len() > MAXIMUM_OPAQUE => {
            Outcome::TooLarge(format!("more than {MAXIMUM_OPAQUE} opaque directories"))
        }
        Ok((summary, opaque)) => {
            let opaque = opaque.iter().map(|path| hex::encode(path.as_os_str().as_bytes())).collect();
            Outcome::Unpacked(Unpacked {
                diff_id: summary.diff_id,
                bytes: summary.bytes,
                entries: summary.entries,
                opaque,
            })
        }
        Err(Refusal::Unsafe { path, reason }) => Outcome::Unsafe { path, reason },
        Err(Refusal::TooLarge(reason)) => Outcome::TooLarge(reason),
        Err(Refusal::Invalid(reason)) => Outcome::Invalid(reason),
        Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::StorageFull => Outcome::NoSpace,
        Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge => Outcome::TooLarge(error.to_string()),
        Err(Refusal::Io(error)) => Outcome::Failed(error.to_string()),
    }
}

/// Opens what is needed, then gives up everything else.
fn prepare(arguments: &[OsString]) -> Result<(Directory, UnpackLimits), String> {
    let text = arguments.first().and_then(|argument| argument.to_str()).ok_or("no job")?;
    let job: Job = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let said = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(said("prctl"))?;
    let lowers = job
        .lowers
        .iter()
        .map(|path| files::open_directory(path))
        .collect::<Result<Vec<_>, _>>()
        .map_err(said("layers below"))?;
    for (resource, limit) in [
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_FSIZE, job.limits.bytes),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, 512),
    ] {
        setrlimit(resource, limit, limit).map_err(said("setrlimit"))?;
    }
    // A file beyond the bound is an error to report, not a reason to die.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }
        .map_err(said("signal"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::unistd::chroot(&job.directory).map_err(said("chroot"))?;
    nix::unistd::chdir("/").map_err(said("chdir"))?;
    let root = files::open_directory(Path::new("/")).map_err(said("root"))?;
    keep_capabilities()?;
    nix::sys::prctl::set_no_new_privs().map_err(said("prctl"))?;
    seccompiler::apply_filter(&filter()?).map_err(|error| format!("seccomp: {error}"))?;
    let directory = match job.merged {
        true => Directory::merged(root).map_err(|error| error.to_string())?,
        false => Directory::new(root, lowers),
    };
    Ok((directory, job.limits))
}

/// Only what making other users' files takes.
fn keep_capabilities() -> Result<(), String> {
    use caps::{CapSet, Capability};
    let keep = caps::CapsHashSet::from([
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_SETFCAP,
    ]);
    for capability in caps::read(None, CapSet::Bounding).map_err(|error| error.to_string())? {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|error| error.to_string())?;
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(|error| error.to_string())?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The calls of plain file work, and of ending.
#[rustfmt::skip]
const CALLS: &[i64] = &[
    libc::SYS_brk, libc::SYS_clock_gettime, libc::SYS_close, libc::SYS_dup, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_fchmod, libc::SYS_fchmodat,
    libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_fcntl, libc::SYS_fsetxattr, libc::SYS_fstat, libc::SYS_futex, libc::SYS_getdents64, libc::SYS_getrandom, libc::SYS_linkat,
    libc::SYS_lseek, libc::SYS_madvise, libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_munmap,
    libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_openat2, libc::SYS_read, libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sched_yield, libc::SYS_sigaltstack, libc::SYS_statx,
    libc::SYS_symlinkat, libc::SYS_unlinkat, libc::SYS_utimensat, libc::SYS_write, libc::SYS_writev,
    // What a panic or an abort takes.
    libc::SYS_getpid, libc::SYS_gettid, libc::SYS_tgkill,
];

fn filter() -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let rules = CALLS.iter().map(|number| (*number, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)
        .map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter).map_err(|error| error.to_string())
}
