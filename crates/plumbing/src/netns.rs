//! Network namespaces: made, entered, named and removed.
//!
//! A thread changes its network namespace for itself only, so all work in another namespace is done by a thread made
//! for it, which ends afterwards. Names are files in `/run/netns` with the namespace mounted on them, as `ip netns`
//! makes them; a file without the mount is a name that is not ready yet, or no longer.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};

use domain::network::names::NETNS_DIRECTORY;

/// The file system type of a namespace's file.
const NSFS: FsType = FsType(0x6e73_6673);
/// The calling thread's own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Runs `work` on a thread of its own and waits for it.
pub fn on_thread<R: Send>(work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread that worked in a network namespace panicked")))
    })
}

/// Runs `work` in the namespace at `path`. Sockets it opens and processes it starts stay there.
pub fn within<R: Send>(path: &Path, work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    on_thread(|| {
        enter(path)?;
        work()
    })
}

/// Moves the calling thread into the namespace at `path`. Only for threads that end soon.
pub fn enter(path: &Path) -> io::Result<()> {
    Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}

/// Moves the calling thread into a new, empty namespace. Only for threads that end soon.
pub fn enter_new() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

/// The calling thread's namespace.
pub fn current() -> io::Result<File> {
    File::open(OWN)
}

/// Makes an empty namespace and gives it a name, in place of one that has none mounted.
pub fn make(path: &Path) -> io::Result<()> {
    on_thread(|| {
        enter_new()?;
        name_current(path)
    })
}

/// Whether a namespace is mounted at `path`; a plain file is a name that is not ready.
pub fn is_ready(path: &Path) -> bool {
    statfs(path).is_ok_and(|status| status.filesystem_type() == NSFS)
}

/// Gives the calling thread's namespace a name, in place of one that has none mounted.
pub fn name_current(path: &Path) -> io::Result<()> {
    let own = fs::canonicalize("/proc/thread-self")?.join("ns/net");
    OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    mount(Some(&own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Takes a name away. The namespace itself goes with its last process and socket. Does nothing when there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    while is_ready(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names in `/run/netns` that begin with `prefix`, ready or not.
pub fn list(prefix: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(NETNS_DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && name.starts_with(prefix)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Makes `/run/netns` a shared mount, as `ip netns` does, so that a name removed here is also removed in the mount
/// namespaces that were copied from ours: a container's copy would otherwise keep the network namespace alive.
pub fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIRECTORY)?;
    let share =
        || mount(None::<&str>, NETNS_DIRECTORY, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    if share().is_err() {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(NETNS_DIRECTORY), NETNS_DIRECTORY, None::<&str>, bind, None::<&str>)?;
        share()?;
    }
    Ok(())
}

/// Writes a kernel parameter of the calling thread's namespace, e.g. `ipv4/ip_forward`.
pub fn set_parameter(name: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mounted_namespace_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_ready(file.path()));
        assert!(is_ready(Path::new("/proc/self/ns/net")));
        assert!(!is_ready(Path::new("/nonexistent")));
    }
}
