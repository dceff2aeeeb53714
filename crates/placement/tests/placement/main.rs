//! Placement on container instances, from outside: tables of what is expected, and properties that hold for whatever
//! clusters and tasks there are.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod filters;
mod fleets;
mod following;
mod properties;
mod reference;
mod scale_in;
mod snapshots;
mod strategies;
mod support;
