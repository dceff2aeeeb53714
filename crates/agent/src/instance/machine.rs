//! What the machine is: processors, memory, its name for itself.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::identity::Offer;
use crate::state;

/// As Amazon names it.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

/// 1024 for each processor this process may use, by its affinity and by its cgroups' quota.
pub fn cpu_units() -> i32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    i32::try_from(cores * 1024).unwrap_or(i32::MAX)
}

/// The host's memory in MiB.
pub fn total_memory() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes: Option<u64> = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.map(|kibibytes| kibibytes / 1024).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}

/// The host's memory in MiB, or what this process's own cgroups leave of it: an instance may itself be a container.
pub fn usable_memory() -> io::Result<u64> {
    let total = total_memory()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_files(&groups, Path::new("/sys/fs/cgroup"))
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
        .min();
    Ok(limit.map_or(total, |bytes| total.min(bytes >> 20)))
}

/// What a machine whose operator has a say offers: numbers the operator gave go before the kernel's.
pub(super) fn offer(
    capabilities: &[&str],
    cpu: Option<i32>,
    memory: Option<i32>,
    zone: &str,
    place: &str,
    config: &Config,
) -> io::Result<Offer> {
    let memory = match memory {
        Some(memory) => memory,
        None => {
            let all = usable_memory()?;
            let left = all.saturating_sub(config.reserved_memory);
            if left == 0 {
                let reserved = config.reserved_memory;
                return Err(io::Error::other(format!("ECS_RESERVED_MEMORY {reserved} leaves nothing of {all} MiB")));
            }
            i32::try_from(left).unwrap_or(i32::MAX)
        }
    };
    let text = |ports: &[u16]| ports.iter().map(u16::to_string).collect();
    let mut offer = super::offer(capabilities, zone, place);
    // Fargate tasks have no network mode host; everywhere else their credentials come through the machine's loopback.
    offer.attributes.push(("com.amazonaws.ecs.capability.task-iam-role-network-host".to_owned(), String::new()));
    offer.attributes.retain(|(name, _)| config.offers(name));
    offer.attributes.extend(config.attributes.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(Offer {
        cpu: cpu.unwrap_or_else(cpu_units),
        memory,
        ports: text(&config.reserved_ports),
        ports_udp: text(&config.reserved_ports_udp),
        ..offer
    })
}

/// Files that may hold a limit of the memory, from the process's own groups up to the root, for both versions.
fn limit_files(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            other if other.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        files.extend(ancestors.map(|group| base.join(group).join(name)));
    }
    files
}

/// The machine and the agent's directory in it.
pub fn place(directory: &Path) -> String {
    format!("{}:{}", machine_id(), directory.display())
}

fn machine_id() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    if !id.is_empty() {
        return id;
    }
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The six hexadecimal digits that mark an agent's kernel objects when nobody chose them. Written down, so that they
/// stay when the machine gets another name; made from the place, so that an agent that has lost its directory still
/// finds what it has left in the kernel.
pub fn marked(directory: &Path) -> io::Result<String> {
    let file = directory.join("platform.json");
    if let Some(digits) = state::read::<String>(&file)?.filter(|digits| is_mark(digits)) {
        return Ok(digits);
    }
    let digits = digits(&place(directory));
    state::write_durably(&file, &digits)?;
    Ok(digits)
}

/// Whether the text can mark kernel objects.
pub fn is_mark(digits: &str) -> bool {
    digits.len() == 6 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// FNV-1a: the standard library's hash may change with the compiler, and these digits must not.
fn digits(place: &str) -> String {
    let hash = place
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{:06x}", (hash ^ (hash >> 24) ^ (hash >> 48)) & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_up_to_the_root() {
        let both = "9:name=systemd:/\n4:memory:/a/b\n0::/c\n";
        let files: Vec<String> =
            limit_files(both, Path::new("/r")).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "/r/memory/a/b/memory.limit_in_bytes",
                "/r/memory/a/memory.limit_in_bytes",
                "/r/memory/memory.limit_in_bytes",
                "/r/c/memory.max",
                "/r/memory.max"
            ]
        );
    }

    #[test]
    fn the_digits_are_stable_and_differ_by_place() {
        let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let digits = marked(one.path()).expect("written");
        assert!(is_mark(&digits));
        assert_eq!(marked(one.path()).expect("read"), digits);
        assert_ne!(marked(other.path()).expect("written"), digits);
        assert_eq!(super::digits("a:/data"), super::digits("a:/data"));
    }
}
