//! The system calls a container may make: Docker's default profile, compiled to BPF here.
//!
//! The container library applies no profile without a C library, and forgets it for `exec`; the filters made here are installed by
//! our own executor right before `execve`, for the first process and for every later one alike, and nothing starts without them.
//! What a call refused by the profile sees is EPERM, except `clone3`, which answers ENOSYS so that libraries fall back to `clone`.
//! Programs of the other word size (32-bit on x86-64) are killed: their call numbers are not ours.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::syscalls;

/// Namespace flags of `clone` that only CAP_SYS_ADMIN may use.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;
/// The only domains a default `personality` may be set to.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The filters for a process with these capabilities, in the order to install them.
///
/// `may_make_devices` is false where no device control group stands behind `mknod` (cgroup v2 without its BPF programs): block and
/// character nodes are refused by the filter then.
pub(crate) fn filters(capabilities: &BTreeSet<String>, may_make_devices: bool) -> Result<Vec<BpfProgram>, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let allowed = rules(capabilities, may_make_devices)?;
    let main = compile(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch)?;
    let mut programs = vec![main];
    if !capabilities.contains("CAP_SYS_ADMIN") {
        // Of two filters that both answer with an error, the kernel takes the one installed last.
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        programs.push(compile(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), arch)?);
    }
    Ok(programs)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, String> {
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter).map_err(|error| error.to_string())
}

fn rules(capabilities: &BTreeSet<String>, may_make_devices: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        syscalls::ALWAYS.iter().chain(syscalls::ARCHITECTURE).map(|number| (*number, Vec::new())).collect();
    let admin = capabilities.contains("CAP_SYS_ADMIN");
    rules.insert(libc::SYS_clone3, Vec::new());
    if admin {
        rules.insert(libc::SYS_clone, Vec::new());
    } else {
        rules.insert(libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)?]);
    }
    rules.insert(
        libc::SYS_personality,
        PERSONALITIES.iter().map(|domain| rule(0, SeccompCmpOp::Eq, *domain)).collect::<Result<_, _>>()?,
    );
    // The kernel takes the family from the low half of the argument, so nothing may hide in the high one.
    let family = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_VSOCK as u64);
    let family = family.and_then(|family| SeccompRule::new(vec![family])).map_err(|error| error.to_string())?;
    rules.insert(libc::SYS_socket, vec![family]);
    if !may_make_devices {
        let plain = |argument| -> Result<Vec<SeccompRule>, String> {
            [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK]
                .iter()
                .map(|kind| rule(argument, SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT)), u64::from(*kind)))
                .collect()
        };
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_mknod, plain(1)?);
        rules.insert(libc::SYS_mknodat, plain(2)?);
    }
    for (capability, calls) in syscalls::WITH_CAPABILITY {
        if capabilities.contains(*capability) {
            rules.extend(calls.iter().map(|number| (*number, Vec::new())));
        }
    }
    Ok(rules)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    let condition =
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value).map_err(|error| error.to_string())?;
    SeccompRule::new(vec![condition]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_profile_compiles_within_the_kernels_bound() {
        for capabilities in [names(&[]), names(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"])] {
            for devices in [true, false] {
                let programs = filters(&capabilities, devices).unwrap();
                assert!(programs.iter().all(|program| !program.is_empty() && program.len() < 4096));
            }
        }
    }

    #[test]
    fn capabilities_open_calls() {
        let without = rules(&names(&[]), true).unwrap();
        let with = rules(&names(&["CAP_SYS_ADMIN"]), true).unwrap();
        for call in [libc::SYS_mount, libc::SYS_setns, libc::SYS_unshare, libc::SYS_bpf] {
            assert!(!without.contains_key(&call) && with.contains_key(&call), "{call}");
        }
        for call in [libc::SYS_io_uring_setup, libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_userfaultfd] {
            assert!(!with.contains_key(&call), "{call}");
        }
        assert!(without[&libc::SYS_clone].len() == 1 && with[&libc::SYS_clone].is_empty());
    }

    /// Makes a call under the profile, in a thread of its own: a filter holds for one thread.
    fn under(capabilities: &[&str], devices: bool, call: impl FnOnce() -> i64 + Send + 'static) -> Result<i64, i32> {
        let programs = filters(&names(capabilities), devices).unwrap();
        let thread = std::thread::spawn(move || {
            for program in &programs {
                seccompiler::apply_filter(program).unwrap();
            }
            let result = call();
            if result < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(result) }
        });
        thread.join().unwrap()
    }

    fn call(number: i64, first: i64, second: i64, third: i64) -> i64 {
        // SAFETY: the calls of these tests take numbers and no addresses, or addresses that are refused unseen.
        unsafe { libc::syscall(number, first, second, third) }
    }

    #[test]
    fn the_kernel_answers_as_under_docker() {
        assert_eq!(under(&[], true, || call(libc::SYS_unshare, libc::CLONE_NEWNS.into(), 0, 0)), Err(libc::EPERM));
        assert_eq!(under(&[], true, || call(libc::SYS_clone3, 0, 0, 0)), Err(libc::ENOSYS));
        assert_eq!(under(&["CAP_SYS_ADMIN"], true, || call(libc::SYS_clone3, 0, 0, 0)), Err(libc::EINVAL));
        assert_eq!(under(&[], true, || call(libc::SYS_personality, 0x0040_0000, 0, 0)), Err(libc::EPERM));
        assert_eq!(under(&[], true, || call(libc::SYS_personality, 0, 0, 0)), Ok(0));
        assert_eq!(
            under(&[], true, || call(libc::SYS_socket, libc::AF_VSOCK.into(), libc::SOCK_STREAM.into(), 0)),
            Err(libc::EPERM)
        );
        assert_eq!(
            under(&[], true, || call(
                libc::SYS_socket,
                i64::from(libc::AF_VSOCK) | 1 << 32,
                libc::SOCK_STREAM.into(),
                0
            )),
            Err(libc::EPERM)
        );
        assert_eq!(under(&[], true, || call(libc::SYS_keyctl, 0, 0, 0)), Err(libc::EPERM));
        assert!(under(&[], true, || call(libc::SYS_getpid, 0, 0, 0)).is_ok());
    }

    #[test]
    fn device_nodes_are_refused_where_nothing_else_guards_them() {
        let make = |devices: bool, kind: u32| {
            let directory = tempfile::tempdir().unwrap();
            let path = std::ffi::CString::new(directory.path().join("node").as_os_str().as_encoded_bytes()).unwrap();
            let made = under(&[], devices, move || {
                // SAFETY: the path is a valid C string that lives through the call.
                unsafe {
                    libc::syscall(libc::SYS_mknodat, libc::AT_FDCWD, path.as_ptr(), kind | 0o600, libc::makedev(1, 3))
                }
            });
            made.map(drop)
        };
        assert_eq!(make(false, libc::S_IFCHR), Err(libc::EPERM));
        assert_eq!(make(false, libc::S_IFBLK), Err(libc::EPERM));
        for harmless in [libc::S_IFIFO, libc::S_IFREG, libc::S_IFSOCK, 0] {
            assert_eq!(make(false, harmless), Ok(()));
        }
        if nix::unistd::geteuid().is_root() {
            assert_eq!(make(true, libc::S_IFCHR), Ok(()));
        }
    }
}
