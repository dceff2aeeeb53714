//! One instance: what is known of it, and the next step towards what is wanted of it.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    instances::{InstanceItem, Machine as Wanted, instance_key},
    network::host::HostReport,
};
use runtime::Group;
use rustix::process::Signal;

use super::{
    PROGRAM, SHIM,
    console::{self, Console},
    group, handover, program,
    record::{self, Disk, EXIT, Exit, INTERFACES, ROOT, SPEC, Shim, Spec, State},
    shim::{self, ANOTHER},
    volumes::Volumes,
};
use crate::{interface, netns};

/// Between the polite signal and the last one.
const GRACE: Duration = Duration::from_secs(30);
/// Between the last signal to the instance and one to its shim.
const LAST: Duration = Duration::from_secs(5);
/// Between two reports of what an instance prints.
const CONSOLE: Duration = Duration::from_secs(2);
/// The root volume's name where the metadata does not say it.
const ROOT_DEVICE: &str = "/dev/xvda";

/// What a boot needs.
pub(super) struct Request<'a> {
    pub(super) item: &'a InstanceItem,
    /// Whether its programs are on its root volume.
    pub(super) own_programs: bool,
    pub(super) platform: &'a str,
    pub(super) data_dir: &'a Path,
    pub(super) directory: &'a Path,
    pub(super) executable: &'a Path,
    pub(super) command: &'a [String],
    pub(super) endpoint: &'a str,
    pub(super) volumes: &'a Volumes,
}

struct Ending {
    since: Instant,
    killed: bool,
}

/// One instance as this process sees it.
#[derive(Default)]
pub(super) struct Machine {
    state: Option<State>,
    /// The shim, if this process started it: it must be waited for.
    child: Option<Child>,
    /// The boot that `child` was started for.
    started: u64,
    ending: Option<Ending>,
    /// The boot for which the network namespace was made anew.
    renewed: Option<u64>,
    renew: bool,
    console: Option<((SystemTime, u64), Instant)>,
    /// Whether what the last boot had of the machine has been taken back, and what was in the way when it was last tried.
    cleared: bool,
    in_the_way: Option<String>,
    discarded: bool,
}

impl Machine {
    /// Looks at the files and the processes.
    pub(super) fn observe(&mut self, directory: &Path, cgroup: &str) {
        let mut state = record::state(directory);
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    self.child = None;
                    // What it has written since.
                    state = record::state(directory);
                    let spoken = matches!(&state, State::Ended(exit) if exit.boot >= self.started);
                    if !spoken && status.code() != Some(ANOTHER) && matches!(state, State::Off | State::Ended(_)) {
                        let reason = format!("The instance could not be booted: its process ended: {status}");
                        let exit = Exit::now(self.started, reason);
                        if let Err(error) = record::write(directory, EXIT, &exit) {
                            tracing::error!(%error, directory = %directory.display(), "an end cannot be recorded");
                        }
                        state = State::Ended(exit);
                    }
                }
                Err(error) => tracing::error!(%error, "a shim cannot be waited for"),
            }
        }
        if matches!(state, State::Running(_) | State::Starting(_)) {
            self.cleared = false;
        } else {
            self.ending = None;
            if !self.cleared && self.child.is_none() && !shim::is_at_work(directory) {
                self.clear(directory, cgroup);
            }
        }
        self.state = Some(state);
    }

    /// A shim that was killed has left its control group, and what ran in it may take a moment to be gone.
    fn clear(&mut self, directory: &Path, cgroup: &str) {
        let outcome = clear(directory, cgroup).map_err(|error| error.to_string());
        self.cleared = outcome.is_ok();
        let in_the_way = outcome.err();
        if let Some(error) = in_the_way.as_ref().filter(|error| self.in_the_way.as_ref() != Some(*error)) {
            tracing::warn!(error, cgroup, "what an instance has left is still there");
        }
        self.in_the_way = in_the_way;
    }

    fn shim(&self) -> Option<&Shim> {
        match &self.state {
            Some(State::Running(shim) | State::Starting(shim)) => Some(shim),
            _ => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, Some(State::Running(_)))
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.state, Some(State::Starting(_))) || (self.child.is_some() && self.shim().is_none())
    }

    /// Volumes that a running instance has.
    pub(super) fn volumes(&self) -> Vec<String> {
        self.shim().map(|shim| shim.volumes.clone()).unwrap_or_default()
    }

    /// Whether nothing of it is left.
    pub(super) fn is_discarded(&self) -> bool {
        self.discarded
    }

    /// Whether its network namespace must be made anew before it can be booted; asked once.
    pub(super) fn take_renewal(&mut self) -> bool {
        std::mem::take(&mut self.renew)
    }

    /// Whether nothing runs that would have to end first, and it must run.
    pub(super) fn wants_boot(&self, item: &InstanceItem) -> bool {
        item.on
            && self.child.is_none()
            && self.cleared
            && match &self.state {
                Some(State::Off) => true,
                Some(State::Ended(exit)) => exit.boot < item.boot,
                _ => false,
            }
    }

    /// Starts the shim if all that it needs is there. Says whether it did.
    pub(super) fn boot(&mut self, request: &Request<'_>) -> bool {
        match self.try_boot(request) {
            Ok(started) => started,
            Err(error) => {
                let item = request.item;
                say(request.directory, &format!("longshore: the instance could not be booted: {error}\n"));
                tracing::error!(%error, instance = item.instance_id, "an instance cannot be booted");
                let exit = Exit::now(item.boot, format!("The instance could not be booted: {error}"));
                if record::write(request.directory, EXIT, &exit).is_ok() {
                    self.state = Some(State::Ended(exit));
                }
                false
            }
        }
    }

    fn try_boot(&mut self, request: &Request<'_>) -> io::Result<bool> {
        let item = request.item;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(request.directory.join(ROOT))?;
        if shim::is_at_work(request.directory) {
            // Started by a `host` that was killed; its file will be there in a moment.
            return Ok(false);
        }
        let namespace = interface::path(request.platform, &item.interface_id);
        if !netns::is_ready(&namespace) {
            return Ok(false);
        }
        let namespace_inode = fs::metadata(&namespace)?.ino();
        let last: Option<Shim> = record::read(request.directory, record::SHIM);
        let used = last.is_some_and(|last| last.process.is_of_this_boot() && last.namespace_inode == namespace_inode);
        if used && self.renewed != Some(item.boot) {
            // What the last boot has made in it, links, routes and rules, must not be there at the next.
            self.renewed = Some(item.boot);
            self.renew = true;
            return Ok(false);
        }
        let Some(root) = request.volumes.root(&item.root_volume_id)? else { return Ok(false) };
        let device_of_root = item.metadata.block_devices.iter().find(|(name, _)| name == "root");
        let root_name = device_of_root.map_or(ROOT_DEVICE, |(_, device)| device.as_str());
        let disk = |volume_id: &str, image: PathBuf, device_name: &str| Disk {
            volume_id: volume_id.to_owned(),
            image,
            device_name: device_name.to_owned(),
        };
        let mut disks = Vec::new();
        for volume in &item.volumes {
            let Some(image) = request.volumes.data(&volume.volume_id)? else { return Ok(false) };
            disks.push(disk(&volume.volume_id, image, &volume.device_name));
        }
        let spec = Spec {
            instance_id: item.instance_id.clone(),
            boot: item.boot,
            hostname: item.hostname.clone(),
            vcpus: item.vcpus,
            memory_mib: item.memory_mib,
            root: disk(&item.root_volume_id, root, root_name),
            disks,
            interface_id: item.interface_id.clone(),
            namespace,
            namespace_inode,
            cgroup: group(request.platform, &item.instance_id),
            data_dir: request.data_dir.to_owned(),
            executable: request.executable.to_owned(),
            command: command(request),
            endpoint: request.endpoint.to_owned(),
            own_programs: request.own_programs,
        };
        record::write(request.directory, SPEC, &spec)?;
        handover::open(&request.directory.join(INTERFACES))?;
        let mut command = Command::new(request.executable);
        command.arg(SHIM).arg(request.directory).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        // What the helpers of a volume are looked for in; the instance gets another.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        self.child = Some(command.spawn()?);
        self.started = item.boot;
        Ok(true)
    }

    /// Ends what should not run.
    pub(super) fn drive(&mut self, item: &InstanceItem) {
        // A larger number is from a server that knows more than the slice on this machine's disk.
        let outdated =
            self.shim().is_some_and(|shim| if item.on { shim.boot < item.boot } else { shim.boot <= item.boot });
        if outdated {
            self.end(GRACE);
        }
    }

    fn end(&mut self, grace: Duration) {
        // A shim that has not come far is waited for: it either boots the instance or says why it cannot.
        let Some(State::Running(shim)) = &self.state else { return };
        let Some(guest) = &shim.guest else { return };
        let polite = !grace.is_zero();
        let ending = self.ending.get_or_insert_with(|| {
            if polite {
                guest.signal(Signal::TERM);
            }
            Ending { since: Instant::now(), killed: false }
        });
        let elapsed = ending.since.elapsed();
        if elapsed >= grace && !ending.killed {
            guest.signal(Signal::KILL);
            ending.killed = true;
        } else if elapsed >= grace + LAST {
            shim.process.signal(Signal::KILL);
        }
    }

    /// Ends it at once and removes what it has but its volumes. Says which interface it had, once that is free.
    pub(super) fn discard(&mut self, directory: &Path, cgroup: &str) -> Option<String> {
        self.end(Duration::ZERO);
        if self.child.is_some() || self.shim().is_some() || shim::is_at_work(directory) {
            return None;
        }
        if let Err(error) = clear(directory, cgroup) {
            tracing::warn!(%error, cgroup, "what an instance has left is still there");
            return None;
        }
        let spec: Option<Spec> = record::read(directory, SPEC);
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, directory = %directory.display(), "an instance's directory is still there");
                return None;
            }
            _ => self.discarded = true,
        }
        spec.map(|spec| spec.interface_id)
    }

    /// What there is to say of it.
    pub(super) fn report(&self, item: &InstanceItem) -> Option<(String, HostReport)> {
        let (boot, machine, reason) = match self.state.as_ref()? {
            State::Running(shim) if shim.boot == item.boot => (shim.boot, Wanted::Running, None),
            State::Ended(exit) if item.on && exit.boot == item.boot => {
                // What shut itself down has no reason, also if nobody has seen it run.
                (exit.boot, Wanted::Ended, Some(exit.reason.clone()).filter(|_| !exit.in_order))
            }
            State::Off | State::Ended(_) if !item.on && self.child.is_none() => (item.boot, Wanted::Off, None),
            _ => return None,
        };
        let instance_id = item.instance_id.clone();
        Some((instance_key(&item.instance_id), HostReport::Instance { instance_id, boot, machine, reason }))
    }

    /// What it has printed, if that has changed and was not told a moment ago.
    pub(super) fn console(&mut self, id: &str, directory: &Path) -> Option<(String, HostReport)> {
        let stamp = console::stamp(directory)?;
        if self.console.is_some_and(|(known, at)| known == stamp || at.elapsed() < CONSOLE) {
            return None;
        }
        self.console = Some((stamp, Instant::now()));
        let output = STANDARD.encode(console::tail(directory));
        Some((format!("console/{id}"), HostReport::Console { instance_id: id.to_owned(), output }))
    }
}

/// What becomes the instance's first process.
fn command(request: &Request<'_>) -> Vec<String> {
    let here =
        |word: &String| if request.own_programs && word == PROGRAM { program::PROGRAM.into() } else { word.clone() };
    request.command.iter().map(here).collect()
}

/// Prints on the console of an instance that has no process yet.
fn say(directory: &Path, text: &str) {
    match Console::begin(directory) {
        Ok(mut console) => console.write(text.as_bytes()),
        Err(error) => {
            tracing::warn!(%error, directory = %directory.display(), "an instance's console cannot be written")
        }
    }
}

/// Takes back what an instance that has ended had of the machine.
pub(super) fn clear(directory: &Path, cgroup: &str) -> io::Result<()> {
    handover::close(&directory.join(INTERFACES))?;
    remove_group(cgroup).map_err(io::Error::other)
}

/// Removes an instance's control group, with whatever a killed shim has left in it.
fn remove_group(path: &str) -> Result<(), runtime::CgroupError> {
    let group = Group::open(path)?;
    if !group.exists() {
        return Ok(());
    }
    group.kill();
    group.remove()
}
