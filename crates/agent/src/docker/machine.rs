//! What this machine's Docker Engine can do, and what has to be there on the machine before the first task: the way to
//! the task metadata and credentials endpoints.
//!
//! As `ecs-init` has it: 169.254.170.2:80 is led to the agent's port, for containers on Docker's bridge and in the
//! machine's own network. Where `ecs-init` leads to the loopback, which takes a kernel parameter that an agent in a
//! container cannot set, here the agent also listens at the bridge's own address; nobody else gets there.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use domain::network::names::digits as six;
use plumbing::nft;
use runtime::{Group, Limits};
use serde::Deserialize;
use tokio::net::TcpListener;

use super::api;
use super::client::{Client, EngineError, Version};
use crate::config::Config;
use crate::host::Settings;
use crate::identity::Offer;
use crate::metadata::PORT;

/// How long Amazon's agent keeps the containers of a task that ended.
const CLEANUP_WAIT: Duration = Duration::from_secs(3 * 3600);
/// How Amazon names what an engine of a version can do.
const REMOTE_API: &str = "com.amazonaws.ecs.capability.docker-remote-api.";
/// A task in the machine's own network has a role too.
const HOST_MODE_ROLE: &str = "com.amazonaws.ecs.capability.task-iam-role-network-host";

/// An engine and the machine it is on.
pub struct Machine {
    /// The engine.
    pub client: Client,
    /// Whether tasks have a cgroup of their own.
    pub groups: bool,
    /// Where the metadata endpoints are listened at; empty if nobody could be led there.
    pub listeners: Vec<TcpListener>,
    /// Where ports that a definition leaves open come from, if the operator has a say.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// How long the containers of a task that ended are kept.
    pub cleanup_wait: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    cgroup_driver: String,
}

impl Machine {
    /// Finds the engine of `DOCKER_HOST`, and makes the machine ready.
    pub async fn prepare(settings: &Settings, config: &Config) -> Result<Machine, String> {
        let host = std::env::var("DOCKER_HOST").ok();
        let client = Client::connect(host.as_deref()).await?;
        let info: Info = client.get("/info").await.map_err(|error| error.to_string())?;
        let link = bridge(&client).await.map_err(|error| error.to_string())?;
        let listeners = match lead(&settings.platform, link).await {
            Ok(listeners) => listeners,
            Err(error) => {
                tracing::warn!(%error, "tasks cannot have roles nor ask for their metadata: give the agent the machine's network and NET_ADMIN");
                Vec::new()
            }
        };
        // With systemd as Docker's driver the groups are systemd's to make.
        let groups = info.cgroup_driver == "cgroupfs" && Group::create(&settings.cgroup(), &Limits::default()).is_ok();
        tracing::info!(engine = client.engine, groups, "found Docker Engine");
        Ok(Machine {
            client,
            groups,
            listeners,
            host_ports: config.host_ports.clone(),
            cleanup_wait: config.cleanup_wait.unwrap_or(CLEANUP_WAIT),
        })
    }

    /// Leaves of an offer what can be kept here.
    pub fn narrow(&self, offer: &mut Offer) {
        let roles = !self.listeners.is_empty();
        offer.attributes.retain(|(name, _)| can(name, self.client.newest, roles, self.groups));
        if roles {
            offer.attributes.push((HOST_MODE_ROLE.to_owned(), String::new()));
        }
        offer.runtime_version = Some(self.client.engine.clone());
    }
}

/// Whether an attribute of an instance with our own runtime is one here.
fn can(name: &str, engine: Version, roles: bool, groups: bool) -> bool {
    if let Some(version) = name.strip_prefix(REMOTE_API) {
        return Version::parse(version).is_some_and(|version| version <= engine);
    }
    match name {
        "ecs.capability.task-cpu-mem-limit" => groups,
        "com.amazonaws.ecs.capability.task-iam-role" => roles,
        // Of the machine's own, which would come twice.
        HOST_MODE_ROLE => false,
        // Docker finds free ports one by one.
        "ecs.capability.container-port-range" => false,
        // A network interface for a task is made by our own runtime only.
        other => !other.starts_with("ecs.capability.task-eni"),
    }
}

/// The link of Docker's bridge; an engine may have none.
async fn bridge(client: &Client) -> Result<Option<String>, EngineError> {
    match client.get::<api::Network>("/networks/bridge").await {
        Ok(network) => Ok(network.options.get("com.docker.network.bridge.name").cloned()),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn lead(digits: &str, link: Option<String>) -> std::io::Result<Vec<TcpListener>> {
    let mut listeners = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await?];
    if let Some(link) = &link {
        listeners.push(TcpListener::bind((address_of(link)?, PORT)).await?);
    }
    let script = rules(digits, link.as_deref());
    tokio::task::spawn_blocking(move || nft::apply(&script)).await.map_err(std::io::Error::other)??;
    Ok(listeners)
}

/// The machine's own address on a link. Docker does not tell the one that it chose by itself.
fn address_of(link: &str) -> std::io::Result<Ipv4Addr> {
    let mut own = nix::ifaddrs::getifaddrs()?.filter(|one| one.interface_name == link);
    let address = own.find_map(|one| Some(one.address?.as_sockaddr_in()?.ip()));
    address.ok_or_else(|| std::io::Error::other(format!("{link}, Docker's bridge, is not in this network")))
}

/// The table of an agent's rules.
fn table(digits: &str) -> String {
    format!("ls_docker_{}", six(digits))
}

/// Everything that is to hold, as one script that replaces what was there.
fn rules(digits: &str, link: Option<&str>) -> String {
    let table = table(digits);
    let (mut guarded, mut led) = ("\"lo\"".to_owned(), String::new());
    // Docker's names of links are the kernel's; one with a quote in it would not be a name in nft's language.
    if let Some(link) = link.filter(|link| !link.contains('"')) {
        guarded.push_str(&format!(", \"{link}\""));
        led = format!("\t\tiifname \"{link}\" ip daddr 169.254.170.2 tcp dport 80 redirect to :{PORT}\n");
    }
    format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
	chain guard {{
		type filter hook input priority filter; policy accept;
		iifname != {{ {guarded} }} tcp dport {PORT} drop
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
{led}	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		ip daddr 169.254.170.2 tcp dport 80 redirect to :{PORT}
	}}
}}
"
    )
}

/// Takes the rules away; says what was done.
pub fn restore(digits: &str) -> std::io::Result<Vec<String>> {
    let table = table(digits);
    if !nft::tables().contains(&table) {
        return Ok(Vec::new());
    }
    nft::apply(&format!("delete table ip {table}\n"))?;
    Ok(vec![format!("nftables table ip {table}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_cannot_do_is_not_offered() {
        let old = Version(1, 30);
        for (name, expect) in [
            ("com.amazonaws.ecs.capability.docker-remote-api.1.29", true),
            ("com.amazonaws.ecs.capability.docker-remote-api.1.32", false),
            ("ecs.capability.task-eni", false),
            ("ecs.capability.task-eni-trunking", false),
            ("ecs.capability.task-cpu-mem-limit", false),
            ("ecs.capability.container-port-range", false),
            ("com.amazonaws.ecs.capability.task-iam-role", true),
            ("ecs.os-type", true),
        ] {
            assert_eq!(can(name, old, true, false), expect, "{name}");
        }
        assert!(!can("com.amazonaws.ecs.capability.task-iam-role", old, false, true));
    }

    #[test]
    fn an_address_is_the_kernels_to_tell() {
        assert_eq!(address_of("lo").expect("the loopback"), Ipv4Addr::LOCALHOST);
        assert!(address_of("docker-elsewhere").expect_err("none").to_string().starts_with("docker-elsewhere"));
    }

    #[test]
    fn only_the_machine_and_its_containers_are_led_to_the_agent() {
        let with = rules("a1b2c3", Some("docker0"));
        assert!(with.contains("iifname != { \"lo\", \"docker0\" } tcp dport 51679 drop"), "{with}");
        assert!(with.contains("iifname \"docker0\" ip daddr 169.254.170.2"), "{with}");
        let without = rules("a1b2c3", None);
        assert!(without.contains("iifname != { \"lo\" }") && !without.contains("docker0"), "{without}");
    }
}
