//! Entry points for `cargo xtask fuzz`: each takes arbitrary bytes and must neither panic nor hang.

use domain::{Timestamp, ecs::Attribute};

use crate::query::{Instance, Query};

/// What a target does with bytes from outside.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[("cluster-query", cluster_query)];

/// Reads an expression of the cluster query language and, where it is one, asks it of an instance. Behind the first newline
/// stands the value of the instance's only attribute.
///
/// # Panics
/// When an expression and its negation agree, or an error points outside the text: that is what the fuzzer looks for.
pub fn cluster_query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (expression, value) = text.split_once('\n').unwrap_or((&text, ""));
    let read_time = |text: &str| text.parse().ok().map(Timestamp);
    let query = match Query::parse(expression, read_time) {
        Ok(query) => query,
        Err(error) => {
            assert!((1..=expression.chars().count() + 1).contains(&error.position), "{error}");
            return;
        }
    };
    let attributes = [Attribute { name: "x".to_owned(), value: Some(value.to_owned()) }];
    let instance = Instance {
        attributes: &attributes,
        agent_connected: true,
        agent_version: value,
        ec2_instance_id: Some(value),
        registered_at: Timestamp(0),
        running_tasks: 1,
        task_groups: &[value.to_owned()],
    };
    // Where there is room left for it: the negation adds to length and depth.
    if let Ok(negated) = Query::parse(&format!("!({expression})"), read_time) {
        assert_ne!(query.matches(&instance), negated.matches(&instance), "an expression and its negation");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the fuzzers start from, and what they once found.
    #[test]
    fn the_corpora_pass() {
        for (directory, target) in TARGETS {
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(directory);
            let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(files.len() > 5);
            files.iter().for_each(|file| target(&std::fs::read(file).unwrap()));
        }
    }
}
