//! Overlay mounts.
//!
//! The kernel takes one page of mount options, and sixty layers named by absolute paths do not fit. Each layer is opened and named
//! `/proc/self/fd/N` instead, which is short whatever the data directory is called.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Rootfs, RootfsError};
use crate::files;

/// More layers than this no image has (Docker's own bound is 127), and the kernel takes no more than 500.
const MAXIMUM_LAYERS: usize = 200;

/// Mounts the root filesystem at `target`, making the writable directories and the mount point if they are missing.
///
/// Device nodes on it are inert: a container's devices live in its own `/dev`.
///
/// # Errors
/// [`RootfsError::Mount`] with the kernel's words, [`RootfsError::NoSpace`].
pub fn mount_overlay(rootfs: &Rootfs, target: &Path) -> Result<(), RootfsError> {
    if rootfs.lowers.is_empty() || rootfs.lowers.len() > MAXIMUM_LAYERS {
        return Err(RootfsError::Mount {
            target: target.to_path_buf(),
            reason: format!("{} layers", rootfs.lowers.len()),
        });
    }
    for directory in [&rootfs.upper, &rootfs.work] {
        files::private_directory(directory).map_err(RootfsError::at(directory))?;
    }
    // The upper directory becomes the container's `/`, which every user in it must be able to enter.
    fs::set_permissions(&rootfs.upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(RootfsError::at(&rootfs.upper))?;
    fs::create_dir_all(target).map_err(RootfsError::at(target))?;
    let open = |path: &PathBuf| files::open_directory(path).map_err(|error| RootfsError::at(path)(error.into()));
    let lowers = rootfs.lowers.iter().rev().map(open).collect::<Result<Vec<OwnedFd>, _>>()?;
    let (upper, work) = (open(&rootfs.upper)?, open(&rootfs.work)?);
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let names: Vec<String> = lowers.iter().map(name).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", names.join(":"), name(&upper), name(&work));
    // What a container writes does not outlive the host's next start, so nothing waits for the disk: neither its `fsync` nor the
    // unmount. The kernel leaves a mark against mounting it again after a crash, and containers do not survive one.
    match fs::remove_dir_all(rootfs.work.join("work/incompat")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(RootfsError::at(&rootfs.work)(error)),
        _ => {}
    }
    let mount = |options: &str| mount(Some("overlay"), target, Some("overlay"), MsFlags::MS_NODEV, Some(options));
    match mount(&format!("{options},volatile")) {
        // Before Linux 5.10.
        Err(nix::Error::EINVAL) => mount(&options),
        other => other,
    }
    .map_err(RootfsError::mount(target))
}

/// Unmounts everything at or below `directory`, the newest first, even if it is in use; says how many it was.
///
/// # Errors
/// If the mount table cannot be read.
pub fn unmount_under(directory: &Path) -> Result<usize, RootfsError> {
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
    let mut count = 0;
    for target in mount_points()?.into_iter().rev().filter(|target| target.starts_with(&directory)) {
        match umount2(&target, MntFlags::MNT_DETACH) {
            Ok(()) => count += 1,
            // Gone meanwhile, or hidden below one that is already detached.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(RootfsError::mount(&target)(error)),
        }
    }
    Ok(count)
}

/// Whether something is mounted exactly there.
pub(super) fn is_mounted(target: &Path) -> bool {
    let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
    mount_points().is_ok_and(|points| points.contains(&target))
}

fn mount_points() -> Result<Vec<PathBuf>, RootfsError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read(path).map_err(RootfsError::at(path))?;
    Ok(text.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape).collect())
}

/// The kernel writes blanks and backslashes as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (*first, tail) {
            bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c\0"), PathBuf::from(r"/a b\c\0"));
        assert!(mount_points().unwrap().contains(&PathBuf::from("/proc")));
    }
}
