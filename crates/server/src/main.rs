//! The binary `longshore`: the command line, the supervisor and its children, and the composition of all crates.
//!
//! The same executable is every process of the platform: what it is to be is its first argument. The shims of containers
//! and of instances, the layer unpacker, the image puller and an instance's first process come first, because they must
//! run single-threaded.

mod aws;
mod cli;
mod commands;
mod data_directory;
mod demo;
mod front_door;
mod launcher;
mod logging;
mod platform;
mod publish;
mod supervisor;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = runtime::dispatch(std::env::args_os()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    if let Some(code) = host::dispatch(std::env::args_os()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == "guest-init") {
        return ExitCode::from(u8::try_from(guest::init()).unwrap_or(1));
    }
    cli::run()
}
