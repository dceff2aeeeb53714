//! Ending all instances of a platform, as when the machine's power is cut: `up` boots them again from their volumes.

use std::{fs, path::Path, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use super::{
    machine::clear,
    record::{self, EXIT, SHIM, State},
};

/// How long an instance that was killed may take to be gone.
const GRACE: Duration = Duration::from_secs(10);

/// Ends every instance at once and takes back what it had of the machine; its directory and its volumes stay. Says what was ended.
/// `host` must not be running.
pub(crate) fn stop_instances(platform: &str, data_dir: &Path) -> Vec<String> {
    let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let directory = super::directory(&data_dir);
    let mut ended = Vec::new();
    for id in super::recorded(&directory) {
        let place = directory.join(&id);
        if let State::Running(shim) | State::Starting(shim) = record::state(&place) {
            let watched = shim.process.open();
            match &shim.guest {
                Some(guest) => guest.signal(Signal::KILL),
                None => shim.process.signal(Signal::KILL),
            }
            if let Some(watched) = watched {
                let grace = Timespec { tv_sec: i64::try_from(GRACE.as_secs()).unwrap_or(10), tv_nsec: 0 };
                if !matches!(poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&grace)), Ok(1..)) {
                    shim.process.signal(Signal::KILL);
                    let _ = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&grace));
                }
            }
            // It did not end by itself: the next `host` boots it again.
            for file in [SHIM, EXIT] {
                if let Err(error) = record::forget(&place, file) {
                    tracing::warn!(%error, instance = id, "{file} cannot be removed");
                }
            }
            ended.push(format!("instance {id}"));
        }
        if let Err(error) = clear(&place, &super::group(platform, &id)) {
            tracing::warn!(%error, instance = id, "what it has left is still there");
        }
    }
    for path in [super::all_groups(platform).as_str(), "longshore"] {
        if let Ok(group) = runtime::Group::open(path) {
            group.remove_if_empty();
        }
    }
    ended
}
