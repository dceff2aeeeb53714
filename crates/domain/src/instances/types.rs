//! The instance types on offer: Amazon's figures for those of the machine's own architecture.
//!
//! vCPUs and memory are limits of the system container that stands for an instance. Figures:
//! <https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html>.

use std::{collections::HashMap, sync::LazyLock};

/// The machine's architecture as EC2 names it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };

/// An instance type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// E.g. `t3.micro`.
    pub name: String,
    /// Its processors.
    pub vcpus: u32,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Network interfaces that it can have.
    pub max_interfaces: u32,
    /// IPv4 addresses that each of them can have.
    pub addresses_per_interface: u32,
    /// Processors that share a core.
    pub threads_per_core: u32,
    /// Whether Amazon gives its processor time by credits.
    pub burstable: bool,
    /// `nitro` or `xen`.
    pub hypervisor: &'static str,
}

/// One size: its name, vCPUs, memory in MiB, interfaces, and addresses of each.
type Size = (&'static str, u32, u64, u32, u32);

const T2: &[Size] = &[
    ("nano", 1, 512, 2, 2),
    ("micro", 1, 1024, 2, 2),
    ("small", 1, 2048, 3, 4),
    ("medium", 2, 4096, 3, 6),
    ("large", 2, 8192, 3, 12),
    ("xlarge", 4, 16384, 3, 15),
    ("2xlarge", 8, 32768, 3, 15),
];
const T3: &[Size] = &[
    ("nano", 2, 512, 2, 2),
    ("micro", 2, 1024, 2, 2),
    ("small", 2, 2048, 3, 4),
    ("medium", 2, 4096, 3, 6),
    ("large", 2, 8192, 3, 12),
    ("xlarge", 4, 16384, 4, 15),
    ("2xlarge", 8, 32768, 4, 15),
];
const T3A: &[Size] = &[
    ("nano", 2, 512, 2, 2),
    ("micro", 2, 1024, 2, 2),
    ("small", 2, 2048, 2, 4),
    ("medium", 2, 4096, 3, 6),
    ("large", 2, 8192, 3, 12),
    ("xlarge", 4, 16384, 4, 15),
    ("2xlarge", 8, 32768, 4, 15),
];

/// A family whose memory is so many GiB for each vCPU, and its sizes.
type Family = (&'static str, u64, &'static [&'static str]);

const X86: &[Family] = &[
    ("m5", 4, &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"]),
    ("m6i", 4, &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "32xlarge"]),
    ("m7i", 4, &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "48xlarge"]),
    ("c5", 2, &["large", "xlarge", "2xlarge", "4xlarge", "9xlarge", "12xlarge", "18xlarge", "24xlarge"]),
    ("c6i", 2, &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "32xlarge"]),
    ("c7i", 2, &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "48xlarge"]),
    ("r5", 8, &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"]),
    ("r6i", 8, &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "32xlarge"]),
];
const GRAVITON: &[&str] = &["medium", "large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge"];
const ARM: &[Family] = &[
    ("m6g", 4, GRAVITON),
    ("m7g", 4, GRAVITON),
    ("c6g", 2, GRAVITON),
    ("c7g", 2, GRAVITON),
    ("r6g", 8, GRAVITON),
    ("r7g", 8, GRAVITON),
];

/// vCPUs, interfaces and addresses of each, by size: the same in all families of [`X86`] and [`ARM`].
fn of_size(size: &str) -> (u32, u32, u32) {
    match size {
        "medium" => (1, 2, 4),
        "large" => (2, 3, 10),
        "xlarge" => (4, 4, 15),
        "2xlarge" => (8, 4, 15),
        _ => {
            let times: u32 = size.trim_end_matches("xlarge").parse().unwrap_or(1);
            if times < 16 { (times * 4, 8, 30) } else { (times * 4, 15, 50) }
        }
    }
}

/// All types on offer for an architecture (`x86_64` or `arm64`), in the order of their families.
fn of_architecture(architecture: &str) -> Vec<InstanceType> {
    let arm = architecture == "arm64";
    let burstable: &[(&str, &[Size])] = if arm { &[("t4g", T3)] } else { &[("t2", T2), ("t3", T3), ("t3a", T3A)] };
    let families = if arm { ARM } else { X86 };
    let credited = burstable.iter().flat_map(|(family, sizes)| {
        sizes.iter().map(move |(size, vcpus, memory_mib, interfaces, addresses)| InstanceType {
            name: format!("{family}.{size}"),
            vcpus: *vcpus,
            memory_mib: *memory_mib,
            max_interfaces: *interfaces,
            addresses_per_interface: *addresses,
            threads_per_core: if arm || *family == "t2" { 1 } else { 2 },
            burstable: true,
            hypervisor: if *family == "t2" { "xen" } else { "nitro" },
        })
    });
    let steady = families.iter().flat_map(|(family, gib_per_vcpu, sizes)| {
        sizes.iter().map(move |size| {
            let (vcpus, max_interfaces, addresses_per_interface) = of_size(size);
            InstanceType {
                name: format!("{family}.{size}"),
                vcpus,
                memory_mib: u64::from(vcpus) * gib_per_vcpu * 1024,
                max_interfaces,
                addresses_per_interface,
                threads_per_core: if arm { 1 } else { 2 },
                burstable: false,
                hypervisor: "nitro",
            }
        })
    });
    credited.chain(steady).collect()
}

/// All types on offer on this machine.
pub fn instance_types() -> Vec<InstanceType> {
    of_architecture(ARCHITECTURE)
}

/// The type of this name, if it is on offer.
pub fn instance_type(name: &str) -> Option<InstanceType> {
    instance_types().into_iter().find(|known| known.name == name)
}

/// The network interfaces that a type can have, without making the whole list: placement asks again and again.
pub fn max_interfaces(name: &str) -> Option<u32> {
    static KNOWN: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
        let all = ["x86_64", "arm64"].into_iter().flat_map(of_architecture);
        all.map(|kind| (kind.name, kind.max_interfaces)).collect()
    });
    KNOWN.get(name).copied()
}

/// The type that RunInstances takes when it is told none: Amazon's oldest, `m1.small`, is long gone.
pub fn default_instance_type() -> &'static str {
    if ARCHITECTURE == "arm64" { "t4g.micro" } else { "t3.micro" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(architecture: &str, name: &str) -> (u32, u64, u32, u32) {
        let types = of_architecture(architecture);
        let found = types.iter().find(|known| known.name == name).unwrap_or_else(|| panic!("{name}"));
        (found.vcpus, found.memory_mib, found.max_interfaces, found.addresses_per_interface)
    }

    #[test]
    fn figures_are_amazons() {
        for (architecture, name, expected) in [
            ("x86_64", "t2.micro", (1, 1024, 2, 2)),
            ("x86_64", "t3.micro", (2, 1024, 2, 2)),
            ("x86_64", "t3a.small", (2, 2048, 2, 4)),
            ("x86_64", "m5.large", (2, 8192, 3, 10)),
            ("x86_64", "m5.24xlarge", (96, 393_216, 15, 50)),
            ("x86_64", "c5.9xlarge", (36, 73_728, 8, 30)),
            ("x86_64", "c5.18xlarge", (72, 147_456, 15, 50)),
            ("x86_64", "m7i.48xlarge", (192, 786_432, 15, 50)),
            ("x86_64", "r6i.32xlarge", (128, 1_048_576, 15, 50)),
            ("arm64", "t4g.nano", (2, 512, 2, 2)),
            ("arm64", "m6g.medium", (1, 4096, 2, 4)),
            ("arm64", "r6g.16xlarge", (64, 524_288, 15, 50)),
        ] {
            assert_eq!(figures(architecture, name), expected, "{name}");
        }
    }

    #[test]
    fn names_are_unique_and_the_default_is_on_offer() {
        let names: std::collections::BTreeSet<String> = instance_types().into_iter().map(|known| known.name).collect();
        assert_eq!(names.len(), instance_types().len());
        assert!(instance_type(default_instance_type()).is_some());
        assert!(instance_type("t3.huge").is_none());
        assert_eq!(
            ["t3.micro", "m5.large", "m6g.xlarge", "t3.huge"].map(max_interfaces),
            [Some(2), Some(3), Some(4), None]
        );
    }
}
