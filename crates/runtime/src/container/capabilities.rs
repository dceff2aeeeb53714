//! Which capabilities a container has: Docker's default list, with what a definition adds and drops.

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::Capability;

use super::ContainerError;

/// Docker's list, which is Amazon's.
const DEFAULT: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// The names (`CAP_CHOWN` …) a container gets.
///
/// # Errors
/// An unknown name.
pub(crate) fn granted(add: &[String], drop: &[String]) -> Result<BTreeSet<String>, ContainerError> {
    let mut set: BTreeSet<String> =
        if has_all(drop) { BTreeSet::new() } else { DEFAULT.iter().map(ToString::to_string).collect() };
    if has_all(add) {
        set = caps::all().iter().map(ToString::to_string).collect();
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        set.remove(&parse(name)?.to_string());
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        set.insert(parse(name)?.to_string());
    }
    Ok(set)
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

/// Takes these capabilities (`CAP_SYS_TIME` …) from whatever the calling thread executes next, for good. One that the kernel does not
/// know is not there to be taken.
///
/// # Errors
/// An unknown name, or what the kernel refuses.
pub fn forgo_capabilities(names: &[&str]) -> Result<(), ContainerError> {
    for name in names {
        let capability = parse(name)?;
        let refused = |error: caps::errors::CapsError| ContainerError::InvalidSpec {
            field: "capabilities".to_owned(),
            reason: format!("{name} cannot be dropped: {error}"),
        };
        if caps::has_cap(None, caps::CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, caps::CapSet::Bounding, capability).map_err(refused)?;
        }
    }
    Ok(())
}

fn has_all(names: &[String]) -> bool {
    names.iter().any(|name| is_all(name))
}

fn parse(name: &str) -> Result<Capability, ContainerError> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    Capability::from_str(&full).map_err(|_| ContainerError::InvalidSpec {
        field: "capabilities".to_owned(),
        reason: format!("unknown capability {name:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], has: &[&str], lacks: &[&str]) {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let set = granted(&own(add), &own(drop)).unwrap();
        for name in has {
            assert!(set.contains(*name), "{name} is missing from {set:?}");
        }
        for name in lacks {
            assert!(!set.contains(*name), "{name} is in {set:?}");
        }
    }

    #[test]
    fn add_and_drop() {
        check(&[], &[], &["CAP_CHOWN", "CAP_NET_RAW"], &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
        check(&["SYS_PTRACE"], &["CAP_NET_RAW"], &["CAP_SYS_PTRACE"], &["CAP_NET_RAW"]);
        check(&["NET_BIND_SERVICE"], &["ALL"], &["CAP_NET_BIND_SERVICE"], &["CAP_CHOWN"]);
        check(&["ALL"], &["SYS_ADMIN"], &["CAP_NET_ADMIN"], &["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn the_default_mask_is_dockers() {
        let mask = DEFAULT.iter().fold(0u64, |mask, capability| mask | capability.bitmask());
        assert_eq!(mask, 0xa804_25fb);
    }
}
