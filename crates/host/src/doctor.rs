//! What this machine has and lacks for networks, each with how to mend it.

use std::{
    io,
    os::unix::fs::FileTypeExt,
    process::{Command, Stdio},
};

use crate::{
    netlink::{End, Netlink},
    netns, nft,
};

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// How to mend it; empty when it needs no mending.
    pub mend: &'static str,
}

/// Looks at everything the network needs. Changes nothing: what must be tried is tried in a network namespace of its
/// own that is gone afterwards.
pub fn doctor() -> Vec<Check> {
    vec![root(), nft_installed(), routing(), public_range(), forwarding(), volumes(), instances()]
}

fn check(name: &'static str, outcome: Result<String, String>, mend: &'static str) -> Check {
    match outcome {
        Ok(detail) => Check { name, ok: true, detail, mend: "" },
        Err(detail) => Check { name, ok: false, detail, mend },
    }
}

fn root() -> Check {
    let outcome =
        if nix::unistd::geteuid().is_root() { Ok("running as root".into()) } else { Err("not running as root".into()) };
    check("root", outcome, "run it with sudo")
}

fn nft_installed() -> Check {
    let version = Command::new("nft").arg("--version").stdin(Stdio::null()).output();
    let outcome = version
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .map_err(|error| format!("nft cannot be run: {error}"));
    check("nftables", outcome, "apt-get install nftables")
}

/// What EBS volumes are made with.
fn volumes() -> Check {
    let formats =
        Command::new("mkfs.ext4").arg("-V").env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").stdin(Stdio::null()).output();
    let control = std::fs::metadata("/dev/loop-control").is_ok_and(|node| node.file_type().is_char_device());
    let outcome = match formats {
        Err(error) => Err(format!("mkfs.ext4 cannot be run: {error}")),
        Ok(_) if !control => Err("there is no /dev/loop-control".to_owned()),
        Ok(_) => Ok("mkfs.ext4 and loop devices are there".to_owned()),
    };
    check(
        "volumes of instances",
        outcome,
        "apt-get install e2fsprogs; the kernel needs CONFIG_BLK_DEV_LOOP (modprobe loop)",
    )
}

/// Not a finding: what must be known before instances are given to people who are not trusted with the machine.
fn instances() -> Check {
    let detail = "local EC2 instances are system containers: root in one shares the machine's kernel and is not kept from \
                  the machine by a security boundary";
    check("isolation of instances", Ok(detail.to_owned()), "")
}

/// Tries in an empty namespace what a router needs.
fn routing() -> Check {
    let outcome = netns::on_thread(|| {
        netns::enter_new()?;
        let own = netns::current()?;
        let mut netlink = Netlink::open()?;
        netns::set_parameter("ipv4/ip_forward", "1")?;
        let (here, there) = (End { name: "a", mac: [10, 0, 0, 0, 0, 1] }, End { name: "b", mac: [10, 0, 0, 0, 0, 2] });
        let step = |what: &'static str| move |error: io::Error| io::Error::other(format!("{what}: {error}"));
        netlink.add_pair(&here, &there, std::os::fd::AsFd::as_fd(&own)).map_err(step("veth links"))?;
        nft::apply(
            "table inet t {\n map m { type ipv4_addr : verdict; }\n chain f { type filter hook forward priority filter; policy drop; \
             ct state established accept; ip saddr vmap @m; }\n chain n { type nat hook postrouting priority srcnat; masquerade; }\n}\n",
        )
        .map_err(step("nftables rules with connection tracking and translation"))
    });
    check(
        "network namespaces, veth, nftables",
        outcome.map(|()| "all work".to_owned()).map_err(|error| error.to_string()),
        "the kernel needs CONFIG_NET_NS, CONFIG_VETH, CONFIG_NF_TABLES_INET, CONFIG_NFT_CT and CONFIG_NFT_NAT",
    )
}

/// Whether the host routes the range that public addresses are taken from somewhere else.
fn public_range() -> Check {
    let range = domain::network::PUBLIC_RANGE;
    let addresses = Netlink::open().and_then(|mut netlink| {
        let ours: Vec<u32> =
            netlink.links()?.into_iter().filter(|link| link.name.starts_with("ls")).map(|link| link.index).collect();
        Ok(netlink.addresses()?.into_iter().filter(|(link, ..)| !ours.contains(link)).collect::<Vec<_>>())
    });
    let outcome = match addresses {
        Ok(addresses) => match addresses.iter().find(|(_, address, _)| range.contains(*address)) {
            Some((_, address, _)) => Err(format!("this machine has the address {address} within {range}")),
            None => Ok(format!("no other address of this machine is in {range}")),
        },
        Err(error) => Err(error.to_string()),
    };
    check("public addresses", outcome, "give the platform another public block")
}

/// A firewall that drops what is forwarded and that is neither iptables' FORWARD chain nor ours cannot be opened by us.
fn forwarding() -> Check {
    let rules = nft::list(&["list", "chains"]);
    let mut table = String::new();
    let mut foreign = Vec::new();
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {").to_owned();
        }
        let iptables = matches!(table.as_str(), "ip filter" | "ip6 filter");
        if line.contains("hook forward") && line.contains("policy drop") && !iptables {
            foreign.push(table.clone());
        }
    }
    let outcome = if foreign.is_empty() {
        Ok("nothing else decides on forwarded packets, or it lets our links be added".to_owned())
    } else {
        Err(format!("the nftables table {} drops forwarded packets", foreign.join(", ")))
    };
    check("forwarding", outcome, "let packets from and to links named ls* pass in that table's forward chain")
}
