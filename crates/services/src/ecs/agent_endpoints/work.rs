//! What one ACS connection has yet to tell its agent: pure, from the tasks placed on the instance and from what was
//! sent and acknowledged on this connection.

use std::collections::HashMap;

use domain::Timestamp;
use domain::ecs::DesiredStatus;
use std::time::Duration;

/// Tasks in one payload.
const TASKS_PER_PAYLOAD: usize = 10;
/// How long an acknowledgement is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after the acknowledgement of a stop an agent that knows the task would have spoken of it.
const SILENCE: Duration = Duration::from_secs(30);
/// How often one thing is sent on one connection. A payload with one bad task is never acknowledged, so this must end.
const MOST_ATTEMPTS: u32 = 3;

#[derive(Debug, Clone, PartialEq)]
struct Sent {
    wanted: DesiredStatus,
    message_id: String,
    at: Timestamp,
    attempts: u32,
    acknowledged: Option<Timestamp>,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub(super) struct Work {
    sent: HashMap<String, Sent>,
}

impl Work {
    /// Only tasks that are still wanted are remembered.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.sent.retain(|task, _| is_wanted(task));
    }

    /// A task is over.
    pub(super) fn forget(&mut self, task: &str) {
        self.sent.remove(task);
    }

    /// Whether anything is still to be acknowledged, or given up on.
    pub(super) fn is_awaiting(&self) -> bool {
        self.sent.values().any(|sent| sent.acknowledged.is_none() && sent.attempts < MOST_ATTEMPTS)
    }

    /// Of these tasks, those that are to be sent now, in batches.
    pub(super) fn due<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a str, DesiredStatus)>,
        now: Timestamp,
    ) -> Vec<Vec<String>> {
        let due: Vec<String> =
            wanted.filter(|(task, wanted)| self.is_due(task, *wanted, now)).map(|(task, _)| task.to_owned()).collect();
        due.chunks(TASKS_PER_PAYLOAD).map(<[String]>::to_vec).collect()
    }

    fn is_due(&self, task: &str, wanted: DesiredStatus, now: Timestamp) -> bool {
        match self.sent.get(task) {
            None => true,
            Some(sent) if sent.wanted != wanted => true,
            Some(sent) => {
                sent.acknowledged.is_none() && sent.attempts < MOST_ATTEMPTS && now.since(sent.at) >= PATIENCE
            }
        }
    }

    /// These tasks went out in one message.
    pub(super) fn sent(&mut self, tasks: &[(String, DesiredStatus)], message_id: &str, now: Timestamp) {
        for (task, wanted) in tasks {
            let attempts = match self.sent.get(task) {
                Some(before) if before.wanted == *wanted => before.attempts + 1,
                _ => 1,
            };
            let sent =
                Sent { wanted: *wanted, message_id: message_id.to_owned(), at: now, attempts, acknowledged: None };
            self.sent.insert(task.clone(), sent);
        }
    }

    /// The agent took a message.
    pub(super) fn acknowledged(&mut self, message_id: &str, now: Timestamp) {
        for sent in self.sent.values_mut().filter(|sent| sent.message_id == message_id) {
            sent.acknowledged.get_or_insert(now);
        }
    }

    /// The tasks whose stop the agent took a while ago. Of one that it did not know it will never say more.
    pub(super) fn silent(&self, now: Timestamp) -> Vec<String> {
        let is_silent = |sent: &Sent| {
            sent.wanted == DesiredStatus::Stopped && sent.acknowledged.is_some_and(|at| now.since(at) >= SILENCE)
        };
        self.sent.iter().filter(|(_, sent)| is_silent(sent)).map(|(task, _)| task.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn wanted(tasks: &[(&str, DesiredStatus)]) -> BTreeMap<String, DesiredStatus> {
        tasks.iter().map(|(task, wanted)| ((*task).to_owned(), *wanted)).collect()
    }

    fn due(work: &mut Work, wanted: &BTreeMap<String, DesiredStatus>, now: i64) -> Vec<Vec<String>> {
        work.retain(|task| wanted.contains_key(task));
        work.due(wanted.iter().map(|(task, wanted)| (task.as_str(), *wanted)), Timestamp(now))
    }

    fn send(work: &mut Work, wanted: &BTreeMap<String, DesiredStatus>, id: &str, now: i64) -> usize {
        let batches = due(work, wanted, now);
        for batch in &batches {
            let tasks: Vec<_> = batch.iter().map(|task| (task.clone(), wanted[task])).collect();
            work.sent(&tasks, id, Timestamp(now));
        }
        batches.iter().map(Vec::len).sum()
    }

    #[test]
    fn a_task_is_sent_once_and_again_when_it_is_to_stop() {
        let mut work = Work::default();
        let running = wanted(&[("a", DesiredStatus::Running), ("b", DesiredStatus::Running)]);
        assert_eq!(send(&mut work, &running, "m1", 0), 2);
        assert!(work.is_awaiting());
        work.acknowledged("m1", Timestamp(1));
        assert!(!work.is_awaiting());
        assert_eq!(send(&mut work, &running, "m2", 60_000), 0);
        let stopping = wanted(&[("a", DesiredStatus::Stopped), ("b", DesiredStatus::Running)]);
        assert_eq!(due(&mut work, &stopping, 61_000), [["a".to_owned()]]);
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_but_not_for_ever() {
        let mut work = Work::default();
        let running = wanted(&[("a", DesiredStatus::Running)]);
        assert_eq!(send(&mut work, &running, "m1", 0), 1);
        assert_eq!(send(&mut work, &running, "m2", 5_000), 0);
        assert_eq!(send(&mut work, &running, "m3", 10_000), 1);
        assert_eq!(send(&mut work, &running, "m4", 20_000), 1);
        assert_eq!(send(&mut work, &running, "m5", 900_000), 0);
    }

    #[test]
    fn a_stop_that_was_taken_and_led_to_nothing_is_named() {
        let mut work = Work::default();
        let tasks = wanted(&[("a", DesiredStatus::Stopped), ("b", DesiredStatus::Running)]);
        assert_eq!(send(&mut work, &tasks, "m1", 0), 2);
        assert!(work.silent(Timestamp(90_000)).is_empty(), "nothing was taken");
        work.acknowledged("m1", Timestamp(1_000));
        work.acknowledged("m1", Timestamp(20_000));
        assert!(work.silent(Timestamp(30_999)).is_empty());
        assert_eq!(work.silent(Timestamp(31_000)), ["a"]);
    }

    #[test]
    fn payloads_are_small_and_forgotten_tasks_are_new_again() {
        let mut work = Work::default();
        let many: Vec<String> = (0..25).map(|number| format!("t{number:02}")).collect();
        let all: BTreeMap<_, _> = many.iter().map(|task| (task.clone(), DesiredStatus::Running)).collect();
        let sizes: Vec<usize> = due(&mut work, &all, 0).iter().map(Vec::len).collect();
        assert_eq!(sizes, [10, 10, 5]);
        let one = wanted(&[("x", DesiredStatus::Running)]);
        send(&mut work, &one, "m", 0);
        due(&mut work, &BTreeMap::new(), 1);
        assert_eq!(send(&mut work, &one, "n", 2), 1);
    }
}
