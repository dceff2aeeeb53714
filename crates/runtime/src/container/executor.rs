//! The last step before a container's own program: signals as a fresh process expects them, the seccomp filters, `execve`.
//!
//! `libcontainer` calls this in the forked process, inside all namespaces, with its user and capabilities already set. It is the same for the
//! first process and for `exec`, which is what closes the library's gap of unfiltered `exec` processes. Whether the program was
//! really executed is told through a pipe that closes by itself on success.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use super::domain;
use super::error::Failure;
use super::process::Process;
use super::reaper;

/// Executes one [`Process`].
#[derive(Clone)]
pub(crate) struct Workload {
    pub process: Rc<Process>,
    /// The pipe to tell a failure through, as JSON of [`Failure`]. Closed on `execve`.
    pub report: RawFd,
    /// Whether to stay as a small init and run the program as a child.
    pub init: bool,
}

impl Executor for Workload {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let failure = self.run();
        self.tell(&failure);
        Err(ExecutorError::Other(format!("{failure:?}")))
    }

    /// Finds out early, while the container is only created, whether the program is there.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        match self.find() {
            Ok(()) => Ok(()),
            Err(failure) => {
                self.tell(&failure);
                Err(ExecutorValidationError::ArgValidationError(format!("{failure:?}")))
            }
        }
    }

    /// The environment is given to `execve`; this process's own was emptied when it started.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

impl Workload {
    fn tell(&self, failure: &Failure) {
        // SAFETY: the descriptor is ours from before the fork and open until `execve`; ManuallyDrop leaves it open.
        let mut pipe = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(self.report) });
        // Nobody is left to tell if the pipe is gone.
        let _ = serde_json::to_vec(failure).map(|text| pipe.write_all(&text));
    }

    fn name(&self) -> String {
        self.process.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Where the program may be: as given, or below each directory of PATH.
    fn candidates(&self) -> Vec<CString> {
        let Some(program) = self.process.args.first() else { return Vec::new() };
        if program.as_bytes().contains(&b'/') {
            return vec![program.clone()];
        }
        let path =
            self.process.env.iter().rev().find_map(|pair| pair.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
        path.split(|b| *b == b':')
            .filter_map(|directory| {
                let directory = if directory.is_empty() { b"." } else { directory };
                CString::new([directory, b"/", program.as_bytes()].concat()).ok()
            })
            .collect()
    }

    fn find(&self) -> Result<(), Failure> {
        let mut denied = false;
        for candidate in self.candidates() {
            match executable(&candidate) {
                Some(true) => return Ok(()),
                Some(false) => denied = true,
                None => {}
            }
        }
        Err(if denied { Failure::Denied(self.name()) } else { Failure::NotFound(self.name()) })
    }

    /// Returns only if it failed.
    fn run(&self) -> Failure {
        if let Err(error) = reset_signals() {
            return Failure::Create(format!("signals: {error}"));
        }
        if self.process.traces
            && let Err(error) = domain::enter()
        {
            return Failure::Create(format!("landlock: {error}"));
        }
        for filter in &self.process.filters {
            if let Err(error) = seccompiler::apply_filter(filter) {
                return Failure::Seccomp(error.to_string());
            }
        }
        if self.init {
            return reaper::run(self.report, || self.execute());
        }
        self.execute()
    }

    fn execute(&self) -> Failure {
        let (args, env) = (pointers(&self.process.args), pointers(&self.process.env));
        let mut worst = libc::ENOENT;
        for candidate in self.candidates() {
            // SAFETY: the three are valid C strings and null-terminated lists of such; on success this never returns.
            unsafe { libc::execve(candidate.as_ptr(), args.as_ptr(), env.as_ptr()) };
            let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            if !matches!(error, libc::ENOENT | libc::ENOTDIR) {
                worst = error;
                if error != libc::EACCES {
                    break;
                }
            }
        }
        match worst {
            libc::ENOENT => Failure::NotFound(self.name()),
            libc::EACCES | libc::EPERM => Failure::Denied(self.name()),
            libc::ENOEXEC => Failure::Format(self.name()),
            libc::E2BIG => Failure::Invalid("args".to_owned(), "argument list too long".to_owned()),
            other => Failure::Create(format!("exec {:?}: {}", self.name(), std::io::Error::from_raw_os_error(other))),
        }
    }
}

/// A regular file this user may execute; `None` if there is nothing of that name.
fn executable(path: &CStr) -> Option<bool> {
    let stat = match nix::sys::stat::stat(path) {
        Ok(stat) => stat,
        Err(nix::Error::EACCES) => return Some(false),
        Err(_) => return None,
    };
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Some(false);
    }
    Some(
        nix::unistd::faccessat(
            nix::fcntl::AT_FDCWD,
            path,
            nix::unistd::AccessFlags::X_OK,
            nix::fcntl::AtFlags::AT_EACCESS,
        )
        .is_ok(),
    )
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Every signal at its default and none blocked: the shim ignores some, and both would be inherited.
pub(crate) fn reset_signals() -> nix::Result<()> {
    for number in 1..=64 {
        // SAFETY: setting a default disposition touches no memory; numbers the kernel or the C library keep are refused, which is fine.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    nix::sys::signal::sigprocmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&nix::sys::signal::SigSet::empty()),
        None,
    )
}
