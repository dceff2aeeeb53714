//! How this crate re-executes the binary it lives in.
//!
//! A process that enters a container still is, until its `execve`, an instance of our binary, and the container's root can name that
//! binary through `/proc/<pid>/exe` (the hole known as CVE-2019-5736). The helpers are therefore started from a detached, read-only
//! clone of the binary's mount: the link a container could follow leads to a file that cannot be opened for writing.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The binary that answers to the words of [`crate::dispatch`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Helper {
    program: PathBuf,
    /// Keeps the detached mount that `program` names.
    _mount: Option<Arc<OwnedFd>>,
}

impl Helper {
    /// The very binary that is running, whatever has since been put at its path.
    ///
    /// # Errors
    /// Whatever `open` of `/proc/self/exe` says. Without the right to mount (not root) the plain path is used.
    pub fn current() -> io::Result<Self> {
        match read_only_clone(Path::new("/proc/self/exe")) {
            Ok(mount) => {
                let program = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
                Ok(Self { program, _mount: Some(Arc::new(mount)) })
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EINVAL)) => {
                Ok(Self { program: std::env::current_exe()?, _mount: None })
            }
            Err(error) => Err(error),
        }
    }

    /// The binary at `program`, which must call [`crate::dispatch`].
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), _mount: None }
    }

    /// A command that runs the helper `word`, with an environment that tells it nothing.
    pub(crate) fn command(&self, word: &str) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&self.program);
        command.arg0("longshore").arg(word).env_clear();
        command
    }
}

/// A detached read-only mount of one file. It lives as long as the descriptor, or a process started from it, does.
fn read_only_clone(path: &Path) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: a plain system call on a valid C string; the result is checked before it is owned.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else holds it.
    let mount = unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open, the path is a valid empty C string, the structure is of the size we say.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(mount)
}
