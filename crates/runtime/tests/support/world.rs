//! What every test stands on: a directory of its own, a busybox image, a control group, and a sweep at the end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime::{Container, ContainerSpec, ExecOutcome, ExecSpec, Helper, Rootfs, Runtime, RuntimeOptions, Stream};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Why real containers cannot be run here.
pub fn unable() -> Option<&'static str> {
    // The owner of our own process entry is who we are.
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    if !root {
        return Some("not root");
    }
    (!Path::new("/bin/busybox").exists()).then_some("no /bin/busybox (Debian package busybox-static)")
}

pub struct World {
    pub directory: PathBuf,
    pub cgroup: String,
}

impl World {
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ls-test-{}-{number}", std::process::id());
        let directory = PathBuf::from("/var/tmp").join(&name);
        fs::create_dir_all(&directory).unwrap();
        image(&directory.join("image"));
        Self { directory, cgroup: format!("longshore/{name}") }
    }

    /// Removes everything, also after a failed test.
    pub fn sweeper(&self) -> impl FnOnce() + use<> {
        let (directory, cgroup) = (self.directory.clone(), self.cgroup.clone());
        move || {
            let containers = directory.join("containers");
            if let Err(error) = Runtime::destroy(&containers, &cgroup) {
                println!("sweep: {error}");
            }
            let _ = runtime::rootfs::unmount_under(&directory);
            let _ = fs::remove_dir_all(&directory);
        }
    }

    pub async fn runtime(&self) -> Arc<Runtime> {
        Runtime::open(RuntimeOptions {
            directory: self.directory.join("containers"),
            helper: Helper::current().unwrap(),
        })
        .await
        .unwrap()
    }

    /// A specification over the busybox image, with a writable directory named after `id`.
    pub fn spec(&self, id: &str, args: &[&str]) -> ContainerSpec {
        let writable = self.directory.join("writable").join(id);
        let rootfs = Rootfs {
            lowers: vec![self.directory.join("image")],
            upper: writable.join("upper"),
            work: writable.join("work"),
        };
        let mut spec = ContainerSpec::new(rootfs, args.iter().map(|arg| (*arg).to_owned()).collect());
        spec.cgroup_parent = self.cgroup.clone();
        spec.hostname = "box".to_owned();
        spec
    }

    /// A shell script in a container, to its end: exit code, standard output, standard error.
    pub async fn script(
        &self,
        id: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerSpec),
    ) -> (Option<i32>, String, String) {
        let runtime = self.runtime().await;
        let mut spec = self.spec(id, &["/bin/sh", "-c", script]);
        change(&mut spec);
        let container = runtime.create(id, spec).await.unwrap();
        container.start().await.unwrap();
        let exit = container.wait().await;
        let (out, err) = printed(&container).await;
        container.delete().await.unwrap();
        (exit.code, out, err)
    }
}

/// Everything a container has printed; it must have ended.
pub async fn printed(container: &Container) -> (String, String) {
    let mut logs = container.logs();
    let (mut out, mut err) = (String::new(), String::new());
    while let Some(lines) = logs.next(1000).await.unwrap() {
        for line in lines {
            let text = if line.stream == Stream::Stdout { &mut out } else { &mut err };
            text.push_str(&String::from_utf8_lossy(&line.bytes));
            text.push('\n');
        }
        logs.acknowledge().unwrap();
    }
    (out, err)
}

pub fn shell(script: &str) -> ExecSpec {
    command(&["/bin/sh", "-c", script])
}

pub fn command(args: &[&str]) -> ExecSpec {
    ExecSpec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: None,
        cwd: None,
        user: None,
        timeout: Duration::from_secs(20),
        output_limit: 64 << 10,
    }
}

pub fn text(outcome: &ExecOutcome) -> String {
    String::from_utf8_lossy(&outcome.output).into_owned()
}

/// Waits until the condition holds, with a bound.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

/// Busybox with its usual names, and a few users.
pub fn image(root: &Path) {
    for directory in ["bin", "etc", "tmp", "home/app"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "echo", "ls", "id", "sleep", "true", "false", "grep", "head", "dd", "touch", "mkdir", "mknod",
        "mount", "unshare", "ps", "kill", "pwd", "env", "wc", "hostname", "stat", "df", "rm", "seq", "yes", "tr",
        "chroot", "od", "ulimit", "sysctl", "ip", "cut", "setsid", "readlink", "date",
    ] {
        let _ = symlink("busybox", root.join("bin").join(name));
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nstaff:x:50:app\napp:x:1001:\n").unwrap();
    fs::write(root.join("etc/notaprogram"), "neither ELF nor script").unwrap();
    let _ = std::os::unix::fs::chown(root.join("home/app"), Some(1000), Some(1001));
    for (file, mode) in [("etc/notaprogram", 0o755), ("etc/passwd", 0o644), ("tmp", 0o1777)] {
        fs::set_permissions(root.join(file), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
}
