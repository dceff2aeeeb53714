//! The block in `/etc/hosts` that makes the platform's names (load balancers', the registry's) resolve on this machine.
//! Only lines between the platform's own marks are ever changed, and two platforms take turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, Permissions},
    io,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use domain::network::{host::NameItem, names};

/// A file of this size is no hosts file.
const MAX_SIZE: u64 = 4 << 20;
/// Platforms that change the file at the same time wait for each other here.
const LOCK: &str = "/run/longshore-hosts.lock";

/// Names and their addresses as seen from this machine: those that have such addresses.
pub(crate) fn names_of(items: &[NameItem]) -> BTreeMap<String, BTreeSet<Ipv4Addr>> {
    items
        .iter()
        .filter(|item| is_name(&item.name) && !item.public_addresses.is_empty())
        .map(|item| (item.name.to_ascii_lowercase(), item.public_addresses.iter().copied().collect()))
        .collect()
}

/// Whether a text is a host name: it becomes a line of a file that everybody reads.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

/// Makes the platform's block have these names; no names, no block. Returns whether the file was another one before.
pub(crate) fn update(file: &Path, platform: &str, names: &BTreeMap<String, BTreeSet<Ipv4Addr>>) -> io::Result<bool> {
    let lock = File::create(LOCK)?;
    lock.lock()?;
    let old = match fs::metadata(file) {
        Ok(metadata) if metadata.len() > MAX_SIZE => {
            return Err(io::Error::other("it is too large to be a hosts file"));
        }
        Ok(_) => fs::read(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let new = replaced(&old, platform, names);
    if new == old {
        return Ok(false);
    }
    write(file, &new)?;
    Ok(true)
}

/// In bytes: what others wrote need not be UTF-8, and stays as it is to the last line ending.
fn replaced(old: &[u8], platform: &str, names: &BTreeMap<String, BTreeSet<Ipv4Addr>>) -> Vec<u8> {
    let digits = names::digits(platform);
    let (begin, end) = (format!("# BEGIN longshore {digits}"), format!("# END longshore {digits}"));
    // A block without an end, as a full disk might leave it, goes no further than the last mark that begins one: lines
    // of others after it must not vanish.
    let is = |line: &[u8], mark: &str| line.trim_ascii_end() == mark.as_bytes();
    let lines = || old.split_inclusive(|byte| *byte == b'\n');
    let complete = lines().any(|line| is(line, &end));
    let mut new = Vec::with_capacity(old.len());
    let mut inside = false;
    for line in lines() {
        if is(line, &begin) {
            inside = complete;
        } else if is(line, &end) {
            inside = false;
        } else if !inside {
            new.extend_from_slice(line);
        }
    }
    if !names.is_empty() {
        if !new.is_empty() && !new.ends_with(b"\n") {
            new.push(b'\n');
        }
        new.extend(format!("{begin}\n").bytes());
        for (name, addresses) in names {
            for address in addresses {
                new.extend(format!("{address} {name}\n").bytes());
            }
        }
        new.extend(format!("{end}\n").bytes());
    }
    new
}

/// Replaces the file in one step; where it cannot be replaced, because it is a mount of its own as in a container, it is
/// written over.
fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = file.with_extension("longshore");
    let replaced = (|| {
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o644))?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, file)
    })();
    if replaced.is_ok() {
        return Ok(());
    }
    let _ = fs::remove_file(&temporary);
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).open(file)?;
    io::Write::write_all(&mut target, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, [u8; 4])]) -> BTreeMap<String, BTreeSet<Ipv4Addr>> {
        pairs.iter().map(|(name, address)| ((*name).to_owned(), BTreeSet::from([(*address).into()]))).collect()
    }

    fn replaced(old: &str, platform: &str, names: &BTreeMap<String, BTreeSet<Ipv4Addr>>) -> String {
        String::from_utf8(super::replaced(old.as_bytes(), platform, names)).unwrap()
    }

    #[test]
    fn what_others_wrote_stays_as_it_is() {
        let one = names(&[("a.elb", [127, 0, 0, 2])]);
        let others = b"# caf\xe9\r\n10.0.0.1 mine";
        let with = super::replaced(others, "aaaaaa", &one);
        assert_eq!(
            with,
            [others, &b"\n# BEGIN longshore aaaaaa\n127.0.0.2 a.elb\n# END longshore aaaaaa\n"[..]].concat()
        );
        assert_eq!(super::replaced(&with, "aaaaaa", &BTreeMap::new()), [others, &b"\n"[..]].concat());
    }

    #[test]
    fn only_the_platforms_own_block_changes() {
        let others = "127.0.0.1 localhost\n# BEGIN longshore bbbbbb\n127.0.0.9 x\n# END longshore bbbbbb\n";
        let one = replaced(others, "ls-aaaaaa", &names(&[("a.elb", [127, 0, 0, 2])]));
        assert_eq!(one, format!("{others}# BEGIN longshore aaaaaa\n127.0.0.2 a.elb\n# END longshore aaaaaa\n"));
        let two = replaced(&one, "aaaaaa", &names(&[("b.elb", [127, 0, 0, 3])]));
        assert!(two.contains("b.elb") && !two.contains("a.elb"));
        assert_eq!(replaced(&two, "aaaaaa", &BTreeMap::new()), others);
    }

    #[test]
    fn a_block_without_an_end_takes_nothing_of_others_with_it() {
        let damaged = "# BEGIN longshore aaaaaa\n127.0.0.2 a.elb\n10.0.0.1 mine\n";
        assert_eq!(replaced(damaged, "aaaaaa", &BTreeMap::new()), "127.0.0.2 a.elb\n10.0.0.1 mine\n");
    }

    #[test]
    fn a_file_is_written_only_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hosts");
        fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        let wanted = names(&[("a.elb", [127, 0, 0, 2])]);
        assert!(update(&file, "aaaaaa", &wanted).unwrap());
        assert!(!update(&file, "aaaaaa", &wanted).unwrap());
        assert!(update(&file, "aaaaaa", &BTreeMap::new()).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "127.0.0.1 localhost\n");
    }

    #[test]
    fn what_is_no_name_never_becomes_a_line() {
        for wrong in ["", "a b", "a\n1.2.3.4 b", "a#", "ü"] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
