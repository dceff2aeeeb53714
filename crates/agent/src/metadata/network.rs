//! What passed through a task's network interfaces, read inside its network namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// The counters of one interface, with Docker's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Of those, damaged.
    pub rx_errors: u64,
    /// Of those, thrown away.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Of those, not sent.
    pub tx_errors: u64,
    /// Of those, thrown away.
    pub tx_dropped: u64,
}

/// The counters of every interface but the loopback. Takes a thread, since entering a namespace changes one for good.
pub fn read(netns: &Path) -> io::Result<BTreeMap<String, Counters>> {
    let namespace = File::open(netns)?;
    let read = move || -> io::Result<String> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        fs::read_to_string("/proc/thread-self/net/dev")
    };
    let text = std::thread::spawn(read).join().map_err(|_| io::Error::other("the namespace's thread panicked"))??;
    Ok(parse(&text))
}

fn parse(text: &str) -> BTreeMap<String, Counters> {
    let lines = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, numbers)| {
            let numbers: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
            let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, rest @ ..] = numbers.as_slice() else {
                return None;
            };
            let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = rest else { return None };
            let counters = Counters {
                rx_bytes: *rx_bytes,
                rx_packets: *rx_packets,
                rx_errors: *rx_errors,
                rx_dropped: *rx_dropped,
                tx_bytes: *tx_bytes,
                tx_packets: *tx_packets,
                tx_errors: *tx_errors,
                tx_dropped: *tx_dropped,
            };
            Some((name.trim().to_owned(), counters)).filter(|(name, _)| name != "lo")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_as_the_kernel_writes_them() {
        let text = "Inter-|   Receive                                                |  Transmit\n\
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
             \x20   lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n\
             \x20 eth0:    1500      10    1    2    0     0          0         0      300       4    5    6    0     0       0          0\n";
        let counters = parse(text);
        assert_eq!(counters.keys().collect::<Vec<_>>(), ["eth0"]);
        let expected = Counters {
            rx_bytes: 1500,
            rx_packets: 10,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 300,
            tx_packets: 4,
            tx_errors: 5,
            tx_dropped: 6,
        };
        assert_eq!(counters.get("eth0"), Some(&expected));
    }

    #[test]
    fn the_own_namespace_can_be_read() {
        // Entering a namespace takes root, which is what the agent is.
        if nix::unistd::geteuid().is_root() {
            read(Path::new("/proc/self/ns/net")).expect("readable");
        }
    }
}
