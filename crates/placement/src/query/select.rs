//! What an expression says of all instances of a fleet at once. Each value of an attribute is asked about once, however
//! many instances have it, and `and`, `or` and `not` are those of sets. Selects whom [`super::evaluate`] selects.

use super::{Expression, Query, Subject, Test, evaluate};
use crate::fleet::{column::Column, groups::Group, index::Index, slots::Bits};

impl Query {
    /// Keeps the instances that the expression selects.
    pub(crate) fn keep(&self, index: &Index, among: &mut Bits) {
        keep(&self.0, index, among);
    }
}

fn keep(expression: &Expression, index: &Index, among: &mut Bits) {
    match expression {
        Expression::And(parts) => parts.iter().for_each(|part| keep(part, index, among)),
        Expression::Or(parts) => {
            let mut any = Bits::none_of(among);
            for part in parts {
                let mut one = among.clone();
                keep(part, index, &mut one);
                any.unite(&one);
            }
            *among = any;
        }
        Expression::Not(inside) => {
            let mut selected = among.clone();
            keep(inside, index, &mut selected);
            among.subtract(&selected);
        }
        Expression::Test(subject, test) => keep_passing(subject, test, index, among),
    }
}

fn keep_passing(subject: &Subject, test: &Test, index: &Index, among: &mut Bits) {
    match subject {
        Subject::Attribute(name) => match (index.attribute(name), test) {
            (None, Test::Exists(false)) => {}
            (None, _) => *among = Bits::default(),
            (Some(column), Test::Exists(true)) => among.intersect_few(column.present()),
            (Some(column), Test::Exists(false)) => among.subtract_few(column.present()),
            (Some(column), test) => keep_text(test, column, among),
        },
        Subject::AgentConnected => {
            if !evaluate::of_connection(test, true) {
                among.subtract(&index.connected);
            }
            if !evaluate::of_connection(test, false) {
                among.intersect(&index.connected);
            }
        }
        Subject::Ec2InstanceId => keep_text(test, &index.ec2_instance_ids, among),
        Subject::TaskGroup => keep_group(test, index, among),
        Subject::AgentVersion => {
            among.intersect(&index.agent_versions.select(|version| evaluate::of_version(test, version)));
        }
        Subject::RegisteredAt => {
            among.intersect(&index.registered_at.select(|time| evaluate::of_time(test, *time)));
        }
        Subject::RunningTasksCount => {
            among.intersect(&index.running_tasks.select(|number| evaluate::of_number(test, *number)));
        }
    }
}

/// Whose value passes. What is not there passes nothing, a negated test included.
fn keep_text(test: &Test, column: &Column<String>, among: &mut Bits) {
    match test {
        // Values that are named are found, not gone through.
        Test::In { list, negated: false } => {
            let mut listed = Bits::none_of(among);
            list.iter().filter_map(|value| column.get(value)).for_each(|slots| listed.unite_few(slots));
            among.intersect(&listed);
        }
        Test::In { list, negated: true } => {
            among.intersect_few(column.present());
            list.iter().filter_map(|value| column.get(value)).for_each(|slots| among.subtract_few(slots));
        }
        test => among.intersect(&column.select(|value| evaluate::of_text(test, value))),
    }
}

/// An instance has several groups of tasks: one of them must pass, or all of them where the test is negated.
fn keep_group(test: &Test, index: &Index, among: &mut Bits) {
    let negated = evaluate::is_negated(test);
    // Where a group is that decides by itself: by passing, or by not passing what all must.
    let mut decided = Bits::none_of(among);
    let mut decide = |group: &Group| decided.unite_few(group.present());
    match test {
        Test::In { list, .. } => list.iter().filter_map(|name| index.group(name)).for_each(decide),
        _ => {
            let decisive = |name: &str| evaluate::of_text(test, name) != negated;
            index.groups().filter(|(name, _)| decisive(name)).for_each(|(_, group)| decide(group));
        }
    }
    if negated {
        among.subtract(&decided);
    } else {
        among.intersect(&decided);
    }
}
