//! What a process inside a container starts with: arguments, environment, user, directory. The same rules hold for the first process and
//! for every command executed later.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use serde_json::{Value, json};

use super::error::Failure;
use super::spec::{ContainerSpec, rlimit_name};
use super::{capabilities, domain, seccomp};
use crate::cgroup::Hierarchy;
use crate::files;
use crate::rootfs::users::{self, User};

/// Docker's PATH for an image that sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process ready to be described to the container library and to be executed by our executor.
pub(crate) struct Process {
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: String,
    pub user: User,
    pub filters: Vec<seccompiler::BpfProgram>,
    /// Whether it may trace others, and needs a border ([`domain`]).
    pub traces: bool,
    capabilities: BTreeSet<String>,
    rlimits: Vec<Value>,
    oom_score_adj: Option<i32>,
}

/// What of a specification a later command may replace.
pub(crate) struct Command<'a> {
    pub args: &'a [String],
    pub env: &'a [String],
    pub cwd: &'a str,
    pub user: &'a str,
}

impl Process {
    /// Resolves user and directory in the root filesystem mounted at `rootfs`.
    pub(crate) fn resolve(spec: &ContainerSpec, command: &Command<'_>, rootfs: &Path) -> Result<Self, Failure> {
        let root = files::open_directory(rootfs).map_err(|error| Failure::io("root filesystem")(error.into()))?;
        let mut user = users::resolve(&root, command.user)?;
        user.additional_gids.extend(&spec.additional_gids);
        let cwd = if command.cwd.is_empty() { "/" } else { command.cwd };
        ensure_directory(&root, cwd)
            .map_err(|error| Failure::WorkingDirectory(cwd.to_owned(), error.desc().to_owned()))?;
        let capabilities = capabilities::granted(&spec.capabilities_add, &spec.capabilities_drop)?;
        let traces = capabilities.contains("CAP_SYS_PTRACE");
        if traces && !domain::is_supported() {
            let why = "SYS_PTRACE needs Landlock, which this host's kernel does not have";
            return Err(Failure::Invalid("capabilities".to_owned(), why.to_owned()));
        }
        let devices_are_controlled = !Hierarchy::detect().unified();
        let filters = seccomp::filters(&capabilities, devices_are_controlled).map_err(Failure::Seccomp)?;
        let rlimits = spec
            .ulimits
            .iter()
            .filter_map(|limit| {
                Some(json!({"type": rlimit_name(&limit.name)?, "soft": limit.soft, "hard": limit.hard}))
            })
            .collect();
        let zero = |what: &'static str| move |_| Failure::Invalid(what.to_owned(), "has a zero byte".to_owned());
        let args = command
            .args
            .iter()
            .map(|arg| CString::new(arg.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(zero("args"))?;
        let env = environment(command.env, &spec.hostname, &user.home)
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(zero("env"))?;
        Ok(Self {
            args,
            env,
            cwd: cwd.to_owned(),
            user,
            filters,
            traces,
            capabilities,
            rlimits,
            oom_score_adj: spec.oom_score_adj,
        })
    }

    /// The `process` object of an OCI runtime specification. Arguments and environment in it are only for show: our executor has its own.
    pub(crate) fn describe(&self) -> Value {
        let names: Vec<&String> = self.capabilities.iter().collect();
        let mut process = json!({
            "terminal": false,
            "user": {"uid": self.user.uid, "gid": self.user.gid, "additionalGids": self.user.additional_gids, "umask": 0o022},
            "args": ["longshore"],
            "env": [DEFAULT_PATH],
            "cwd": self.cwd,
            // Ambient and inheritable sets stay empty: a user other than root holds nothing.
            "capabilities": {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []},
            "rlimits": self.rlimits,
            "noNewPrivileges": true,
        });
        if let Some(score) = self.oom_score_adj {
            process["oomScoreAdj"] = json!(score);
        }
        process
    }
}

/// The given variables, with those every program expects where they are missing.
fn environment(given: &[String], hostname: &str, home: &str) -> Vec<String> {
    let has = |name: &str| given.iter().any(|pair| pair.split('=').next() == Some(name));
    let mut all = Vec::with_capacity(given.len() + 3);
    if !has("PATH") {
        all.push(DEFAULT_PATH.to_owned());
    }
    if !has("HOSTNAME") && !hostname.is_empty() {
        all.push(format!("HOSTNAME={hostname}"));
    }
    all.extend(given.iter().cloned());
    if !has("HOME") {
        all.push(format!("HOME={home}"));
    }
    all
}

/// Makes the working directory, and those above it, where they are missing. Links are followed inside the root only.
fn ensure_directory(root: &impl AsFd, path: &str) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let mut so_far = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let parent = files::open_in_root(root, if so_far.is_empty() { "/" } else { &so_far }, flags)?;
        so_far.push('/');
        so_far.push_str(part);
        match files::open_in_root(root, &so_far, flags) {
            Ok(_) => {}
            // `..` after a missing directory, and a dangling link, end here with what the second open says.
            Err(nix::Error::ENOENT) if part != ".." => {
                match nix::sys::stat::mkdirat(&parent, part, nix::sys::stat::Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(nix::Error::EEXIST) => {}
                    Err(error) => return Err(error),
                }
                files::open_in_root(root, &so_far, flags)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_completed_not_changed() {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            environment(&own(&["A=1", "A=2"]), "h", "/root"),
            own(&[DEFAULT_PATH, "HOSTNAME=h", "A=1", "A=2", "HOME=/root"])
        );
        let full = own(&["PATH=/x", "HOSTNAME=y", "HOME="]);
        assert_eq!(environment(&full, "h", "/root"), full);
    }

    #[test]
    fn a_working_directory_is_made_inside_the_root() {
        let temporary = tempfile::tempdir().unwrap();
        let outside = temporary.path().join("outside");
        let image = temporary.path().join("image");
        std::fs::create_dir_all(&image).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, image.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../..", image.join("up")).unwrap();
        std::fs::write(image.join("file"), "").unwrap();
        let root = files::open_directory(&image).unwrap();
        ensure_directory(&root, "/a/b/../c").unwrap();
        assert!(image.join("a/b").is_dir() && image.join("a/c").is_dir());
        ensure_directory(&root, "/up/new").unwrap();
        assert!(image.join("new").is_dir());
        assert!(ensure_directory(&root, "/absolute/x").is_err());
        assert!(ensure_directory(&root, "/file/x").is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}
