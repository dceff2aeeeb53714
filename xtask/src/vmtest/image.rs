//! What a machine starts from: Debian's cloud kernel, and a disk with the programs of this host that the scenarios need.
//!
//! The kernel has ext4 and NVMe built in, so there is no initial file system; everything else is loaded by busybox's
//! `modprobe`, as on any host.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::machine;
use crate::shell::{output, python, root};

/// The package that depends on the newest kernel.
const KERNEL: &str = "linux-image-cloud-amd64";
/// More than `doctor` wants free. The file is sparse.
const DISK: &str = "16G";
/// Programs that the platform and its tests call; busybox is the rest. Its `ip` cannot name both ends of a veth, and its
/// `nsenter` calls that `ip` whatever the path says.
const PROGRAMS: &[&str] = &["nft", "mkfs.ext4", "ip", "nsenter"];
/// What `tests/e2e/conftest.py` imports, and all that those import.
const PYTHON_PACKAGES: &[&str] = &[
    "boto3",
    "botocore",
    "s3transfer",
    "jmespath",
    "dateutil",
    "six.py",
    "urllib3",
    "pytest",
    "py.py",
    "_pytest",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
];
/// The API models that the scenarios use, of hundreds.
const MODELS: &[&str] = &["ecs", "ecr", "logs", "ec2"];

/// A kernel and a disk.
pub struct Image {
    /// The kernel's name, such as `6.1.0-56-cloud-amd64`.
    pub version: String,
    /// The kernel's image.
    pub kernel: PathBuf,
    /// A file with an ext4 file system.
    pub disk: PathBuf,
}

/// Where all of it is kept.
pub fn directory() -> PathBuf {
    root().join("target/vm")
}

/// The test program of the runtime's containers.
pub fn runtime_tests() -> Result<PathBuf, String> {
    let arguments =
        ["test", "--release", "--locked", "-p", "runtime", "--test", "containers", "--no-run", "--message-format=json"];
    let messages = output("cargo", &arguments)?;
    let program = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_it = message.pointer("/target/name")? == "containers";
        message.get("executable")?.as_str().filter(|_| is_it).map(PathBuf::from)
    });
    program.ok_or_else(|| "cargo built no test program for the runtime's containers".to_owned())
}

impl Image {
    /// Makes a fresh disk.
    pub fn build(longshore: &str, runtime_tests: &Path) -> Result<Self, String> {
        eprintln!("\n── kernel and disk in {}", directory().display());
        fs::create_dir_all(directory()).map_err(at(&directory()))?;
        machine::forget_consoles();
        let (version, unpacked) = kernel()?;
        let tree = Tree::empty(directory().join("root"))?;
        tree.modules(&unpacked, &version)?;
        tree.busybox()?;
        for program in PROGRAMS {
            tree.program(&find(program)?, Some(&format!("/usr/bin/{program}")))?;
        }
        tree.program(Path::new(longshore), Some("/usr/bin/longshore"))?;
        tree.program(runtime_tests, Some("/vm/runtime-tests"))?;
        tree.python()?;
        for file in ["tests/vm", "tests/e2e/conftest.py"] {
            tree.copy(&root().join(file), &format!("/vm/{file}"))?;
        }
        tree.copy(Path::new("/etc/mke2fs.conf"), "/etc/mke2fs.conf")?;
        tree.write("/etc/hosts", "127.0.0.1 localhost\n")?;
        tree.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
        tree.write("/etc/group", "root:x:0:\n")?;
        let disk = directory().join("disk.ext4");
        let _ = fs::remove_file(&disk);
        call(
            "mkfs.ext4",
            &["-q", "-F", "-E", "nodiscard", "-d", &shown(&tree.root), &shown(&disk), DISK],
            &directory(),
        )?;
        let kernel = unpacked.join(format!("boot/vmlinuz-{version}"));
        Ok(Self { version, kernel, disk })
    }
}

/// The newest cloud kernel, downloaded and unpacked: its name, and where.
fn kernel() -> Result<(String, PathBuf), String> {
    let depends = output("apt-cache", &["depends", KERNEL])?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let version =
        package.ok_or_else(|| format!("{KERNEL} depends on no kernel: is `apt-get update` needed?"))?.to_owned();
    let unpacked = directory().join(&version);
    if !unpacked.exists() {
        call("apt-get", &["download", "-qq", &format!("linux-image-{version}")], &directory())?;
        let archive = fs::read_dir(directory()).map_err(at(&directory()))?.flatten().map(|entry| shown(&entry.path()));
        let archive = archive.into_iter().find(|path| path.contains(&format!("linux-image-{version}_")));
        let half = directory().join("unpacking");
        let _ = fs::remove_dir_all(&half);
        call("dpkg-deb", &["-x", &archive.ok_or("apt-get downloaded nothing")?, &shown(&half)], &directory())?;
        fs::rename(&half, &unpacked).map_err(at(&unpacked))?;
    }
    Ok((version, unpacked))
}

/// The files of the disk, before they become one.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn empty(root: PathBuf) -> Result<Self, String> {
        if root.exists() {
            fs::remove_dir_all(&root).map_err(at(&root))?;
        }
        for name in
            ["proc", "sys", "dev", "run", "tmp", "root", "etc", "opt/python", "vm", "var/lib", "var/tmp", "usr/lib64"]
        {
            fs::create_dir_all(root.join(name)).map_err(at(&root))?;
        }
        let tree = Self { root };
        for name in ["bin", "sbin", "lib"] {
            fs::create_dir_all(tree.root.join("usr").join(name)).map_err(at(&tree.root))?;
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            tree.link(&format!("usr/{name}"), &format!("/{name}"))?;
        }
        Ok(tree)
    }

    fn at(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    fn link(&self, target: &str, inside: &str) -> Result<(), String> {
        std::os::unix::fs::symlink(target, self.at(inside)).map_err(at(&self.at(inside)))
    }

    fn write(&self, inside: &str, text: &str) -> Result<(), String> {
        fs::write(self.at(inside), text).map_err(at(&self.at(inside)))
    }

    /// A file, or a directory with all in it.
    fn copy(&self, from: &Path, inside: &str) -> Result<(), String> {
        let to = self.at(inside);
        let parent = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(at(parent))?;
        // A link that is there is replaced: what it leads to is outside the tree.
        call("cp", &["-aL", "--remove-destination", &shown(from), &shown(&to)], &self.root)
    }

    /// A program with the libraries it is linked to.
    fn program(&self, from: &Path, inside: Option<&str>) -> Result<(), String> {
        self.copy(from, inside.unwrap_or(&shown(from)))?;
        self.libraries(from)
    }

    fn libraries(&self, program: &Path) -> Result<(), String> {
        let listed = output("ldd", &[&shown(program)])?;
        let paths: BTreeSet<&str> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
        for path in paths.into_iter().map(|path| path.trim_end_matches(':')) {
            if Path::new(path) != program && !self.at(path).exists() {
                self.copy(Path::new(path), path)?;
            }
        }
        Ok(())
    }

    fn busybox(&self) -> Result<(), String> {
        let busybox = find("busybox")?;
        self.copy(&busybox, "/usr/bin/busybox")?;
        for name in output(&shown(&busybox), &["--list"])?.split_whitespace().filter(|name| *name != "busybox") {
            // The kernel looks for modprobe there.
            self.link("/usr/bin/busybox", &format!("/usr/{}/{name}", if name == "modprobe" { "sbin" } else { "bin" }))?;
        }
        Ok(())
    }

    fn modules(&self, unpacked: &Path, version: &str) -> Result<(), String> {
        let inside = format!("/usr/lib/modules/{version}");
        self.copy(&unpacked.join("lib/modules").join(version), &inside)?;
        call("busybox", &["depmod", "-b", &shown(&self.root), version], &self.root)
    }

    /// The Python that the tests use, at its own place, and the packages of theirs that the scenarios need.
    fn python(&self) -> Result<(), String> {
        let ask = "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path('stdlib')); print(sysconfig.get_path('purelib'))";
        let answer = output(&shown(&python()), &["-c", ask])?;
        let [program, library, packages] = answer.lines().collect::<Vec<_>>()[..] else {
            return Err(format!("Python says {answer:?}"));
        };
        self.program(Path::new(program), None)?;
        self.link(program, "/usr/bin/python3")?;
        self.copy(Path::new(library), library)?;
        for unused in ["test", "site-packages", "dist-packages", "idlelib", "ensurepip", "tkinter", "lib2to3"] {
            // Not every Python has all of them.
            let _ = fs::remove_dir_all(self.at(library).join(unused));
        }
        let extensions = Path::new(library).join("lib-dynload");
        for extension in fs::read_dir(&extensions).map_err(at(&extensions))?.flatten() {
            self.libraries(&extension.path())?;
        }
        for package in PYTHON_PACKAGES {
            self.copy(&Path::new(packages).join(package), &format!("/opt/python/{package}"))?;
        }
        let models = self.at("/opt/python/botocore/data");
        for model in fs::read_dir(&models).map_err(at(&models))?.flatten() {
            if model.path().is_dir() && !MODELS.iter().any(|used| model.file_name() == *used) {
                fs::remove_dir_all(model.path()).map_err(at(&model.path()))?;
            }
        }
        Ok(())
    }
}

/// Where a program of this host is.
fn find(program: &str) -> Result<PathBuf, String> {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|place| Path::new(place).join(program));
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| format!("{program} is not installed"))
}

/// Runs a program in a directory; what it prints is shown only when it fails.
fn call(program: &str, arguments: &[&str], directory: &Path) -> Result<(), String> {
    let found = find(program).unwrap_or_else(|_| program.into());
    let done = Command::new(found).args(arguments).current_dir(directory).output();
    let done = done.map_err(|error| format!("`{program}` could not be started: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("`{program} {}`: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr)))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = shown(path);
    move |error| format!("{path}: {error}")
}
