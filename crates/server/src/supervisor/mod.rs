//! `longshore up`: starts the platform's processes, keeps them running, and takes everything down at the end.
//!
//! Each child is its own process and restarts alone. None of them ends because the supervisor did: after a `kill -9` of
//! the supervisor the next `up` finds them by their pid files and goes on with them.

mod child;
pub mod children;
mod pid_file;
mod privileges;
mod up;

pub use pid_file::PidFile;
pub use up::{Error, stop, take_down, up};
