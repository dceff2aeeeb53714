//! The cluster query language: expressions that select container instances, in placement constraints (`memberOf`) and in
//! ListContainerInstances' filter.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html>

mod evaluate;
mod parse;
mod select;
mod token;

use domain::Timestamp;
use regex::Regex;

pub use evaluate::Instance;
pub use parse::{MAX_LENGTH, QueryError};

/// An expression that has been read.
#[derive(Debug, Clone)]
pub struct Query(Expression);

impl Query {
    /// Whether the expression selects this instance.
    pub fn matches(&self, instance: &Instance<'_>) -> bool {
        evaluate::matches(&self.0, instance)
    }
}

#[derive(Debug, Clone)]
enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Test(Subject, Test),
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    AgentConnected,
    AgentVersion,
    Attribute(String),
    Ec2InstanceId,
    RegisteredAt,
    RunningTasksCount,
    TaskGroup,
}

/// What must hold of it.
#[derive(Debug, Clone)]
enum Test {
    Exists(bool),
    /// One of the list, or none of it.
    In {
        list: Vec<String>,
        negated: bool,
    },
    Matches {
        pattern: Regex,
        negated: bool,
    },
    Order(Order, Bound),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What an order compares with, read according to the subject.
#[derive(Debug, Clone, PartialEq)]
enum Bound {
    /// Of an attribute: as numbers where both are, else as texts.
    Text(String),
    Number(f64),
    /// `1.92.0`: compared part by part.
    Version(Vec<u64>),
    Time(Timestamp),
}

#[cfg(test)]
mod tests;
