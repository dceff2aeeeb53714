//! One instance: its boot, its end, and what is left of it. Everything here may take its time and runs on threads of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use domain::instances::InstanceItem;
use runtime::Group;
use rustix::process::Signal;

use super::{
    Phase, Settings, handover, shim,
    spec::{self, Ended, Shim, Spec},
};
use crate::{
    interface,
    process::{Process, boot_id},
};

/// How long a boot may take until its first process exists.
const BOOT: Duration = Duration::from_secs(60);
/// How long an instance may take to shut down in order.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// How long a shim may take to say how its instance ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// An instance that runs.
pub(super) struct Running {
    pub(super) boot: u64,
    shim: Shim,
    /// Only for our own child, which must be waited for.
    child: Option<Child>,
}

impl Running {
    /// Why it does not run any more; `None` while it does.
    pub(super) fn ended(&mut self, directory: &Path) -> Option<String> {
        if let Some(child) = &mut self.child {
            // Its status says less than its file.
            let _ = child.try_wait();
        }
        if self.shim.shim.is_alive() {
            return None;
        }
        let ended: Option<Ended> = spec::read(directory, spec::EXIT);
        Some(ended.map_or_else(|| "its shim was killed".to_owned(), |ended| ended.reason))
    }
}

/// Why an instance is ended.
pub(super) enum Ending {
    /// It has ended, and is cleared away.
    ByItself(String),
    /// It was asked for; the number of the boot in which that was.
    Asked(u64),
}

/// What an earlier `host` knew of an instance; `None` if that says nothing of now.
pub(super) fn adopt(directory: &Path) -> Option<Phase> {
    let spec: Spec = spec::read(directory, spec::SPEC)?;
    let shim: Option<Shim> = spec::read(directory, spec::SHIM);
    match shim {
        Some(shim) if shim.shim.is_alive() => Some(Phase::Running(Running { boot: spec.boot, shim, child: None })),
        // One that ended while nobody looked. If that was in another boot of the machine, the machine ended it.
        _ => spec::read::<Ended>(directory, spec::EXIT)
            .filter(|ended| ended.boot_id == boot_id())
            .map(|ended| Phase::Ended(spec.boot, ended.reason)),
    }
}

/// A boot to be done.
pub(super) struct Boot {
    pub(super) settings: Settings,
    pub(super) item: InstanceItem,
    pub(super) namespace: PathBuf,
    pub(super) root: PathBuf,
    pub(super) volumes: Vec<(PathBuf, String)>,
}

impl Boot {
    /// Boots it, and comes back when its first process exists or it has failed.
    pub(super) fn run(self) -> Phase {
        let boot = self.item.boot;
        match self.start() {
            Ok(running) => Phase::Running(running),
            Err(error) => {
                tracing::warn!(instance = self.item.instance_id, %error, "an instance cannot be booted");
                if let Err(error) = clear(&self.settings, &self.item.instance_id) {
                    tracing::error!(instance = self.item.instance_id, %error, "what a failed boot leaves cannot be cleared away");
                }
                Phase::Ended(boot, error.to_string())
            }
        }
    }

    fn start(&self) -> io::Result<Running> {
        let (settings, item) = (&self.settings, &self.item);
        clear_machine(settings, &item.instance_id)?;
        let directory = settings.directory(&item.instance_id);
        for name in [spec::ROOT, spec::INTERFACES] {
            fs::create_dir_all(directory.join(name))?;
        }
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        handover::open(&directory.join(spec::INTERFACES))?;
        spec::write(&directory, spec::SPEC, &self.spec())?;
        let mut child = shim::start(&directory, &settings.executable)?;
        let deadline = Instant::now() + BOOT;
        loop {
            if let Some(shim) = spec::read::<Shim>(&directory, spec::SHIM).filter(|shim| shim.init.is_some()) {
                return Ok(Running { boot: item.boot, shim, child: Some(child) });
            }
            if let Some(status) = child.try_wait()? {
                let said: Option<Ended> = spec::read(&directory, spec::EXIT);
                return Err(io::Error::other(said.map_or_else(|| status.to_string(), |ended| ended.reason)));
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            thread::sleep(LOOK);
        }
    }

    fn spec(&self) -> Spec {
        let (settings, item) = (&self.settings, &self.item);
        let mut environment = vec![
            (
                "PATH".to_owned(),
                "/opt/longshore/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ),
            ("HOME".to_owned(), "/root".to_owned()),
            ("TERM".to_owned(), "linux".to_owned()),
            ("LONGSHORE_ENDPOINT".to_owned(), settings.endpoint.clone()),
            ("AWS_ENDPOINT_URL".to_owned(), settings.endpoint.clone()),
        ];
        for name in ["LONGSHORE_LOG", "RUST_LOG", "RUST_BACKTRACE"] {
            environment.extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
        }
        Spec {
            instance_id: item.instance_id.clone(),
            interface_id: item.interface_id.clone(),
            boot: item.boot,
            domain: item.hostname.split_once('.').map_or("internal", |(_, domain)| domain).to_owned(),
            hostname: item.hostname.clone(),
            namespace: self.namespace.clone(),
            group: settings.group(&item.instance_id),
            vcpus: item.vcpus,
            memory_mib: item.memory_mib,
            root: self.root.clone(),
            volumes: self.volumes.clone(),
            executable: settings.executable.clone(),
            command: settings.command.clone(),
            environment,
        }
    }
}

/// Ends an instance if it runs, and clears away what it leaves on the machine.
pub(super) fn end(settings: &Settings, id: &str, mut running: Running, ending: Ending) -> Phase {
    let directory = settings.directory(id);
    stop(&directory, &running.shim, SHUTDOWN);
    if let Some(child) = &mut running.child {
        let _ = child.wait();
    }
    if let Err(error) = clear(settings, id) {
        tracing::error!(instance = id, %error, "what an instance leaves cannot be cleared away");
    }
    match ending {
        Ending::ByItself(reason) => Phase::Ended(running.boot, reason),
        Ending::Asked(boot) => Phase::Off(boot),
    }
}

fn stop(directory: &Path, shim: &Shim, grace: Duration) {
    let newest: Shim = spec::read(directory, spec::SHIM).unwrap_or_else(|| shim.clone());
    if let Some(init) = &newest.init {
        init.end(Signal::TERM, grace);
    }
    // It has only to write down how that was; if it does not, the instance ends with it.
    let deadline = Instant::now() + LAST_WORDS;
    while newest.shim.is_alive() && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
    newest.shim.end(Signal::KILL, LAST_WORDS);
}

/// Takes from the machine what an instance that does not run has left, its network as well: the guest's bridges and rules
/// go with the namespace, and the next boot has a clean one.
fn clear(settings: &Settings, id: &str) -> io::Result<()> {
    clear_machine(settings, id)?;
    match spec::read::<Spec>(&settings.directory(id), spec::SPEC) {
        Some(spec) => interface::remove(&settings.platform, &spec.interface_id),
        None => Ok(()),
    }
}

/// Processes, groups, mounts, and what is written of the boot.
fn clear_machine(settings: &Settings, id: &str) -> io::Result<()> {
    let directory = settings.directory(id);
    let group = Group::open(&settings.group(id)).map_err(io::Error::other)?;
    group.kill();
    group.remove().map_err(io::Error::other)?;
    handover::close(&directory.join(spec::INTERFACES))?;
    for name in [spec::SHIM, spec::EXIT] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the directory of an instance that is gone for good.
pub(super) fn forget(settings: &Settings, id: &str) -> io::Result<()> {
    let directory = settings.directory(id);
    if let Some(shim) = spec::read::<Shim>(&directory, spec::SHIM) {
        stop(&directory, &shim, Duration::ZERO);
    }
    clear(settings, id)?;
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Ends an instance for `down`. Says what it was.
pub(super) fn take_down(settings: &Settings, id: &str) -> io::Result<Option<String>> {
    let directory = settings.directory(id);
    let shim: Option<Shim> = spec::read(&directory, spec::SHIM);
    let alive = |process: &Process| process.is_alive();
    let ran = shim.as_ref().is_some_and(|shim| alive(&shim.shim) || shim.init.as_ref().is_some_and(alive));
    if let Some(shim) = &shim {
        stop(&directory, shim, SHUTDOWN);
    }
    clear(settings, id)?;
    Ok(ran.then(|| format!("instance {id}")))
}
