//! Loop devices: a file as a block device.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An attached loop device. It detaches itself when the last user closes it, so this must live until it is mounted, or for as long as
/// it is to exist.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    file: File,
}

impl LoopDevice {
    /// Attaches a file to a free device, with the sectors of a disk.
    ///
    /// # Errors
    /// What the kernel refuses; it makes devices beyond those it has at first.
    pub fn attach(image: &Path) -> io::Result<Self> {
        attach(image)
    }

    /// Its node, such as `/dev/loop7`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its major and minor number.
    ///
    /// # Errors
    /// None on a sane kernel.
    pub fn number(&self) -> io::Result<(u64, u64)> {
        let device = self.file.metadata()?.rdev();
        Ok((nix::sys::stat::major(device), nix::sys::stat::minor(device)))
    }

    /// Whether some device has this file. Two at once, each with a mounted file system, would destroy it.
    pub fn has(image: &Path) -> bool {
        let image = fs::canonicalize(image).unwrap_or_else(|_| image.to_path_buf());
        let Ok(devices) = fs::read_dir("/sys/block") else { return false };
        devices.flatten().any(|device| {
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            Path::new(backing.trim_end_matches('\n')) == image
        })
    }
}

/// `struct loop_config` of `linux/loop.h`, with `struct loop_info64` inside.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

fn attach(image: &Path) -> io::Result<LoopDevice> {
    let backing = OpenOptions::new().read(true).write(true).open(image)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..64 {
        // SAFETY: the request takes no argument and the descriptor is open.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        let config = LoopConfig {
            fd: backing.as_raw_fd().unsigned_abs(),
            block_size: 0,
            info: LoopInfo {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags: LO_FLAGS_AUTOCLEAR,
                file_name: [0; 64],
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: the structure is laid out as the kernel's and lives through the call.
        let configured = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, std::ptr::from_ref(&config)) };
        if configured == 0 {
            return Ok(LoopDevice { path, file: device });
        }
        let error = io::Error::last_os_error();
        // Another process took the free device between the two calls.
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}
