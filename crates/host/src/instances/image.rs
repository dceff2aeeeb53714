//! What the root volume of the default image holds: little, because programs are the machine's. It is laid out at the
//! first boot; what must fit the machine's programs, and what the network says, is written at each. To a volume that was filled
//! from an OCI image (see [`super::fill`]) only what the network says is added.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use nix::sys::stat::{Mode, umask};

use super::{PROGRAM, record::Spec};

/// Says that the volume has been laid out, and by which version.
const MARKER: &str = "/var/lib/longshore/image";
/// The user of Amazon's images.
const USER: u32 = 1000;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
     daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
     nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
     ec2-user:x:1000:1000:EC2 Default User:/home/ec2-user:/bin/bash\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nsys:x:3:\nadm:x:4:ec2-user\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\n\
     wheel:x:10:ec2-user\nutmp:x:43:\nnogroup:x:65534:\nec2-user:x:1000:\n";
const SHADOW: &str = "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n\
     ec2-user:!:19000:0:99999:7:::\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
     protocols: files\nservices: files\n";
const PROFILE: &str = "export PATH=/opt/longshore/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
     for file in /etc/profile.d/*.sh; do . \"$file\"; done\n\
     if [ \"${PS1-}\" ]; then PS1='[\\u@\\h \\W]\\$ '; fi\n";

/// Asks the first program to shut the instance down: the machine's own commands speak to another one.
const POWER_OFF: &str = "#!/bin/sh\nexec kill -TERM 1\n";

/// Where distributions keep the certificates of authorities in one file.
const BUNDLES: &[&str] = &[
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];

/// Makes the directories and files of the image on a new volume.
pub(super) fn lay_out() -> io::Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    // Where things are mounted must be there at each boot.
    for path in ["/usr", "/proc", "/sys", "/dev", "/run", "/etc", "/var/lib/longshore"] {
        fs::create_dir_all(path)?;
    }
    if Path::new(MARKER).exists() {
        return Ok(());
    }
    for (path, mode) in [
        ("/root", 0o700),
        ("/home/ec2-user", 0o700),
        ("/mnt", 0o755),
        ("/media", 0o755),
        ("/srv", 0o755),
        ("/opt", 0o755),
        ("/tmp", 0o1777),
        ("/var/cache", 0o755),
        ("/var/lib", 0o755),
        ("/var/log", 0o755),
        ("/var/spool", 0o755),
        ("/var/tmp", 0o1777),
        ("/etc/ecs", 0o755),
        ("/etc/ssl/certs", 0o755),
    ] {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    chown("/home/ec2-user", Some(USER), Some(USER))?;
    for (link, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock"), ("/etc/mtab", "/proc/self/mounts")] {
        if fs::symlink_metadata(link).is_err() {
            symlink(target, link)?;
        }
    }
    fs::write("/etc/passwd", PASSWD)?;
    fs::write("/etc/group", GROUP)?;
    fs::write("/etc/shadow", SHADOW)?;
    fs::set_permissions("/etc/shadow", Permissions::from_mode(0o600))?;
    fs::write("/etc/nsswitch.conf", NSSWITCH)?;
    fs::write("/etc/profile", PROFILE)?;
    fs::write("/etc/shells", "/bin/sh\n/bin/bash\n")?;
    fs::write("/etc/fstab", "# The root volume is mounted already when the first program starts.\n")?;
    for file in ["etc/protocols", "etc/services"] {
        copy_file(file)?;
    }
    copy_directory("etc/ssl/certs")?;
    File::open("/etc")?.sync_all()?;
    fs::write(MARKER, concat!(env!("CARGO_PKG_VERSION"), "\n"))?;
    // The marker must not be on the disk before what it speaks of.
    nix::unistd::sync();
    Ok(())
}

/// Adds to the files of an OCI image what a machine needs: where things are mounted, and its names.
pub(super) fn complete(spec: &Spec) -> io::Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    for path in ["/proc", "/sys", "/dev", "/run", "/etc", "/root", "/var"] {
        fs::create_dir_all(path)?;
    }
    for path in ["/tmp", "/var/tmp"] {
        if fs::symlink_metadata(path).is_err() {
            fs::create_dir(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o1777))?;
        }
    }
    names(spec)
}

/// The instance's own name, and who knows others.
fn names(spec: &Spec) -> io::Result<()> {
    let (short, domain) = spec.hostname.split_once('.').unwrap_or((&spec.hostname, ""));
    let search = if domain.is_empty() { String::new() } else { format!("search {domain}\n") };
    for (path, content) in [
        ("/etc/hostname", format!("{}\n", spec.hostname)),
        ("/etc/hosts", format!("127.0.0.1 localhost\n127.0.1.1 {} {short}\n", spec.hostname)),
        ("/etc/resolv.conf", format!("nameserver 169.254.169.253\n{search}")),
    ] {
        // A link here may lead to what a resolver of the instance's own would have written.
        let _ = fs::remove_file(path);
        fs::write(path, content)?;
    }
    Ok(())
}

/// Makes the commands that shut an instance down, beside the program at `path`.
pub(super) fn power_commands(path: &str) -> io::Result<()> {
    ["poweroff", "shutdown", "halt"]
        .iter()
        .try_for_each(|name| command(&Path::new(path).with_file_name(name), POWER_OFF))
}

/// Makes a command of a script.
pub(super) fn command(path: &Path, script: &str) -> io::Result<()> {
    fs::write(path, script)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Writes what is the network's and the machine's to say.
pub(super) fn refresh(spec: &Spec) -> io::Result<()> {
    names(spec)?;
    fs::write("/etc/os-release", os_release())?;
    // For logins; what the first program starts has it from there.
    fs::write("/etc/environment", format!("AWS_ENDPOINT_URL={}\n", spec.endpoint))?;
    fs::create_dir_all("/etc/profile.d")?;
    fs::write("/etc/profile.d/longshore.sh", format!("export AWS_ENDPOINT_URL={}\n", spec.endpoint))?;
    power_commands(PROGRAM)?;
    for file in ["etc/ld.so.cache", "etc/ld.so.conf"] {
        copy_file(file)?;
    }
    for directory in ["etc/ld.so.conf.d", "etc/alternatives"] {
        copy_directory(directory)?;
    }
    if let Some(bundle) = BUNDLES.iter().find(|bundle| Path::new(bundle).is_file()) {
        fs::create_dir_all("/etc/ssl/certs")?;
        replace(Path::new(bundle), Path::new("/etc/ssl/certs/ca-certificates.crt"))?;
    }
    Ok(())
}

/// Says what it is: not Amazon Linux, and whose programs it runs.
fn os_release() -> String {
    let machine = fs::read_to_string("usr/lib/os-release").unwrap_or_default();
    let name = machine.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("\"Linux\"");
    let name: String = name.chars().filter(|one| !one.is_control() && !"\"'`$\\".contains(*one)).take(100).collect();
    format!(
        "NAME=\"Longshore ECS-optimized image\"\nID=longshore\nVERSION=\"{version}\"\nVERSION_ID=\"{version}\"\n\
         PRETTY_NAME=\"Longshore ECS-optimized image {version} (programs of {name})\"\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn copy_file(name: &str) -> io::Result<()> {
    if Path::new(name).is_file() { replace(Path::new(name), &Path::new("/").join(name)) } else { Ok(()) }
}

/// Copies files and links, not what is in directories below.
fn copy_directory(name: &str) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(name) else { return Ok(()) };
    let target = Path::new("/").join(name);
    fs::create_dir_all(&target)?;
    for entry in entries {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, target.join(entry.file_name()));
        if kind.is_symlink() {
            let link = fs::read_link(entry.path())?;
            if fs::read_link(&target).ok().as_ref() != Some(&link) {
                let _ = fs::remove_file(&target);
                symlink(link, target)?;
            }
        } else if kind.is_file() {
            replace(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Copies a file in place of whatever has its name.
fn replace(source: &Path, target: &Path) -> io::Result<()> {
    let temporary = target.with_extension("longshore-new");
    let _ = fs::remove_file(&temporary);
    fs::copy(source, &temporary)?;
    fs::rename(temporary, target)
}

/// Grows the file system of the root volume to the volume's size, if that has grown. It must not be mounted. Says what
/// went wrong; then the file system keeps the size it had.
pub(super) fn grow(image: &Path) -> Result<(), String> {
    if !is_smaller(image).map_err(|error| error.to_string())? {
        return Ok(());
    }
    // The second refuses what the first has not looked at. The first ends with 1 when it has mended something.
    for (program, arguments, last) in [("e2fsck", ["-f", "-p"].as_slice(), 1), ("resize2fs", &[], 0)] {
        let mut command = Command::new(program);
        let output = command.args(arguments).arg(image).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        if output.status.code().is_none_or(|code| code > last) {
            return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    Ok(())
}

/// Whether the ext4 file system in an image leaves room at its end.
fn is_smaller(image: &Path) -> io::Result<bool> {
    let mut file = File::open(image)?;
    let mut block = [0; 1024];
    file.seek(SeekFrom::Start(1024))?;
    file.read_exact(&mut block)?;
    let number = |at: usize| u64::from(u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]));
    let (blocks, size) = (number(4) | number(0x150) << 32, 1024_u64.checked_shl(block[24].into()).unwrap_or(0));
    Ok(blocks.saturating_mul(size).saturating_add(1 << 20) < file.metadata()?.len())
}

/// Whether an image begins with an ext4 file system.
pub(super) fn is_formatted(image: &Path) -> io::Result<bool> {
    let mut magic = [0; 2];
    let mut file = File::open(image)?;
    file.seek(SeekFrom::Start(1024 + 0x38))?;
    file.read_exact(&mut magic)?;
    Ok(magic == [0x53, 0xef])
}
