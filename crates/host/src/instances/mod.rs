//! Local EC2 instances: a system container for each, booted from its root volume. It has a network interface, a process
//! tree, a file system and control groups of its own, and the machine's kernel and programs. Nothing of the machine's
//! files is mounted inside but those, and its disks cannot be opened. But root inside has `CAP_SYS_ADMIN`, which an agent
//! needs to run containers, and with it can for example mount once more what the machine has mounted: it is kept from
//! accidents, not from attacks. An instance is no security boundary against its root, and `doctor` says so.
//!
//! A shim (see [`shim`]) owns each running instance, so that this process can end and come back. Everything known of an
//! instance is in its directory below `DATA/instances`; its volumes are files in `DATA/instances/volumes`.
//!
//! What runs inside from its first program on is the crate `guest`'s; what an instance is, the API's.

mod console;
mod fill;
mod guest;
mod handover;
mod image;
mod machine;
mod mounts;
mod program;
mod record;
mod shim;
mod stop;
#[cfg(test)]
mod tests;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use domain::network::{ENDPOINT_ADDRESS, host::HostReport, names};

pub(crate) use self::stop::stop_instances;
use self::{fill::Filler, machine::Machine, volumes::Volumes};
use crate::{Config, desired::Desired, ruleset::is_id};

/// The word that makes this program the owner of one instance.
const SHIM: &str = "instance-shim";
/// The word that makes it an instance's first process.
const GUEST: &str = "instance-guest";
/// The word that makes it fill a volume.
const FILL: &str = "instance-fill";
/// Where this program is inside an instance.
const PROGRAM: &str = "/opt/longshore/bin/longshore";
/// What it becomes there.
const COMMAND: [&str; 2] = [PROGRAM, "guest-init"];
/// Instances that are being booted at the same time.
const BOOTS: usize = 4;

/// Runs one of the helper processes if the arguments (program name first) ask for one, and returns its exit code.
///
/// Call it before any thread exists: they change namespaces, and the end of the thread that started an instance's first
/// process is the end of the instance.
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<i32> {
    let arguments: Vec<OsString> = arguments.skip(1).collect();
    let directory = || arguments.get(1).map(Path::new);
    match arguments.first()?.to_str()? {
        SHIM => Some(directory().map_or(2, shim::main)),
        GUEST => {
            let devices = arguments.get(2).and_then(|devices| devices.to_str()).unwrap_or_default();
            Some(directory().map_or(2, |directory| guest::main(directory, devices)))
        }
        FILL => Some(arguments.get(1).and_then(|job| job.to_str()).map_or(2, fill::main)),
        _ => None,
    }
}

/// Where everything about instances is.
fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("instances")
}

/// The control group of all instances of a platform. Not below `longshore/{digits}`: that is the agent's, which ends
/// whatever it finds there and does not know.
fn all_groups(platform: &str) -> String {
    format!("longshore/{}-instances", names::digits(platform))
}

/// The control group of an instance, which carries its limits.
fn group(platform: &str, instance_id: &str) -> String {
    format!("{}/{instance_id}", all_groups(platform))
}

/// The one that is the root of what the instance sees.
fn inner_group(group: &str) -> String {
    format!("{group}/guest")
}

/// What a reconciliation has to say.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Reports by key.
    pub(crate) reports: Vec<(String, HostReport)>,
    /// Interfaces whose network namespaces an earlier boot has used: to be made anew.
    pub(crate) renew: Vec<String>,
}

/// All instances of this machine.
pub(crate) struct Instances {
    platform: String,
    directory: PathBuf,
    data_dir: PathBuf,
    executable: PathBuf,
    command: Vec<String>,
    /// Where the platform's API answers inside.
    endpoint: String,
    machines: BTreeMap<String, Machine>,
    volumes: Volumes,
    reported: BTreeMap<String, HostReport>,
}

impl Instances {
    /// Finds what an earlier `host` has left.
    pub(crate) fn adopt(config: &Config) -> io::Result<Self> {
        Self::with_command(config, COMMAND.map(str::to_owned).to_vec())
    }

    /// As [`Instances::adopt`], with another program as the instances' first.
    pub(crate) fn with_command(config: &Config, command: Vec<String>) -> io::Result<Self> {
        fs::create_dir_all(&config.data_dir)?;
        let data_dir = fs::canonicalize(&config.data_dir)?;
        let directory = directory(&data_dir);
        let volumes = Volumes::open(
            directory.join("volumes"),
            Filler { executable: config.executable.clone(), data_dir: data_dir.clone() },
        )?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let machines = recorded(&directory).into_iter().map(|id| (id, Machine::default())).collect();
        Ok(Self {
            platform: config.platform.clone(),
            directory,
            data_dir,
            executable: config.executable.clone(),
            command,
            endpoint: format!("http://{ENDPOINT_ADDRESS}:{}", config.endpoint_port),
            machines,
            volumes,
            reported: BTreeMap::new(),
        })
    }

    /// Whether there is anything to watch.
    pub(crate) fn is_idle(&self, desired: &Desired) -> bool {
        desired.instances.is_empty() && self.machines.is_empty() && self.volumes.is_idle(desired)
    }

    /// Makes the machine agree with the slice, as far as that goes without waiting: to be called again and again.
    pub(crate) fn reconcile(&mut self, desired: &Desired) -> Outcome {
        let mut outcome = Outcome::default();
        let mut in_use = BTreeSet::new();
        for id in desired.instances.keys() {
            self.machines.entry(id.clone()).or_default();
        }
        let mut booting = 0;
        for (id, machine) in &mut self.machines {
            machine.observe(&self.directory.join(id), &group(&self.platform, id));
            booting += usize::from(machine.is_starting());
        }
        let mut reports = Vec::new();
        for (id, machine) in &mut self.machines {
            let place = self.directory.join(id);
            let Some(item) = desired.instances.get(id) else {
                if desired.confirmed {
                    // Where the interface stays, what the instance has made in its namespace does not.
                    outcome.renew.extend(machine.discard(&place, &group(&self.platform, id)));
                }
                continue;
            };
            if machine.wants_boot(item) {
                let root = desired.volumes.get(&item.root_volume_id);
                let request = machine::Request {
                    item,
                    own_programs: root.is_some_and(|root| !root.layers.is_empty()),
                    platform: &self.platform,
                    data_dir: &self.data_dir,
                    directory: &place,
                    executable: &self.executable,
                    command: &self.command,
                    endpoint: &self.endpoint,
                    volumes: &self.volumes,
                };
                if booting < BOOTS {
                    booting += usize::from(machine.boot(&request));
                }
                outcome.renew.extend(machine.take_renewal().then(|| item.interface_id.clone()));
            } else {
                machine.drive(item);
                if machine.is_running() {
                    hand_over(&self.platform, id, &place, desired);
                }
            }
            reports.extend(machine.report(item));
            reports.extend(machine.console(id, &place));
        }
        self.machines.retain(|id, machine| desired.instances.contains_key(id) || !machine.is_discarded());
        for machine in self.machines.values() {
            in_use.extend(machine.volumes());
        }
        reports.extend(self.volumes.reconcile(desired, &in_use));
        self.reported.retain(|key, _| desired.has_key(key));
        for (key, report) in reports {
            if self.reported.get(&key) != Some(&report) {
                self.reported.insert(key.clone(), report.clone());
                outcome.reports.push((key, report));
            }
        }
        outcome
    }
}

/// Lets an instance find the interfaces that its tasks have.
fn hand_over(platform: &str, instance_id: &str, place: &Path, desired: &Desired) {
    let interfaces = desired.vpcs.values().flat_map(|vpc| vpc.interfaces.values());
    let wanted = interfaces.filter(|interface| interface.task_of_instance.as_deref() == Some(instance_id));
    let wanted = wanted.map(|interface| interface.interface_id.as_str());
    if let Err(error) = handover::reconcile(platform, &place.join(record::INTERFACES), wanted) {
        tracing::error!(instance_id, %error, "interfaces of its tasks cannot be handed over");
    }
}

/// The instances that have a directory.
fn recorded(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| is_id(id, "i-")).collect()
}
