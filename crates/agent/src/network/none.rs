//! none mode: a namespace with nothing but a loopback. Nothing can reach the metadata endpoint from it, at Amazon
//! neither.

use domain::agent_protocol::docker::HostConfig;

use super::{Names, names};

/// Names without a network: its own, and those the definition adds.
pub fn names(hostname: String, host: &HostConfig) -> Names {
    let hosts = format!("127.0.0.1 localhost\n127.0.0.1 {hostname}\n{}", names::extra_hosts(host));
    Names { hosts, resolvers: names::resolv_conf(&host.dns_search, &host.dns, &[]), hostname }
}
