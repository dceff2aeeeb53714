//! Security policies: which versions of TLS and which ciphers a load balancer speaks with its clients.
//!
//! Known here are those of Amazon's that need nothing older than TLS 1.2. Of their ciphers those with CBC, or without
//! forward secrecy, are not spoken: a policy is as strict as Amazon's or stricter, and shown as it is.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html>

/// A security policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SslPolicy {
    /// Amazon's name.
    pub name: &'static str,
    /// Whether it includes TLS 1.3.
    pub tls13: bool,
    /// Whether it includes TLS 1.2.
    pub tls12: bool,
}

/// TLS 1.3's ciphers, the preferred first.
const TLS13: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// TLS 1.2's ciphers, the preferred first.
const TLS12: [&str; 4] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
];

/// All that are known.
pub const POLICIES: [SslPolicy; 10] = [
    SslPolicy { name: "ELBSecurityPolicy-FS-1-2-2019-08", tls13: false, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-FS-1-2-Res-2019-08", tls13: false, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-FS-1-2-Res-2020-10", tls13: false, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-TLS-1-2-2017-01", tls13: false, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-TLS-1-2-Ext-2018-06", tls13: false, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-TLS13-1-2-2021-06", tls13: true, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06", tls13: true, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06", tls13: true, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-TLS13-1-2-Res-2021-06", tls13: true, tls12: true },
    SslPolicy { name: "ELBSecurityPolicy-TLS13-1-3-2021-06", tls13: true, tls12: false },
];

/// Amazon's policies that promise TLS 1.0 or 1.1, which is spoken nowhere here.
const OLD: [&str; 8] = [
    "ELBSecurityPolicy-2015-05",
    "ELBSecurityPolicy-2016-08",
    "ELBSecurityPolicy-FS-1-1-2019-08",
    "ELBSecurityPolicy-FS-2018-06",
    "ELBSecurityPolicy-TLS-1-0-2015-04",
    "ELBSecurityPolicy-TLS-1-1-2017-01",
    "ELBSecurityPolicy-TLS13-1-0-2021-06",
    "ELBSecurityPolicy-TLS13-1-1-2021-06",
];

impl SslPolicy {
    /// What a listener has that names none. Amazon's API takes one with TLS 1.0 then, its console this one.
    pub const DEFAULT: &str = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06";

    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        POLICIES.into_iter().find(|policy| policy.name == name)
    }

    /// Why one of Amazon's policies is not known here; none if it is not one of Amazon's either.
    pub fn why_not(name: &str) -> Option<&'static str> {
        if OLD.contains(&name) {
            return Some("it includes TLS 1.0 or 1.1");
        }
        let rest = name.strip_prefix("ELBSecurityPolicy-TLS13-")?;
        if rest.contains("-FIPS-") {
            return Some("it needs a cryptographic module that is validated for FIPS");
        }
        rest.contains("-PQ-").then_some("it includes post-quantum key exchange")
    }

    /// As DescribeSSLPolicies names them.
    pub fn protocols(&self) -> Vec<&'static str> {
        [(self.tls12, "TLSv1.2"), (self.tls13, "TLSv1.3")]
            .into_iter()
            .filter_map(|(included, name)| included.then_some(name))
            .collect()
    }

    /// The ciphers that are spoken, the preferred first.
    pub fn ciphers(&self) -> Vec<&'static str> {
        let newer = if self.tls13 { TLS13.as_slice() } else { &[] };
        let older = if self.tls12 { TLS12.as_slice() } else { &[] };
        newer.iter().chain(older).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_a_policy_or_to_a_reason() {
        assert!(SslPolicy::named(SslPolicy::DEFAULT).is_some());
        for policy in POLICIES {
            assert_eq!(SslPolicy::why_not(policy.name), None);
            assert!(!policy.ciphers().is_empty() && !policy.protocols().is_empty());
        }
        for old in OLD {
            assert!(SslPolicy::named(old).is_none() && SslPolicy::why_not(old).is_some());
        }
        assert!(SslPolicy::why_not("ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09").is_some());
        assert!(SslPolicy::why_not("ELBSecurityPolicy-TLS13-1-2-FIPS-2023-04").is_some());
        assert_eq!(SslPolicy::why_not("Mine"), None);
        let only13 = SslPolicy::named("ELBSecurityPolicy-TLS13-1-3-2021-06").unwrap();
        assert_eq!((only13.protocols(), only13.ciphers().len()), (vec!["TLSv1.3"], 3));
    }
}
