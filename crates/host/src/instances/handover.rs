//! Handing network interfaces over to an instance: a directory of the machine that the instance sees, in which each of its
//! tasks' network namespaces is mounted under its interface's id. Mounts that are made here after the boot are seen there.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{interface, netns};

/// Makes the directory ready for an instance that is about to boot.
pub(super) fn open(directory: &Path) -> io::Result<()> {
    close(directory)?;
    fs::create_dir_all(directory)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(None::<&str>, directory, Some("tmpfs"), flags, Some("mode=755,size=1m"))?;
    Ok(mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?)
}

/// Takes everything back.
pub(super) fn close(directory: &Path) -> io::Result<()> {
    loop {
        match umount2(directory, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // Nothing is mounted there, or there is no such directory.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Hands over these interfaces, as far as they are ready, and takes all others back.
pub(super) fn reconcile<'a>(platform: &str, directory: &Path, wanted: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let wanted: BTreeSet<&str> = wanted.collect();
    let present: BTreeSet<String> =
        fs::read_dir(directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    for id in present.iter().filter(|id| !wanted.contains(id.as_str())) {
        let path = directory.join(id);
        while netns::is_ready(&path) {
            umount2(&path, MntFlags::MNT_DETACH)?;
        }
        fs::remove_file(&path)?;
    }
    for id in wanted {
        let (namespace, path) = (interface::path(platform, id), directory.join(id));
        if netns::is_ready(&path) || !netns::is_ready(&namespace) {
            continue;
        }
        OpenOptions::new().create(true).append(true).open(&path)?;
        mount(Some(&namespace), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}
