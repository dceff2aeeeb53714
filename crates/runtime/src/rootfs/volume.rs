//! The ephemeral storage of one task: a sparse file with an ext4 file system on a loop device, so that its size is a real limit.
//!
//! Without a journal it costs a few megabytes, and what it holds is not meant to survive a crash of the host. The first volume of a size
//! leaves an empty template beside it; later ones copy that, which is four times as fast as making a file system. Attaching a loop
//! device waits for the whole kernel, so one mounted volume can be kept in [`EphemeralVolume::spare`], and the next one is that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Whence;

use super::{LoopDevice, RootfsError, overlay};

/// Held while the spare volume is made or taken.
static SPARE: Mutex<()> = Mutex::new(());

/// A mounted volume. Dropping it leaves it mounted: it outlives the process that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EphemeralVolume {
    /// The sparse file.
    pub image: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

impl EphemeralVolume {
    /// Makes and mounts a volume of `bytes`, out of the spare one if there is one. Blocking, some tens of milliseconds without it.
    ///
    /// # Errors
    /// [`RootfsError::Format`] without `mkfs.ext4`, [`RootfsError::NoSpace`], [`RootfsError::Mount`]. Nothing is left behind then.
    pub fn create(image: &Path, mount_point: &Path, bytes: u64) -> Result<Self, RootfsError> {
        let volume = Self { image: image.to_path_buf(), mount_point: mount_point.to_path_buf() };
        if let Some(spare) = Self::spare_beside(image, bytes)
            && volume.take(&spare)
        {
            return Ok(volume);
        }
        Self::make(volume, bytes)
    }

    /// Makes the volume that the next [`EphemeralVolume::create`] of so many bytes in `directory` will be, unless it is there. Blocking.
    ///
    /// # Errors
    /// As [`EphemeralVolume::create`].
    pub fn spare(directory: &Path, bytes: u64) -> Result<(), RootfsError> {
        let _one = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        let image = directory.join(format!("spare-{bytes}.ext4"));
        if image.exists() {
            return Ok(());
        }
        let mount_point = directory.join(format!("spare-{bytes}"));
        Self::make(Self { image, mount_point }, bytes).map(drop)
    }

    fn spare_beside(image: &Path, bytes: u64) -> Option<Self> {
        let directory = image.parent()?;
        Self::adopt(&directory.join(format!("spare-{bytes}.ext4")), &directory.join(format!("spare-{bytes}")))
    }

    /// Becomes the spare volume; false if that is not to be had. What is left half done then is made anew, as without a spare.
    fn take(&self, spare: &Self) -> bool {
        let _one = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        // The name of the image says whose it is: from here on it is nobody else's.
        if fs::rename(&spare.image, &self.image).is_err() {
            return false;
        }
        let moved = fs::create_dir_all(&self.mount_point).is_ok()
            && mount(Some(&spare.mount_point), &self.mount_point, None::<&str>, MsFlags::MS_BIND, None::<&str>).is_ok();
        // Under its new name it stays mounted; the old one would be in the way of the next spare volume.
        let _ = umount2(&spare.mount_point, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&spare.mount_point);
        if !moved {
            let _ = fs::remove_file(&self.image);
        }
        moved
    }

    fn make(volume: Self, bytes: u64) -> Result<Self, RootfsError> {
        let made = template(&volume.image, bytes)
            .and_then(|template| copy_sparse(&template, &volume.image).map_err(RootfsError::at(&volume.image)))
            .and_then(|()| volume.mount());
        if made.is_err() {
            // The caller learns of the first failure; this only tidies up.
            let _ = fs::remove_file(&volume.image);
        }
        made.map(|()| volume)
    }

    /// Finds a volume again that an earlier process made, if it is still mounted.
    pub fn adopt(image: &Path, mount_point: &Path) -> Option<Self> {
        (image.exists() && overlay::is_mounted(mount_point))
            .then(|| Self { image: image.to_path_buf(), mount_point: mount_point.to_path_buf() })
    }

    /// Used and total bytes.
    ///
    /// # Errors
    /// If it is not mounted any more.
    pub fn usage(&self) -> io::Result<(u64, u64)> {
        let stat = nix::sys::statvfs::statvfs(&self.mount_point)?;
        let total = stat.blocks() * stat.fragment_size();
        Ok((total - stat.blocks_free() * stat.fragment_size(), total))
    }

    /// Unmounts and deletes it with everything in it.
    ///
    /// # Errors
    /// What the kernel refuses; a volume that is already gone is fine.
    pub fn remove(self) -> Result<(), RootfsError> {
        match umount2(&self.mount_point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(RootfsError::mount(&self.mount_point)(error)),
        }
        // An empty mount point left over hurts nobody.
        let _ = fs::remove_dir(&self.mount_point);
        match fs::remove_file(&self.image) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RootfsError::at(&self.image)(error)),
            _ => Ok(()),
        }
    }

    fn mount(&self) -> Result<(), RootfsError> {
        fs::create_dir_all(&self.mount_point).map_err(RootfsError::at(&self.mount_point))?;
        let device = LoopDevice::attach(&self.image).map_err(RootfsError::at(&self.image))?;
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
        mount(Some(device.path()), &self.mount_point, Some("ext4"), flags, None::<&str>)
            .map_err(RootfsError::mount(&self.mount_point))
    }
}

/// The empty file system of this size, made once per directory.
fn template(image: &Path, bytes: u64) -> Result<PathBuf, RootfsError> {
    let directory = image.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(RootfsError::at(directory))?;
    let path = directory.join(format!("template-{bytes}.ext4"));
    if path.exists() {
        return Ok(path);
    }
    let temporary =
        directory.join(format!(".template-{bytes}-{}-{:?}", std::process::id(), std::thread::current().id()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(RootfsError::at(&temporary))?;
    file.set_len(bytes).map_err(RootfsError::at(&temporary))?;
    drop(file);
    let output = std::process::Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"])
        .arg(&temporary)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map_err(|error| RootfsError::Format(format!("mkfs.ext4: {error}")))?;
    if !output.status.success() {
        // The failure to report is mkfs's.
        let _ = fs::remove_file(&temporary);
        return Err(RootfsError::Format(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    fs::rename(&temporary, &path).map_err(RootfsError::at(&path))?;
    Ok(path)
}

/// Copies only what is not a hole.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let length = i64::try_from(source.metadata()?.len()).map_err(io::Error::other)?;
    target.set_len(source.metadata()?.len())?;
    let mut buffer = vec![0; 1 << 16];
    let mut position = 0;
    while position < length {
        let data = match nix::unistd::lseek(&source, position, Whence::SeekData) {
            Ok(data) => data,
            Err(nix::Error::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = nix::unistd::lseek(&source, data, Whence::SeekHole)?;
        let (mut at, end) = (data.unsigned_abs(), hole.unsigned_abs());
        while at < end {
            let want = buffer.len().min(usize::try_from(end - at).unwrap_or(buffer.len()));
            let read = source.read_at(&mut buffer[..want], at)?;
            if read == 0 {
                break;
            }
            target.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
        position = hole;
    }
    Ok(())
}
