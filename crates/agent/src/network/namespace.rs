//! Network namespaces: made, entered, named and removed.
//!
//! A thread changes its network namespace for itself only, so all work in another namespace is done by a thread made
//! for it, which ends afterwards. Names are files in `/run/netns` with the namespace mounted on them, as `ip netns`
//! makes them; a file without the mount is a name that is not ready yet, or no longer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;

use domain::network::names::NETNS_DIRECTORY;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

/// The file system that network namespaces are bind-mounted from (`linux/magic.h`).
const NSFS: FsType = FsType(0x6e73_6673);

/// Runs `work` in the namespace at `path`, on a thread of its own. Sockets it opens and processes it starts stay there.
pub fn within<R: Send>(path: &Path, work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    on_thread(|| {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// Makes an empty namespace and gives it a name, in place of one that has none mounted.
pub fn make(path: &Path) -> io::Result<()> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = fs::canonicalize("/proc/thread-self")?.join("ns/net");
        OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(mount(Some(&own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    })
}

fn on_thread<R: Send>(work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread that worked in a network namespace panicked")))
    })
}

/// Whether the name is a network namespace by now; a plain file is one in the making.
pub fn is_ready(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS)
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
pub fn list(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(NETNS_DIRECTORY).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
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
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(!is_ready(file.path()));
        assert!(is_ready(Path::new("/proc/self/ns/net")));
        assert!(!is_ready(Path::new("/nonexistent")));
    }
}
