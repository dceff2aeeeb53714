//! A border that even CAP_SYS_PTRACE does not cross: a Landlock domain around each process that enters a container.
//!
//! A container with that capability may trace whatever it sees, and it sees the commands of health checks from the moment they are
//! forked into its process namespace: still with all capabilities, and without the seccomp filter. Tracing from inside a domain
//! reaches only processes of that domain, so what has not entered one yet is safe. The domain restricts nothing else.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Linking and renaming between directories: a domain must handle something, and one that does not name this forbids it.
const REFER: u64 = 1 << 13;
/// The first version of Landlock that knows [`REFER`].
const VERSION: i64 = 2;
const ASK_VERSION: libc::c_ulong = 1;
const PATH_BENEATH: libc::c_ulong = 1;

/// `struct landlock_path_beneath_attr` of `linux/landlock.h`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent: i32,
}

/// Whether the kernel has Landlock.
pub(crate) fn is_supported() -> bool {
    // SAFETY: with this flag the call takes no address and changes nothing.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, ASK_VERSION) >= VERSION }
}

/// Puts the calling thread, and all it will ever start, into a domain of its own.
///
/// # Errors
/// What the kernel says.
pub(crate) fn enter() -> std::io::Result<()> {
    let handled = REFER;
    // SAFETY: the attribute is one number, as in the interface's first version, and lives through the call.
    let rules =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(&handled), size_of::<u64>(), 0) };
    if rules < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else holds it.
    let rules = unsafe { OwnedFd::from_raw_fd(rules as libc::c_int) };
    let root = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let everywhere = PathBeneath { allowed_access: REFER, parent: root.as_raw_fd() };
    // SAFETY: both descriptors are open, and the structure is laid out as the kernel's and lives through the call.
    let added = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, std::ptr::from_ref(&everywhere), 0)
    };
    if added < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open; the call restricts this thread, which has no_new_privs.
    let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if entered < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
