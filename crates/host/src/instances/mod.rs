//! Local EC2 instances: each is a system container with a shim of its own, rooted on a volume of its own. What runs is what
//! the slice says, whatever happened to this process or to the machine meanwhile.
//!
//! [`spec`] is one boot, [`shim`] owns it, [`root`] and [`image`] are what it sees, [`volumes`] are its disks.

mod console;
mod handover;
mod image;
mod machine;
mod root;
mod shim;
mod spec;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    instances::{InstanceItem, Machine as Seen, instance_key, volume_key},
    network::{ENDPOINT_ADDRESS, host::HostReport, names},
};

use self::{
    machine::{Boot, Ending},
    spec::Spec,
};
use crate::{Config, desired::Desired, interface, netns, ruleset::is_id};

pub use shim::dispatch;

/// How often consoles are looked at.
const CONSOLES: Duration = Duration::from_secs(2);
/// Boots and ends at the same time: more only wait for the disk.
const PARALLEL: usize = 8;

/// What is known of an instance on this machine.
enum Phase {
    /// It is being booted or ended.
    Working(JoinHandle<Phase>),
    /// This boot of it runs.
    Running(machine::Running),
    /// This boot of it ended by itself, or failed.
    Ended(u64, String),
    /// Nothing of it is there; this boot was switched off.
    Off(u64),
}

/// All instances of this machine.
pub(crate) struct Instances {
    settings: Settings,
    phases: BTreeMap<String, Phase>,
    /// Primary interfaces whose network namespaces were taken away, so that the next boot has a clean one.
    renewed: Vec<String>,
    reported: BTreeMap<String, HostReport>,
    consoles_at: Instant,
    consoles: BTreeMap<String, (u64, std::time::SystemTime)>,
}

/// What is the same for all instances.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) platform: String,
    pub(super) data_dir: PathBuf,
    pub(super) executable: PathBuf,
    /// What an instance runs first, and where its API is.
    pub(super) command: Vec<String>,
    pub(super) endpoint: String,
}

impl Settings {
    pub(super) fn directory(&self, instance_id: &str) -> PathBuf {
        directory(&self.data_dir).join(instance_id)
    }

    pub(super) fn group(&self, instance_id: &str) -> String {
        format!("{}/{instance_id}", group(&self.platform))
    }
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("instances")
}

/// The control group that all instances are below: not below the one that the platform's agent ends with its tasks.
fn group(platform: &str) -> String {
    format!("longshore/{}-instances", names::digits(platform))
}

impl Instances {
    /// Finds what an earlier `host` has left.
    pub(crate) fn adopt(config: &Config) -> io::Result<Self> {
        let command = ["/opt/longshore/bin/longshore", "guest-init"].map(str::to_owned).to_vec();
        let settings = Settings {
            platform: config.platform.clone(),
            data_dir: config.data_dir.clone(),
            executable: config.executable.clone(),
            command,
            endpoint: format!("http://{ENDPOINT_ADDRESS}:{}", config.endpoint_port),
        };
        Self::adopt_with(settings)
    }

    fn adopt_with(settings: Settings) -> io::Result<Self> {
        let mut phases = BTreeMap::new();
        for id in known(&settings.data_dir)? {
            if let Some(phase) = machine::adopt(&settings.directory(&id)) {
                phases.insert(id, phase);
            }
        }
        Ok(Self {
            settings,
            phases,
            renewed: Vec::new(),
            reported: BTreeMap::new(),
            consoles_at: Instant::now(),
            consoles: BTreeMap::new(),
        })
    }

    /// Whether there is anything to watch.
    pub(crate) fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }

    /// Interfaces that must be made anew before their instances boot; asked once, they are no longer told.
    pub(crate) fn take_renewed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.renewed)
    }

    /// Makes what runs what the slice says, without waiting for anything. Returns what there is to report.
    pub(crate) fn reconcile(&mut self, desired: &Desired) -> Vec<(String, HostReport)> {
        self.finish_work();
        let volumes = volumes::ensure(&self.settings.data_dir, &desired.volumes);
        for item in desired.instances.values() {
            self.reconcile_one(item, desired);
        }
        if desired.confirmed {
            self.end_others(desired);
        }
        let mut reports = Vec::new();
        for (volume_id, problem) in volumes {
            let report = HostReport::Volume { volume_id: volume_id.clone(), problem };
            self.report(volume_key(&volume_id), report, &mut reports);
        }
        for item in desired.instances.values() {
            let (boot, machine, reason) = match self.phases.get(&item.instance_id) {
                Some(Phase::Running(running)) => (running.boot, Seen::Running, None),
                Some(Phase::Ended(boot, reason)) => (*boot, Seen::Ended, Some(reason.clone())),
                Some(Phase::Off(boot)) => (*boot, Seen::Off, None),
                Some(Phase::Working(_)) | None => continue,
            };
            let report = HostReport::Instance { instance_id: item.instance_id.clone(), boot, machine, reason };
            self.report(instance_key(&item.instance_id), report, &mut reports);
        }
        self.report_consoles(desired, &mut reports);
        self.reported.retain(|key, _| match key.split_once('/') {
            Some(("instance", id)) => desired.instances.contains_key(id),
            Some(("volume", id)) => desired.volumes.contains_key(id),
            _ => false,
        });
        reports
    }

    fn report(&mut self, key: String, report: HostReport, reports: &mut Vec<(String, HostReport)>) {
        if self.reported.get(&key) != Some(&report) {
            self.reported.insert(key.clone(), report.clone());
            reports.push((key, report));
        }
    }

    /// Takes in what workers have done.
    fn finish_work(&mut self) {
        let done: Vec<String> = self
            .phases
            .iter()
            .filter(|(_, phase)| matches!(phase, Phase::Working(work) if work.is_finished()))
            .map(|(id, _)| id.clone())
            .collect();
        for id in done {
            if let Some(Phase::Working(work)) = self.phases.remove(&id) {
                let phase = work.join().unwrap_or_else(|_| Phase::Ended(0, "a worker panicked".to_owned()));
                if !matches!(phase, Phase::Running(_))
                    && let Some(spec) = spec::read::<Spec>(&self.settings.directory(&id), spec::SPEC)
                {
                    self.renewed.push(spec.interface_id);
                }
                self.phases.insert(id, phase);
            }
        }
    }

    fn reconcile_one(&mut self, item: &InstanceItem, desired: &Desired) {
        let id = &item.instance_id;
        let working = self.phases.values().filter(|phase| matches!(phase, Phase::Working(_))).count();
        let phase = match self.phases.remove(id) {
            None if item.on => self.boot(item, desired, working),
            None => Some(Phase::Off(item.boot)),
            Some(Phase::Working(work)) => Some(Phase::Working(work)),
            Some(Phase::Running(mut running)) => {
                if let Some(reason) = running.ended(&self.settings.directory(id)) {
                    // What it leaves is cleared away, and that it ended is told.
                    Some(self.end(id, running, Ending::ByItself(reason)))
                } else if !item.on || running.boot < item.boot {
                    Some(self.end(id, running, Ending::Asked(item.boot)))
                } else {
                    self.hand_over(id, desired);
                    Some(Phase::Running(running))
                }
            }
            Some(Phase::Ended(boot, reason)) => match (item.on, boot < item.boot) {
                (true, true) => self.boot(item, desired, working).or(Some(Phase::Ended(boot, reason))),
                (true, false) => Some(Phase::Ended(boot, reason)),
                (false, _) => Some(Phase::Off(item.boot)),
            },
            Some(Phase::Off(boot)) if item.on => self.boot(item, desired, working).or(Some(Phase::Off(boot))),
            Some(Phase::Off(_)) => Some(Phase::Off(item.boot)),
        };
        if let Some(phase) = phase {
            self.phases.insert(id.clone(), phase);
        }
    }

    /// Boots it, once its interface and its volumes are there; until then nothing.
    fn boot(&self, item: &InstanceItem, desired: &Desired, working: usize) -> Option<Phase> {
        let namespace = interface::path(&self.settings.platform, &item.interface_id);
        let has_interface = desired.vpcs.values().any(|vpc| vpc.interfaces.contains_key(&item.interface_id));
        if working >= PARALLEL || !has_interface || !netns::is_ready(&namespace) {
            return None;
        }
        let volume = |id: &str| {
            desired
                .volumes
                .contains_key(id)
                .then(|| volumes::file(&self.settings.data_dir, id))
                .filter(|file| file.exists())
        };
        let root = volume(&item.root_volume_id)?;
        let others: Option<Vec<_>> =
            item.volumes.iter().map(|one| Some((volume(&one.volume_id)?, one.device_name.clone()))).collect();
        let boot = Boot { settings: self.settings.clone(), item: item.clone(), namespace, root, volumes: others? };
        Some(Phase::Working(thread::spawn(move || boot.run())))
    }

    fn end(&self, id: &str, running: machine::Running, ending: Ending) -> Phase {
        let (settings, id) = (self.settings.clone(), id.to_owned());
        Phase::Working(thread::spawn(move || machine::end(&settings, &id, running, ending)))
    }

    /// Instances that the server does not know any more go, with all they have left; then volumes that nobody has.
    fn end_others(&mut self, desired: &Desired) {
        let mut gone: BTreeSet<String> = known(&self.settings.data_dir).unwrap_or_default().into_iter().collect();
        gone.extend(self.phases.keys().cloned());
        for id in gone.iter().filter(|id| !desired.instances.contains_key(*id)) {
            match self.phases.remove(id) {
                Some(Phase::Running(running)) => {
                    let phase = self.end(id, running, Ending::Asked(0));
                    self.phases.insert(id.clone(), phase);
                }
                Some(Phase::Working(work)) => _ = self.phases.insert(id.clone(), Phase::Working(work)),
                Some(Phase::Ended(..) | Phase::Off(_)) | None => {
                    if let Err(error) = machine::forget(&self.settings, id) {
                        tracing::error!(instance = id, %error, "an instance's directory cannot be removed");
                    }
                }
            }
        }
        let busy = self.phases.keys().any(|id| !desired.instances.contains_key(id));
        if !busy && let Err(error) = volumes::delete_others(&self.settings.data_dir, &desired.volumes) {
            tracing::error!(%error, "volumes that nobody has cannot be deleted");
        }
    }

    /// Lets the instance find the interfaces that its tasks have.
    fn hand_over(&self, id: &str, desired: &Desired) {
        let wanted = desired
            .vpcs
            .values()
            .flat_map(|vpc| vpc.interfaces.values())
            .filter(|interface| interface.task_of_instance.as_deref() == Some(id))
            .map(|interface| interface.interface_id.as_str());
        let directory = self.settings.directory(id).join(spec::INTERFACES);
        if let Err(error) = handover::reconcile(&self.settings.platform, &directory, wanted) {
            tracing::error!(instance = id, %error, "interfaces of its tasks cannot be handed over");
        }
    }

    fn report_consoles(&mut self, desired: &Desired, reports: &mut Vec<(String, HostReport)>) {
        if self.consoles_at.elapsed() < CONSOLES {
            return;
        }
        self.consoles_at = Instant::now();
        self.consoles.retain(|id, _| desired.instances.contains_key(id));
        for id in desired.instances.keys() {
            let path = self.settings.directory(id).join(spec::CONSOLE);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let version = (metadata.len(), metadata.modified().unwrap_or(std::time::UNIX_EPOCH));
            if self.consoles.get(id) == Some(&version) {
                continue;
            }
            if let Ok(text) = console::tail(&path) {
                self.consoles.insert(id.clone(), version);
                let report = HostReport::Console { instance_id: id.clone(), output: STANDARD.encode(text) };
                reports.push((format!("console/{id}"), report));
            }
        }
    }
}

/// Instances that have a directory.
fn known(data_dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory(data_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| is_id(name, "i-")).collect())
}

/// Ends every instance below a data directory and takes everything of it from the machine; disks and directories stay. Says
/// what was removed.
pub(crate) fn teardown(platform: &str, data_dir: &Path) -> io::Result<Vec<String>> {
    let settings = Settings {
        platform: platform.to_owned(),
        data_dir: data_dir.to_owned(),
        executable: PathBuf::new(),
        command: Vec::new(),
        endpoint: String::new(),
    };
    let ids = known(data_dir)?;
    let removed = thread::scope(|scope| {
        let ending: Vec<_> = ids.iter().map(|id| scope.spawn(|| machine::take_down(&settings, id))).collect();
        ending.into_iter().filter_map(|thread| thread.join().ok()).collect::<io::Result<Vec<_>>>()
    })?;
    if let Ok(all) = runtime::Group::open(&group(platform)) {
        all.remove().map_err(io::Error::other)?;
    }
    Ok(removed.into_iter().flatten().collect())
}
