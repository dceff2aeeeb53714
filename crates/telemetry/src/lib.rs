//! What tasks and services say: log events, kept in segments on disk, and the filter patterns that search them.
//!
//! * [`logs`] keeps the events of log streams: durable append with group commit, reading by time in both directions,
//!   searching across the streams of a group, and giving space back.
//! * [`pattern`] is the language of CloudWatch Logs filter patterns.
//! * [`fuzz`] has the entry points of the fuzz targets.
//!
//! Names, ARNs, retention policies and limits of the API are left to `services` and `domain`: here a stream is a pair
//! of numbers that are never used twice.

pub mod fuzz;
pub mod logs;
pub mod pattern;

pub use logs::{LogError, LogStore};
pub use pattern::{Pattern, PatternError};
