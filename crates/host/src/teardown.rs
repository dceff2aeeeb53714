//! Removing everything of a platform from this machine, whatever state it is in and whoever left it there.

use std::{collections::BTreeMap, io, path::Path};

use domain::network::names;

use crate::{balancers, hosts, instances, netns, outside};

/// Where the platform's names may have been written.
const HOSTS_FILE: &str = "/etc/hosts";

/// Ends the instances, whose volumes stay, stops the load balancers' processes and removes the network namespaces, links, tables and rules of the platform.
/// Says what was removed; the second time that is nothing. `data_dir` is the platform's, as in [`crate::Config`]. `host`
/// must not be running.
pub fn teardown(platform: &str, data_dir: &Path) -> Result<Vec<String>, crate::Error> {
    let mut removed = instances::stop_instances(platform, data_dir);
    removed.extend(balancers::stop_all(data_dir));
    let mut failure: Option<io::Error> = None;
    for name in netns::list(&names::netns_prefix(platform))? {
        match netns::remove(&Path::new(names::NETNS_DIRECTORY).join(&name)) {
            Ok(()) => removed.push(format!("network namespace {name}")),
            Err(error) => failure = Some(error),
        }
    }
    removed.extend(outside::remove(platform)?);
    let file = Path::new(HOSTS_FILE);
    if hosts::update(file, platform, &BTreeMap::new())? {
        removed.push(format!("the platform's lines in {HOSTS_FILE}"));
    }
    match failure {
        // What could be removed is removed; the rest must not pass unnoticed.
        Some(error) => Err(error.into()),
        None => Ok(removed),
    }
}
