//! `longshore doctor`: what this host has and lacks, and how to mend it.

use std::{fs, net::TcpListener, path::Path};

use nix::sys::{statvfs::statvfs, utsname::uname};

use crate::{cli::DataDirArgs, data_directory::DataDirectory, supervisor::Error};

/// Less free disk than this, and layers and logs soon fill it.
const DISK_BYTES: u64 = 5 * 1024 * 1024 * 1024;

enum Verdict {
    Good,
    /// Works here, but nobody has verified it.
    Unverified,
    Lacking,
}

struct Finding {
    verdict: Verdict,
    what: String,
    mend: String,
}

fn good(what: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Good, what: what.into(), mend: String::new() }
}

fn lacking(what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Lacking, what: what.into(), mend: mend.into() }
}

/// Looks at the host; fails when something is missing that the platform needs.
pub fn doctor(args: &DataDirArgs) -> Result<(), Error> {
    let mut findings = vec![kernel(), cgroups(), overlayfs(), storage()];
    findings.extend(host::doctor().into_iter().map(|check| {
        if check.ok {
            good(format!("{}: {}", check.name, check.detail))
        } else {
            lacking(format!("{}: {}", check.name, check.detail), check.mend)
        }
    }));
    findings.extend([disk(&args.data_dir), port(&args.data_dir)]);
    findings.push(Finding {
        verdict: Verdict::Unverified,
        what: "isolation: tasks share this kernel; a task's root user is confined by namespaces, seccomp and dropped capabilities, not by a user namespace".to_owned(),
        mend: "run images you do not trust on a machine of their own".to_owned(),
    });
    let mut missing = 0;
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok  ",
            Verdict::Unverified => "note",
            Verdict::Lacking => {
                missing += 1;
                "MISS"
            }
        };
        println!("{mark}  {}", finding.what);
        if !finding.mend.is_empty() {
            println!("      → {}", finding.mend);
        }
    }
    if missing == 0 {
        Ok(())
    } else {
        Err(format!("{missing} thing(s) that the platform needs are missing, see above").into())
    }
}

fn kernel() -> Finding {
    match uname() {
        Ok(name) => good(format!("kernel {}", name.release().to_string_lossy())),
        Err(error) => lacking(format!("kernel: {error}"), "Linux 5.10 or newer is needed"),
    }
}

fn cgroups() -> Finding {
    let v1 = Path::new("/sys/fs/cgroup/memory").is_dir();
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    match (v1, v2) {
        (true, _) => good("cgroups v1 (limits are enforced by its controllers)"),
        (false, Ok(controllers)) => {
            let lacks: Vec<_> = ["cpu", "memory", "pids"]
                .into_iter()
                .filter(|name| !controllers.split_whitespace().any(|c| c == *name))
                .collect();
            if lacks.is_empty() {
                good("cgroups v2 (limits are enforced by its controllers)")
            } else {
                lacking(
                    format!("cgroups v2 without {}", lacks.join(", ")),
                    "boot with these controllers enabled (cgroup_enable=memory)",
                )
            }
        }
        (false, Err(_)) => lacking("cgroups: none mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

fn overlayfs() -> Finding {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if read("/proc/filesystems").lines().any(|line| line.trim_end().ends_with("\toverlay")) {
        return good("overlayfs");
    }
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    if read(&format!("/lib/modules/{release}/modules.dep")).lines().any(|line| line.contains("/overlay.ko")) {
        return good("overlayfs: the kernel loads it at the first mount");
    }
    lacking("overlayfs: the kernel does not offer it", "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS")
}

/// What a task's ephemeral storage is made with: a file system in a file.
fn storage() -> Finding {
    let formats = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    if !formats.iter().any(|place| Path::new(place).join("mkfs.ext4").is_file()) {
        return lacking("tasks' storage: mkfs.ext4 is not installed", "apt-get install e2fsprogs");
    }
    if !Path::new("/dev/loop-control").exists() {
        return lacking("tasks' storage: the kernel offers no loop devices", "modprobe loop");
    }
    good("tasks' storage: mkfs.ext4 and loop devices")
}

fn disk(path: &Path) -> Finding {
    let mut existing = path.to_owned();
    while !existing.exists() && existing.pop() {}
    let place = if existing.as_os_str().is_empty() { Path::new(".") } else { existing.as_path() };
    match statvfs(place) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let text = format!("disk: {:.1} GiB free at {}", free as f64 / f64::from(1 << 30), place.display());
            if free >= DISK_BYTES {
                good(text)
            } else {
                lacking(text, "free some, or use --data-dir on another file system")
            }
        }
        Err(error) => {
            lacking(format!("disk: {}: {error}", place.display()), "use --data-dir with a directory that exists")
        }
    }
}

fn port(data: &Path) -> Finding {
    let settings = DataDirectory::open(data).ok().and_then(|data| data.settings().ok());
    let listen =
        settings.map_or_else(|| std::net::SocketAddr::from(([127, 0, 0, 1], 4580)), |settings| settings.listen);
    match TcpListener::bind(listen) {
        Ok(_) => good(format!("port: {listen} is free")),
        Err(_) => Finding {
            verdict: Verdict::Unverified,
            what: format!("port: {listen} is in use"),
            mend: "by a platform that runs already, or choose another with --listen".to_owned(),
        },
    }
}
