//! `DATA/`: where everything lives, who owns what in it, and the things made at the first start (the platform's id, the
//! root key, the sealing key).
//!
//! The control plane runs unprivileged with its working directory here, so that its own paths are relative: it needs
//! no right to pass through the directories above, which may be a home directory closed to others.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use domain::{Clock, IdSource, Timestamp};
use iam::{AccessKey, SealingKey};
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{Gid, Uid, chown, fchown},
};
use serde::{Deserialize, Serialize};

/// The user and group that the control plane and the load balancers run as: a number without a name or a home.
pub const SERVICE_USER: u32 = 64_580;

/// Directories of the unprivileged control plane.
const SERVICE_DIRECTORIES: [&str; 5] = ["state", "registry", "logs", "keys", "balancers"];
/// Directories of root's processes.
const ROOT_DIRECTORIES: [&str; 2] = ["host", "agent"];

/// What is wrong with a data directory.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or directory in it could not be used.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another `up` uses it.
    #[error(
        "another longshore is running on {0}: stop it first (longshore down --data-dir {0}), or use another --data-dir"
    )]
    InUse(PathBuf),
    /// There is nothing in it.
    #[error("{0} is not a data directory of longshore: name the one that `longshore up` uses with --data-dir")]
    Missing(PathBuf),
    /// A file in it is not what it should be.
    #[error("{path}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The root key given in the environment is not usable.
    #[error("{0}")]
    RootKey(&'static str),
}

/// How the platform runs: written by `up`, read by its children and by `env`, `demo` and `down`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Where the control plane listens, with the real port.
    pub listen: std::net::SocketAddr,
    /// The default region.
    pub region: domain::Region,
    /// The account.
    pub account: domain::AccountId,
    /// Whether `/_longshore/reset` is served.
    pub allow_reset: bool,
    /// Whether UpdateService may add a load balancer.
    pub allow_load_balancer_updates: bool,
    /// Seconds after which tasks of an instance whose agent is away are given up.
    #[serde(default)]
    pub lost_instance_after: Option<u64>,
    /// Whether /etc/hosts is kept.
    pub hosts: bool,
    /// Mirrors of other registries, `REGISTRY=URL`.
    pub registry_mirrors: Vec<String>,
    /// MiB of images that may stay unused.
    #[serde(default)]
    pub image_cache: u64,
    /// Platform time at `clock_system`, and how many times faster than the system's it runs.
    pub clock: Timestamp,
    /// The system's time when `clock` was right.
    pub clock_system: Timestamp,
    /// How many times faster platform time runs.
    pub clock_rate: u32,
}

impl Settings {
    /// How long an agent may be away before its tasks are given up, in platform time.
    pub fn lost_instance_after(&self) -> Option<std::time::Duration> {
        self.lost_instance_after.map(std::time::Duration::from_secs)
    }

    /// The platform's clock.
    pub fn clock(&self) -> Clock {
        Clock::accelerated(self.clock, self.clock_system, self.clock_rate)
    }

    /// Where the platform's own processes on this host reach the control plane: on loopback, in plain HTTP.
    pub fn local(&self) -> std::net::SocketAddr {
        let ip = if self.listen.ip().is_loopback() { self.listen.ip() } else { std::net::Ipv4Addr::LOCALHOST.into() };
        std::net::SocketAddr::new(ip, self.listen.port())
    }

    /// The address at which AWS tools reach the control plane.
    pub fn endpoint(&self) -> String {
        let scheme = if self.listen.ip().is_loopback() { "http" } else { "https" };
        format!("{scheme}://{}", self.listen)
    }
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    path: PathBuf,
}

impl DataDirectory {
    /// The directory at `path`, made if it is missing, with everything in it that the first start makes. Needs root.
    pub fn prepare(path: &Path) -> Result<Self, DataError> {
        fs::create_dir_all(path).map_err(at(path))?;
        let path = path.canonicalize().map_err(at(path))?;
        let data = Self { path };
        fs::set_permissions(&data.path, fs::Permissions::from_mode(0o755)).map_err(at(&data.path))?;
        for name in SERVICE_DIRECTORIES {
            data.directory(name, 0o700, SERVICE_USER, SERVICE_USER)?;
        }
        for name in ROOT_DIRECTORIES {
            data.directory(name, 0o700, 0, 0)?;
        }
        // Sockets of several processes: each may make its own, none may remove another's, and nobody else may be taken
        // for one of them: root's processes act on what the server tells them.
        data.directory("run", 0o1770, 0, SERVICE_USER)?;
        data.first_start()?;
        Ok(data)
    }

    /// The directory at `path`, which `up` has prepared before.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let path = path.canonicalize().map_err(|_| DataError::Missing(path.to_owned()))?;
        let data = Self { path };
        if data.file("id").is_file() { Ok(data) } else { Err(DataError::Missing(data.path)) }
    }

    /// The working directory, which is DATA in every child of `up`.
    pub fn here() -> Self {
        Self { path: PathBuf::from(".") }
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes the lock that makes this process the only `up` of the directory. Held until dropped, or until the process
    /// ends however it ends.
    pub fn lock(&self) -> Result<Flock<fs::File>, DataError> {
        let path = self.file("lock");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::errno::Errno::EWOULDBLOCK => DataError::InUse(self.path.clone()),
            error => DataError::Io { path, error: error.into() },
        })
    }

    /// Six hexadecimal digits that mark this platform's kernel objects.
    pub fn instance_id(&self) -> Result<String, DataError> {
        let path = self.file("id");
        let id = fs::read_to_string(&path).map_err(at(&path))?.trim().to_owned();
        let valid = id.len() == 6 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if valid { Ok(id) } else { Err(DataError::Damaged { path, what: "it should hold six hexadecimal digits" }) }
    }

    /// How the platform runs, or ran last.
    pub fn settings(&self) -> Result<Settings, DataError> {
        let path = self.file("settings.json");
        let json = fs::read(&path).map_err(at(&path))?;
        serde_json::from_slice(&json).map_err(|_| DataError::Damaged { path, what: "it cannot be read as settings" })
    }

    /// Keeps how the platform runs.
    pub fn write_settings(&self, settings: &Settings) -> Result<(), DataError> {
        let json = serde_json::to_vec_pretty(settings).unwrap_or_default();
        self.write("settings.json", &json, 0o644, 0)
    }

    /// The root key.
    pub fn root_key(&self) -> Result<AccessKey, DataError> {
        read_credentials(&self.file("credentials"))
    }

    /// The key that the Fargate host signs with.
    pub fn fargate_host_key(&self) -> Result<AccessKey, DataError> {
        read_credentials(&self.file("keys/fargate-host"))
    }

    /// The key that seals tokens.
    pub fn sealing_key(&self) -> Result<SealingKey, DataError> {
        let path = self.file("keys/sealing");
        let bytes = fs::read(&path).map_err(at(&path))?;
        SealingKey::new(&bytes).ok_or(DataError::Damaged { path, what: "it should hold 32 bytes" })
    }

    fn first_start(&self) -> Result<(), DataError> {
        let mut ids = IdSource::from_system();
        if !self.file("id").exists() {
            self.write("id", ids.hex(6).as_bytes(), 0o644, 0)?;
        }
        if !self.file("keys/sealing").exists() {
            let key = SealingKey::generate().ok_or(DataError::RootKey("the system gives no random bytes"))?;
            self.write("keys/sealing", &key, 0o600, SERVICE_USER)?;
        }
        if !self.file("keys/fargate-host").exists() {
            let key = new_key(&mut ids);
            self.write("keys/fargate-host", credentials_text(&key).as_bytes(), 0o600, SERVICE_USER)?;
        }
        if !self.file("credentials").exists() {
            let key = match root_key_from_environment()? {
                Some(key) => key,
                None => new_key(&mut ids),
            };
            self.write("credentials", credentials_text(&key).as_bytes(), 0o600, SERVICE_USER)?;
        }
        Ok(())
    }

    fn directory(&self, name: &str, mode: u32, owner: u32, group: u32) -> Result<(), DataError> {
        let path = self.file(name);
        if !path.is_dir() {
            fs::DirBuilder::new().mode(mode).create(&path).map_err(at(&path))?;
        }
        // The mode of creation is subject to the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(at(&path))?;
        own(&path, owner, group)
    }

    /// Writes a file so that after a power cut it is there whole or not at all.
    fn write(&self, name: &str, content: &[u8], mode: u32, owner: u32) -> Result<(), DataError> {
        use io::Write;
        let path = self.file(name);
        let temporary = path.with_extension("new");
        let _ = fs::remove_file(&temporary);
        let file = fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary);
        let mut file = file.map_err(at(&temporary))?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(at(&temporary))?;
        // By its descriptor: the directory may be another's, and the name may mean something else by now.
        fchown(&file, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
            .map_err(|error| DataError::Io { path: temporary.clone(), error: error.into() })?;
        fs::rename(&temporary, &path).map_err(at(&path))?;
        let parent = path.parent().unwrap_or(&self.path);
        fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(at(parent))
    }
}

fn own(path: &Path, owner: u32, group: u32) -> Result<(), DataError> {
    let metadata = fs::metadata(path).map_err(at(path))?;
    if metadata.uid() == owner && metadata.gid() == group {
        return Ok(());
    }
    chown(path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)))
        .map_err(|error| DataError::Io { path: path.to_owned(), error: error.into() })
}

fn new_key(ids: &mut IdSource) -> AccessKey {
    AccessKey { access_key_id: ids.iam("AKIA", 20), secret_access_key: ids.secret_access_key() }
}

/// The AWS shared-credentials format, so that `AWS_SHARED_CREDENTIALS_FILE` can point at it.
fn credentials_text(key: &AccessKey) -> String {
    format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", key.access_key_id, key.secret_access_key)
}

fn read_credentials(path: &Path) -> Result<AccessKey, DataError> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    match (value("aws_access_key_id"), value("aws_secret_access_key")) {
        (Some(access_key_id), Some(secret_access_key)) => Ok(AccessKey { access_key_id, secret_access_key }),
        _ => Err(DataError::Damaged { path: path.to_owned(), what: "it should hold an access key and its secret" }),
    }
}

fn root_key_from_environment() -> Result<Option<AccessKey>, DataError> {
    let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (read("LONGSHORE_ROOT_ACCESS_KEY_ID"), read("LONGSHORE_ROOT_SECRET_ACCESS_KEY")) {
        (None, None) => Ok(None),
        (Some(access_key_id), Some(secret_access_key)) => {
            let plain =
                |text: &str, least| (least..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
            if !plain(&access_key_id, 4) || !access_key_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(DataError::RootKey("LONGSHORE_ROOT_ACCESS_KEY_ID must have 4 to 128 letters and digits"));
            }
            if !plain(&secret_access_key, 8) {
                return Err(DataError::RootKey(
                    "LONGSHORE_ROOT_SECRET_ACCESS_KEY must have 8 to 128 printable characters without spaces",
                ));
            }
            Ok(Some(AccessKey { access_key_id, secret_access_key }))
        }
        _ => Err(DataError::RootKey(
            "set both LONGSHORE_ROOT_ACCESS_KEY_ID and LONGSHORE_ROOT_SECRET_ACCESS_KEY, or neither",
        )),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |error| DataError::Io { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_kept_in_amazons_format() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let key = AccessKey { access_key_id: "AKIAX".into(), secret_access_key: "a/b+c=d".into() };
        fs::write(&path, credentials_text(&key)).unwrap();
        assert_eq!(read_credentials(&path).unwrap(), key);
        fs::write(&path, "[default]\n").unwrap();
        assert!(matches!(read_credentials(&path), Err(DataError::Damaged { .. })));
    }

    #[test]
    fn a_directory_without_a_platform_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(DataDirectory::open(directory.path()), Err(DataError::Missing(_))));
    }
}
