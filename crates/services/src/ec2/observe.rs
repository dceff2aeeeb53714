//! What `host` reports of instances and volumes, written to their records.

use domain::{
    Resource, Timestamp,
    instances::{ConsoleOutput, Instance, Machine, Observed, Power, ShutdownBehavior, StateReason, Volume},
};
use store::Transaction;

use super::instances::power;

/// The longest console output that is kept: 64 KiB in base64.
const MAX_CONSOLE: usize = 88 * 1024;

/// An instance runs, ended, or is off.
pub fn instance(
    tx: &mut Transaction,
    instance_id: &str,
    boot: u64,
    machine: Machine,
    reason: Option<String>,
    now: Timestamp,
) {
    let Some(known) = tx.find::<Instance>(Instance::BY_ID, instance_id).next() else { return };
    let mut instance = Instance::clone(&known);
    let seen = instance.observed.as_ref();
    // Neither what is over by now, nor what was never asked for.
    if boot > instance.boot || seen.is_some_and(|seen| seen.boot > boot) {
        return;
    }
    let same = seen.is_some_and(|seen| seen.boot == boot && seen.machine == machine && seen.reason == reason);
    if same {
        return;
    }
    let has_run = seen.is_some_and(|seen| seen.boot == boot && seen.machine == Machine::Running);
    if machine == Machine::Ended && instance.power == Power::On && boot == instance.boot {
        ended(&mut instance, has_run, reason.as_deref(), now);
    }
    instance.observed = Some(Observed { boot, machine, reason, at: now });
    tx.put(instance.clone());
    power::settle(tx, &instance);
}

/// What becomes of an instance that ended by itself. One that could not be booted at all is terminated when it is new, and
/// stopped again when it had been stopped, as at Amazon. A Spot Instance is never stopped.
fn ended(instance: &mut Instance, has_run: bool, reason: Option<&str>, now: Timestamp) {
    let failed = reason.filter(|_| !has_run);
    let (terminate, reason) = match failed {
        Some(reason) => {
            let code = "Server.InternalError";
            let message = format!("{code}: Internal error on launch: {reason:.512}");
            (instance.boot == 1 || instance.spot.is_some(), StateReason { code: code.to_owned(), message })
        }
        None => {
            let code = "Client.InstanceInitiatedShutdown";
            let message = format!("{code}: Instance initiated shutdown");
            let terminate = instance.shutdown_behavior == ShutdownBehavior::Terminate;
            (terminate, StateReason { code: code.to_owned(), message })
        }
    };
    if terminate {
        power::terminated(instance, reason, now);
    } else {
        instance.power = Power::Off;
        instance.ended_at = Some(now);
        instance.state_reason = Some(reason);
    }
}

/// What an instance has printed, kept in memory only.
pub fn console(tx: &mut Transaction, instance_id: &str, output: String, now: Timestamp) {
    if output.len() > MAX_CONSOLE || tx.find::<Instance>(Instance::BY_ID, instance_id).next().is_none() {
        return;
    }
    tx.put(ConsoleOutput { instance_id: instance_id.to_owned(), output, at: now });
}

/// A volume's bytes exist, or cannot.
pub fn volume(tx: &mut Transaction, volume_id: &str, problem: Option<String>) {
    let Some(key) = tx.find::<Volume>("id", volume_id).next().map(|volume| volume.key()) else { return };
    tx.update::<Volume>(&key, |volume| {
        volume.made = problem.is_none();
        volume.problem = problem;
    });
}
