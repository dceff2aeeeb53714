//! The texts of `/etc/hosts` and `/etc/resolv.conf`, and what the machine's own say.

use std::net::IpAddr;

use domain::agent_protocol::docker::HostConfig;

/// Where systemd's resolver writes the servers it asks; `/etc/resolv.conf` then names only itself, on the loopback.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// What Docker falls back on where a machine has no resolver a container could reach.
const PUBLIC: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// `name:address` pairs of the definition as lines of `/etc/hosts`.
pub fn extra_hosts(host: &HostConfig) -> String {
    let pairs = host.extra_hosts.iter().filter_map(|extra| extra.split_once(':'));
    pairs.map(|(name, address)| format!("{address} {name}\n")).collect()
}

/// The text of a `resolv.conf`.
pub fn resolv_conf(search: &[String], servers: &[String], options: &[String]) -> String {
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// What a `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolvers {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolvers {
    fn parse(text: &str) -> Resolvers {
        let mut found = Resolvers::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect::<Vec<_>>();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().map(str::to_owned)),
                // The last one counts.
                Some("search" | "domain") => found.search = rest(words),
                Some("options") => found.options.extend(rest(words)),
                _ => {}
            }
        }
        found
    }

    /// The text for a container whose definition may have its own.
    pub fn resolv_conf(&self, host: &HostConfig) -> String {
        let search = if host.dns_search.is_empty() { &self.search } else { &host.dns_search };
        let servers = if host.dns.is_empty() { &self.servers } else { &host.dns };
        resolv_conf(search, servers, &self.options)
    }

    /// Without servers on the loopback, which in a container is its own. Docker's rule, with its fallback.
    fn reachable(mut self) -> Resolvers {
        self.servers.retain(|server| server.parse().is_ok_and(|address: IpAddr| !address.is_loopback()));
        if self.servers.is_empty() {
            self.servers = PUBLIC.map(str::to_owned).into();
        }
        self
    }
}

/// The machine's own.
pub fn read_resolvers() -> Resolvers {
    Resolvers::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// The machine's own, as far as they can be asked from another network namespace.
pub fn reachable_resolvers() -> Resolvers {
    let own = read_resolvers();
    let only_stub = own.servers.iter().all(|server| server == "127.0.0.53");
    match std::fs::read_to_string(BEHIND_STUB) {
        Ok(text) if only_stub => Resolvers::parse(&text).reachable(),
        _ => own.reachable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_loopback_are_left_out_for_containers_with_their_own() {
        let text = "# x\nsearch a.example b.example\nnameserver 127.0.0.1\nnameserver 10.0.0.2\noptions ndots:2\n";
        let found = Resolvers::parse(text);
        let none = HostConfig::default();
        assert_eq!(
            found.clone().reachable().resolv_conf(&none),
            "search a.example b.example\nnameserver 10.0.0.2\noptions ndots:2\n"
        );
        assert_eq!(Resolvers::default().reachable().resolv_conf(&none), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        let own = HostConfig { dns: vec!["1.1.1.1".into()], dns_search: vec!["c".into()], ..HostConfig::default() };
        assert_eq!(found.resolv_conf(&own), "search c\nnameserver 1.1.1.1\noptions ndots:2\n");
    }
}
