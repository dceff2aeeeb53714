//! What spreading counts by: instances or values of an attribute; and for scale-in how each `spread` that follows another
//! divides further.

use std::collections::HashMap;

use crate::Instance;

/// As the API names the instance itself; `host` means the same.
const INSTANCE_ID: &str = "instanceId";
const HOST: &str = "host";
const ATTRIBUTE: &str = "attribute:";
/// The longest name of an attribute.
const MAX_NAME: usize = 128;

/// Whether `spread` can go by that field: `instanceId`, `host`, or `attribute:` with a name that an attribute can have.
pub fn check_spread_field(field: &str) -> bool {
    let may_be_in_name = |character: char| character.is_ascii_alphanumeric() || "-_./\\".contains(character);
    field == INSTANCE_ID
        || field == HOST
        || field
            .strip_prefix(ATTRIBUTE)
            .is_some_and(|name| (1..=MAX_NAME).contains(&name.len()) && name.chars().all(may_be_in_name))
}

/// What a `spread` goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    /// The instance itself.
    Instance,
    /// The value of an attribute.
    Attribute(&'a str),
}

impl<'a> Field<'a> {
    pub(crate) fn read(field: &'a str) -> Self {
        match field {
            INSTANCE_ID | HOST => Self::Instance,
            _ => Self::Attribute(field.strip_prefix(ATTRIBUTE).unwrap_or(field)),
        }
    }

    /// The field's value on an instance; none where the instance lacks the attribute. An attribute without a value has
    /// the empty one.
    pub(crate) fn value(self, instance: &Instance) -> Option<&str> {
        match self {
            Self::Instance => Some(instance.arn().as_str()),
            Self::Attribute(name) => Some(instance.attribute(name)?.value.as_deref().unwrap_or_default()),
        }
    }
}

/// Things divided into classes by one field after the other: spreading over zones and then over racks counts racks
/// within their zone.
pub(crate) struct Classes {
    /// For each thing the number of its class.
    of: Vec<usize>,
}

impl Classes {
    /// All `things` in one class.
    pub(crate) fn new(things: usize) -> Self {
        Self { of: vec![0; things] }
    }

    /// The class of a thing.
    pub(crate) fn of(&self, thing: usize) -> usize {
        self.of.get(thing).copied().unwrap_or_default()
    }

    /// Divides each class by the things' values, in their order, and gives the number of tasks in each new class:
    /// `things` has a value and a number of tasks for each thing.
    pub(crate) fn divide<'a>(&mut self, things: impl Iterator<Item = (Option<&'a str>, usize)>) -> Vec<usize> {
        let mut numbers = HashMap::new();
        let mut tasks: Vec<usize> = Vec::new();
        for (class, (value, count)) in self.of.iter_mut().zip(things) {
            let number = *numbers.entry((*class, value)).or_insert_with(|| {
                tasks.push(0);
                tasks.len() - 1
            });
            *class = number;
            tasks[number] += count;
        }
        tasks
    }
}

/// Keeps those whose key is the least.
pub(crate) fn keep_least<K: Ord>(candidates: &mut Vec<usize>, key: impl Fn(usize) -> K) {
    if let Some(least) = candidates.iter().map(|at| key(*at)).min() {
        candidates.retain(|at| key(*at) == least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_goes_by_the_instance_or_by_an_attribute() {
        let longest = format!("attribute:{}", "x".repeat(128));
        for field in ["instanceId", "host", "attribute:ecs.availability-zone", "attribute:a/b\\c_1", &longest] {
            assert!(check_spread_field(field), "{field}");
        }
        let too_long = format!("{longest}x");
        for field in ["", "instanceid", "attribute", "attribute:", "attribute:a b", "attribute:é", "zone", &too_long] {
            assert!(!check_spread_field(field), "{field}");
        }
    }

    #[test]
    fn each_division_counts_within_the_one_before() {
        let mut classes = Classes::new(4);
        let zones = [(Some("a"), 1), (Some("a"), 2), (Some("b"), 4), (None, 8)];
        assert_eq!(classes.divide(zones.into_iter()), [3, 4, 8]);
        let racks = [(Some("1"), 1), (Some("2"), 2), (Some("1"), 4), (Some("1"), 8)];
        assert_eq!(classes.divide(racks.into_iter()), [1, 2, 4, 8], "rack 1 of one zone is not rack 1 of another");
        assert_eq!((0..5).map(|thing| classes.of(thing)).collect::<Vec<_>>(), [0, 1, 2, 3, 0]);
    }
}
