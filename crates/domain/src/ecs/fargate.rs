//! The sizes that a Fargate task can have, and how CPU and memory are written.
//! Mirrors <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>.

/// What services show that were given no platform version.
pub const LATEST: &str = "LATEST";

/// The latest platform version, which `LATEST` means.
pub const PLATFORM_VERSION: &str = "1.4.0";

/// The operating system shown for it.
pub const PLATFORM_FAMILY: &str = "Linux";

/// The only capability that a container can have besides the usual ones.
pub const ADDABLE_CAPABILITY: &str = "SYS_PTRACE";

/// A CPU size with the memory sizes that go with it: smallest, largest and step in MiB. 256 CPU units have a row of
/// their own below, since 512 MiB goes with them too.
const SIZES: [(u32, u32, u32, u32); 6] = [
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];

/// Whether Fargate has this combination of CPU units and MiB.
pub fn is_size(cpu: u32, memory: u32) -> bool {
    if cpu == 256 {
        return [512, 1024, 2048].contains(&memory);
    }
    SIZES.iter().any(|&(units, least, most, step)| {
        units == cpu && (least..=most).contains(&memory) && (memory - least).is_multiple_of(step)
    })
}

/// CPU units from `256`, `.25 vCPU` or `0.25 vcpu`.
pub fn parse_cpu(text: &str) -> Option<u32> {
    scaled(text, "vcpu")
}

/// MiB from `512`, `0.5GB` or `0.5 GB`.
pub fn parse_memory(text: &str) -> Option<u32> {
    scaled(text, "gb")
}

fn scaled(text: &str, unit: &str) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    match text.strip_suffix(unit) {
        None => text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit())),
        Some(number) => thousandths(number.trim()).and_then(|thousandths| {
            let units = u64::from(thousandths) * 1024;
            units.is_multiple_of(1000).then_some(units / 1000).and_then(|units| u32::try_from(units).ok())
        }),
    }
}

/// A decimal number of at most three places, in thousandths. No floating point: sizes are compared exactly.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_amazons() {
        for (cpu, memory) in [(256, 512), (256, 2048), (512, 4096), (1024, 2048), (4096, 30_720), (16_384, 122_880)] {
            assert!(is_size(cpu, memory), "{cpu} {memory}");
        }
        for (cpu, memory) in
            [(256, 4096), (256, 1536), (512, 512), (512, 1536), (128, 512), (8192, 17_408), (0, 0), (4096, 31_744)]
        {
            assert!(!is_size(cpu, memory), "{cpu} {memory}");
        }
    }

    #[test]
    fn sizes_are_written_in_units_or_with_a_unit() {
        let cpu = |text: &str, expect: Option<u32>| assert_eq!(parse_cpu(text), expect, "{text}");
        cpu("256", Some(256));
        cpu(".25 vCPU", Some(256));
        cpu("0.25vcpu", Some(256));
        cpu("16 vCPU", Some(16_384));
        cpu("0.3 vCPU", None);
        cpu("-1", None);
        cpu("+1", None);
        cpu("", None);
        cpu("vCPU", None);
        cpu("99999999999", None);
        let memory = |text: &str, expect: Option<u32>| assert_eq!(parse_memory(text), expect, "{text}");
        memory("512", Some(512));
        memory("0.5GB", Some(512));
        memory("30 GB", Some(30_720));
        memory("1.5.0GB", None);
        memory("5e1", None);
    }
}
