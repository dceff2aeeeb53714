//! The files of the default image: generated, so that nothing is downloaded. What an instance writes stays; what follows
//! from where it runs is written anew at every boot.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink},
    path::Path,
};

use domain::network::RESOLVER_ADDRESS;

use super::spec::Spec;

/// Directories of the machine that programs below `/usr` need to run at all. Nothing private is in them.
const OF_THE_MACHINE: [&str; 5] =
    ["etc/ld.so.cache", "etc/ld.so.conf", "etc/ld.so.conf.d", "etc/alternatives", "etc/ssl/certs"];
/// Where programs are, as links into `/usr` on a merged system.
pub(super) const OUTSIDE_USR: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// The user that people log in as on Amazon's image.
const USER: u32 = 1000;
/// More of one of the machine's directories is not copied.
const MOST_FILES: usize = 4096;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
ec2-user:x:1000:1000:EC2 Default User:/home/ec2-user:/bin/bash
";
const GROUP: &str = "root:x:0:
daemon:x:1:
tty:x:5:
nogroup:x:65534:
ec2-user:x:1000:
";
const SHADOW: &str = "root:*:19000:0:99999:7:::\nec2-user:!:19000:0:99999:7:::\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";
const OS_RELEASE: &str = "NAME=\"Longshore ECS-optimized image\"
ID=longshore
PRETTY_NAME=\"Longshore ECS-optimized image (a system container with the programs of its host)\"
";
/// Asks the first process to shut the instance down.
const POWER_OFF: &str = "#!/bin/sh\nexec kill -TERM 1\n";

/// Lays out what is missing below `root` and brings the rest up to date.
pub(super) fn lay_out(root: &Path, spec: &Spec) -> io::Result<()> {
    for (path, mode) in [
        ("etc", 0o755),
        ("dev", 0o755),
        ("home", 0o755),
        ("mnt", 0o755),
        ("opt/longshore/bin", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("var/cache", 0o755),
        ("var/lib", 0o755),
        ("var/log", 0o755),
        ("var/spool", 0o755),
        ("var/tmp", 0o1777),
    ] {
        directory(&root.join(path), mode)?;
    }
    let home = root.join("home/ec2-user");
    if !home.exists() {
        directory(&home, 0o700)?;
        chown(&home, Some(USER), Some(USER))?;
    }
    link(Path::new("/run"), &root.join("var/run"))?;
    link(Path::new("/run/lock"), &root.join("var/lock"))?;
    link(Path::new("/proc/self/mounts"), &root.join("etc/mtab"))?;
    for name in OUTSIDE_USR {
        match fs::read_link(Path::new("/").join(name)) {
            Ok(target) => link(&target, &root.join(name))?,
            // A machine that has not merged them has directories, which are mounted.
            Err(_) if Path::new("/").join(name).is_dir() => directory(&root.join(name), 0o755)?,
            Err(_) => {}
        }
    }
    for (path, text, mode) in [
        ("etc/passwd", PASSWD, 0o644),
        ("etc/group", GROUP, 0o644),
        ("etc/shadow", SHADOW, 0o600),
        ("etc/nsswitch.conf", NSSWITCH, 0o644),
        ("etc/os-release", OS_RELEASE, 0o644),
        ("etc/hosts", "127.0.0.1 localhost\n", 0o644),
    ] {
        let path = root.join(path);
        if !path.exists() {
            file(&path, text, mode)?;
        }
    }
    let environment: Vec<String> = spec
        .environment
        .iter()
        .filter(|(name, _)| name == "AWS_ENDPOINT_URL")
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    let resolvers = format!("search {}\nnameserver {RESOLVER_ADDRESS}\n", spec.domain);
    let profile: String = environment.iter().map(|line| format!("export {line}")).collect();
    directory(&root.join("etc/profile.d"), 0o755)?;
    for (path, text, mode) in [
        ("etc/hostname", format!("{}\n", spec.hostname), 0o644),
        ("etc/resolv.conf", resolvers, 0o644),
        ("etc/environment", environment.concat(), 0o644),
        ("etc/profile.d/longshore.sh", profile, 0o644),
        ("opt/longshore/bin/poweroff", POWER_OFF.to_owned(), 0o755),
        ("opt/longshore/bin/shutdown", POWER_OFF.to_owned(), 0o755),
        ("opt/longshore/bin/halt", POWER_OFF.to_owned(), 0o755),
    ] {
        file(&root.join(path), &text, mode)?;
    }
    for name in OF_THE_MACHINE {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        if from.exists() {
            copy(&from, &to, &mut 0)?;
        }
    }
    Ok(())
}

fn directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Writes a file in place of whatever is there: root inside may have put a link to somewhere else.
fn file(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    remove(path)?;
    let mut options = fs::OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(mode).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

fn link(target: &Path, path: &Path) -> io::Result<()> {
    if fs::read_link(path).is_ok_and(|present| present == target) {
        return Ok(());
    }
    remove(path)?;
    symlink(target, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// Copies a file or a directory of files and links.
fn copy(from: &Path, to: &Path, count: &mut usize) -> io::Result<()> {
    *count += 1;
    if *count > MOST_FILES {
        return Ok(());
    }
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        if fs::symlink_metadata(to).is_ok_and(|present| !present.is_dir()) {
            remove(to)?;
        }
        directory(to, 0o755)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()), count)?;
        }
        return Ok(());
    }
    if metadata.is_symlink() {
        return link(&fs::read_link(from)?, to);
    }
    if metadata.is_file() {
        let same = fs::symlink_metadata(to).is_ok_and(|present| {
            present.is_file() && present.len() == metadata.len() && present.modified().ok() >= metadata.modified().ok()
        });
        if !same {
            remove(to)?;
            fs::copy(from, to)?;
        }
    }
    Ok(())
}
