//! Types of EBS volumes: sizes, IOPS and throughput as Amazon's. They are kept and shown; the disk beneath is the
//! machine's.

use wire::ServiceError;

use super::common::invalid_value;

/// A volume's performance, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Performance {
    pub(super) volume_type: String,
    pub(super) iops: Option<u64>,
    pub(super) throughput: Option<u64>,
}

/// Checks a volume of this type and size (GiB), and fills in the type's defaults.
pub(super) fn check(
    volume_type: Option<&str>,
    size: u64,
    iops: Option<u64>,
    throughput: Option<u64>,
    default_type: &str,
) -> Result<Performance, ServiceError> {
    let kind = volume_type.unwrap_or(default_type);
    let sizes = match kind {
        "gp2" => 1..=16_384,
        "gp3" | "io2" => (if kind == "io2" { 4 } else { 1 })..=65_536,
        "io1" => 4..=16_384,
        "st1" | "sc1" => 125..=16_384,
        "standard" => 1..=1024,
        other => {
            let text = format!("Volume type '{other:.32}' is not valid.");
            return Err(ServiceError::new("InvalidParameterValue", text));
        }
    };
    if !sizes.contains(&size) {
        let why = format!("Volume size must be between {} and {} GiB for {kind}.", sizes.start(), sizes.end());
        return Err(invalid_value(&size.to_string(), "size", &why));
    }
    let most_iops = match kind {
        "gp3" => Some(3000..=80_000),
        "io1" => Some(100..=64_000),
        "io2" => Some(100..=256_000),
        _ => None,
    };
    match (iops, &most_iops) {
        (Some(_), None) => {
            let text = format!("The parameter iops is not supported for {kind} volumes.");
            return Err(ServiceError::new("InvalidParameterCombination", text));
        }
        (Some(iops), Some(range)) if !range.contains(&iops) => {
            let why = format!("It must be between {} and {} for {kind}.", range.start(), range.end());
            return Err(invalid_value(&iops.to_string(), "iops", &why));
        }
        (None, Some(_)) if kind != "gp3" => {
            let text = format!("The parameter iops must be specified for {kind} volumes.");
            return Err(ServiceError::new("MissingParameter", text));
        }
        _ => {}
    }
    match throughput {
        Some(_) if kind != "gp3" => {
            let text = format!("The parameter throughput is not supported for {kind} volumes.");
            return Err(ServiceError::new("InvalidParameterCombination", text));
        }
        Some(value) if !(125..=2000).contains(&value) => {
            return Err(invalid_value(&value.to_string(), "throughput", "It must be between 125 and 2000."));
        }
        _ => {}
    }
    Ok(Performance {
        iops: match kind {
            "gp3" => Some(iops.unwrap_or(3000)),
            "gp2" => Some((size * 3).clamp(100, 16_000)),
            _ => iops,
        },
        throughput: (kind == "gp3").then(|| throughput.unwrap_or(125)),
        volume_type: kind.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_amazons_defaults_and_limits() {
        let figures = |kind: Option<&str>, size, iops, throughput| {
            check(kind, size, iops, throughput, "gp3").map(|one| (one.iops, one.throughput)).ok()
        };
        assert_eq!(figures(None, 30, None, None), Some((Some(3000), Some(125))));
        assert_eq!(figures(Some("gp2"), 500, None, None), Some((Some(1500), None)));
        assert_eq!(figures(Some("gp2"), 500, Some(1), None), None);
        assert_eq!(figures(Some("io1"), 30, None, None), None);
        assert_eq!(figures(Some("io2"), 30, Some(1000), None), Some((Some(1000), None)));
        assert_eq!(figures(Some("st1"), 30, None, None), None);
        assert_eq!(figures(Some("gp3"), 0, None, None), None);
        assert_eq!(figures(Some("gp3"), 30, None, Some(9)), None);
        assert_eq!(figures(Some("floppy"), 1, None, None), None);
    }
}
