//! Which uid, gids and home a user string means in one image, by Docker's rules.
//!
//! The files belong to the image: they are opened as if the image were the root, so that a symbolic link cannot lead to the host's.

use std::io::Read;
use std::os::fd::AsFd;

use nix::fcntl::OFlag;

use super::RootfsError;
use crate::files;

/// Larger user databases are cut off here.
const MAXIMUM_FILE: u64 = 4 << 20;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub home: String,
}

/// Resolves `user` (`""`, `name`, `uid`, either with `:group` or `:gid`) in the image whose root directory is open as `root`.
pub(crate) fn resolve(root: &impl AsFd, user: &str) -> Result<User, RootfsError> {
    resolve_in(&read(root, "etc/passwd"), &read(root, "etc/group"), user)
}

fn read(root: &impl AsFd, path: &str) -> String {
    // Not blocking: an image may have put a FIFO there.
    let Ok(fd) = files::open_in_root(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) else { return String::new() };
    let file = std::fs::File::from(fd);
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    // An image without readable user files simply has no names.
    let _ = file.take(MAXIMUM_FILE).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) =
            (fields.next()?, fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or("/") })
    })
}

/// Name, gid and members.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn resolve_in(passwd_text: &str, group_text: &str, user: &str) -> Result<User, RootfsError> {
    let (user_part, group_part) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    // A negative or huge number is no id, so it is looked for as a name and not found.
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| i32::try_from(*id).is_ok());
    let wanted = if user_part.is_empty() { "0" } else { user_part };
    let entry = passwd(passwd_text).find(|entry| entry.name == wanted || number(wanted) == Some(entry.uid));
    let mut resolved = match (&entry, number(wanted)) {
        (Some(entry), _) => {
            User { uid: entry.uid, gid: entry.gid, additional_gids: Vec::new(), home: entry.home.to_owned() }
        }
        (None, Some(uid)) => User { uid, gid: 0, additional_gids: Vec::new(), home: "/".to_owned() },
        (None, None) => {
            return Err(RootfsError::NoSuchName { kind: "user", name: user_part.to_owned(), file: "passwd" });
        }
    };
    if resolved.home.is_empty() {
        resolved.home = "/".to_owned();
    }
    match group_part {
        Some(group) => {
            let found = groups(group_text)
                .find(|(name, gid, _)| *name == group || number(group) == Some(*gid))
                .map(|(_, gid, _)| gid);
            resolved.gid = found.or_else(|| number(group)).ok_or_else(|| RootfsError::NoSuchName {
                kind: "group",
                name: group.to_owned(),
                file: "group",
            })?;
        }
        None => {
            if let Some(entry) = &entry {
                resolved.additional_gids = groups(group_text)
                    .filter(|(_, _, members)| members.split(',').any(|member| member == entry.name))
                    .map(|(_, gid, _)| gid)
                    .collect();
            }
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\nwheel:x:10:app\napp:x:1001:\n";

    fn check(user: &str, expected: Option<(u32, u32, &[u32], &str)>) {
        let resolved = resolve_in(PASSWD, GROUP, user).ok();
        let expected = expected.map(|(uid, gid, gids, home)| User {
            uid,
            gid,
            additional_gids: gids.to_vec(),
            home: home.to_owned(),
        });
        assert_eq!(resolved, expected, "{user:?}");
    }

    #[test]
    fn dockers_rules() {
        check("", Some((0, 0, &[], "/root")));
        check("app", Some((1000, 1001, &[50, 10], "/home/app")));
        check("1000", Some((1000, 1001, &[50, 10], "/home/app")));
        check("app:staff", Some((1000, 50, &[], "/home/app")));
        check("app:", Some((1000, 1001, &[50, 10], "/home/app")));
        check(":staff", Some((0, 50, &[], "/root")));
        check("2000", Some((2000, 0, &[], "/")));
        check("2000:3000", Some((2000, 3000, &[], "/")));
        check("nobody", None);
        check("app:nogroup", None);
        check("-1", None);
        check("4294967295", None);
    }

    #[test]
    fn an_image_cannot_lead_to_the_hosts_files() {
        let image = tempfile::tempdir().unwrap();
        std::fs::create_dir(image.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", image.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/group", image.path().join("etc/group")).unwrap();
        let root = files::open_directory(image.path()).unwrap();
        assert_eq!(read(&root, "etc/passwd"), "");
        assert_eq!(read(&root, "etc/group"), "");
        assert!(resolve(&root, "daemon").is_err());
    }
}
