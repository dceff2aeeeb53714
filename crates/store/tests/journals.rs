//! What holds for every journal, whatever engine it stands on. A new engine is one more line in [`journals`].
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::ForgetfulDisk;
use store::{Journal, JournalError, Revision, Write, embedded, memory::Memory};

/// Opens the same place again each time.
type Open = Box<dyn Fn() -> Box<dyn Journal>>;

/// Every engine, on a place of its own that is empty.
fn journals() -> Vec<(&'static str, Open)> {
    let (memory, disk) = (Memory::default(), ForgetfulDisk::default());
    vec![
        ("memory", Box::new(move || Box::new(memory.clone()))),
        ("embedded", Box::new(move || Box::new(embedded::open_on(disk.clone()).unwrap()))),
    ]
}

fn put(kind: &'static str, key: &str, value: &str) -> Write {
    Write::Put { kind, key: key.to_owned(), value: value.as_bytes().to_vec() }
}

fn delete(kind: &'static str, key: &str) -> Write {
    Write::Delete { kind, key: key.to_owned() }
}

/// Everything in a journal as `kind/key` and value.
fn content(journal: &mut dyn Journal) -> (Revision, BTreeMap<String, String>) {
    let mut found = BTreeMap::new();
    let revision = journal.load(&mut |kind, key, value| {
        let before = found.insert(format!("{kind}/{key}"), String::from_utf8(value.to_vec()).unwrap());
        assert_eq!(before, None, "{kind}/{key} came twice");
    });
    (revision.unwrap(), found)
}

fn expect(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn an_empty_one_is_at_revision_0() {
    for (engine, open) in journals() {
        assert_eq!(content(&mut *open()), (0, BTreeMap::new()), "{engine}");
    }
}

#[test]
fn what_was_appended_is_there_when_it_is_opened_again() {
    for (engine, open) in journals() {
        let mut journal = open();
        content(&mut *journal);
        assert_eq!(journal.append(&[put("a", "1", "x"), put("b", "1", "y"), put("a", "2", "z")], 0).unwrap(), 1);
        assert_eq!(journal.append(&[put("a", "1", "new"), delete("a", "2"), delete("a", "never")], 1).unwrap(), 2);
        let after = (2, expect(&[("a/1", "new"), ("b/1", "y")]));
        assert_eq!(content(&mut *journal), after, "{engine}");
        drop(journal);
        assert_eq!(content(&mut *open()), after, "{engine}, opened again");
    }
}

#[test]
fn the_last_write_of_a_key_in_a_batch_counts() {
    for (engine, open) in journals() {
        let mut journal = open();
        content(&mut *journal);
        let batch = [put("a", "1", "x"), delete("a", "1"), put("a", "1", "y"), put("a", "2", "x"), delete("a", "2")];
        journal.append(&batch, 0).unwrap();
        assert_eq!(content(&mut *journal), (1, expect(&[("a/1", "y")])), "{engine}");
    }
}

#[test]
fn keys_and_values_are_kept_as_they_are() {
    let long = "k".repeat(2000);
    let keys = ["", "a/b", "ü", "\u{0}", long.as_str()];
    for (engine, open) in journals() {
        let mut journal = open();
        content(&mut *journal);
        let large = "v".repeat(1 << 20);
        let batch: Vec<Write> = keys.iter().map(|key| put("kind/of", key, &large)).collect();
        journal.append(&batch, 0).unwrap();
        drop(journal);
        let expected = keys.iter().map(|key| (format!("kind/of/{key}"), large.clone())).collect();
        assert_eq!(content(&mut *open()), (1, expected), "{engine}");
    }
}

#[test]
fn a_writer_that_is_behind_is_refused_and_changes_nothing() {
    for (engine, open) in journals() {
        let mut journal = open();
        content(&mut *journal);
        journal.append(&[put("a", "1", "x")], 0).unwrap();
        let refused = journal.append(&[put("a", "1", "late")], 0);
        assert!(matches!(refused, Err(JournalError::Conflict { expected: 0, found: 1 })), "{engine}: {refused:?}");
        // After an error it is read again before the next append.
        assert_eq!(content(&mut *journal), (1, expect(&[("a/1", "x")])), "{engine}");
        assert_eq!(journal.append(&[put("a", "1", "new")], 1).unwrap(), 2, "{engine}");
    }
}
