//! The work queue: each key at most once, each with the earliest time anybody asked for.

use std::collections::{BTreeSet, HashMap};

use domain::Timestamp;

/// What a reconciler works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A task's ARN.
    Task(String),
    /// A service's ARN.
    Service(String),
}

/// Keys with the time from which each is due.
#[derive(Debug, Default)]
pub struct Queue {
    due: BTreeSet<(Timestamp, Key)>,
    times: HashMap<Key, Timestamp>,
}

impl Queue {
    /// Makes a key due at `at`, or leaves it where it is when it is due earlier.
    pub fn push(&mut self, key: Key, at: Timestamp) {
        if let Some(&before) = self.times.get(&key) {
            if before <= at {
                return;
            }
            self.due.remove(&(before, key.clone()));
        }
        self.times.insert(key.clone(), at);
        self.due.insert((at, key));
    }

    /// Takes up to `most` keys that are due, the longest due first.
    pub fn take(&mut self, now: Timestamp, most: usize) -> Vec<Key> {
        let mut taken = Vec::new();
        while taken.len() < most && self.due.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.due.pop_first() {
                self.times.remove(&key);
                taken.push(key);
            }
        }
        taken
    }

    /// When the next key is due.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many keys wait.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_at_its_earliest_time() {
        let key = |name: &str| Key::Task(name.into());
        let mut queue = Queue::default();
        queue.push(key("a"), Timestamp(9));
        queue.push(key("a"), Timestamp(5));
        queue.push(key("a"), Timestamp(7));
        queue.push(key("b"), Timestamp(6));
        assert_eq!((queue.len(), queue.next_at()), (2, Some(Timestamp(5))));
        assert_eq!(queue.take(Timestamp(4), 10), []);
        assert_eq!(queue.take(Timestamp(9), 1), [key("a")]);
        assert_eq!(queue.take(Timestamp(9), 10), [key("b")]);
        assert!(queue.is_empty());
    }
}
