//! Removing everything of a platform from this machine, whatever state it is in and whoever left it there.

use std::{io, path::Path};

use domain::network::names;

use crate::{balancers, netns, outside};

/// Stops the load balancers' processes and removes the network namespaces, links, tables and rules of the platform.
/// Says what was removed; the second time that is nothing. `host` must not be running.
pub fn teardown(platform: &str, data_dir: &Path) -> Result<Vec<String>, crate::Error> {
    let mut removed = balancers::stop_all(data_dir);
    let mut failure: Option<io::Error> = None;
    for name in netns::list(&names::netns_prefix(platform))? {
        match netns::remove(&Path::new(names::NETNS_DIRECTORY).join(&name)) {
            Ok(()) => removed.push(format!("network namespace {name}")),
            Err(error) => failure = Some(error),
        }
    }
    removed.extend(outside::remove(platform)?);
    match failure {
        // What could be removed is removed; the rest must not pass unnoticed.
        Some(error) => Err(error.into()),
        None => Ok(removed),
    }
}
