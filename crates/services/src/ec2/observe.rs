//! What `host` reports of instances and volumes, written to their records.

use domain::{
    Timestamp,
    instances::{Instance, Machine, Observed},
};
use store::Transaction;

/// An instance runs, ended, or is off.
pub fn instance(
    tx: &mut Transaction,
    instance_id: &str,
    boot: u64,
    machine: Machine,
    reason: Option<String>,
    now: Timestamp,
) {
    let Some(key) = tx.find::<Instance>("id", instance_id).next().map(|instance| domain::Resource::key(&*instance))
    else {
        return;
    };
    tx.update::<Instance>(&key, |instance| {
        instance.observed = Some(Observed { boot, machine, reason, at: now });
    });
}

/// What an instance has printed, kept in memory only.
pub fn console(_tx: &mut Transaction, _instance_id: &str, _output: String, _now: Timestamp) {}

/// A volume's bytes exist, or cannot.
pub fn volume(_tx: &mut Transaction, _volume_id: &str, _problem: Option<String>) {}
