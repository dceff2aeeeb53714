//! Amazon's names in Rust's spelling.

/// Words whose capitals do not follow the usual split.
const WHOLE_WORDS: &[(&str, &str)] = &[
    ("IPv", "Ipv"),
    ("ARNs", "Arns"),
    ("IDs", "Ids"),
    ("URLs", "Urls"),
    ("CIDRs", "Cidrs"),
    ("AZs", "Azs"),
    ("IPs", "Ips"),
    ("ACLs", "Acls"),
    ("GPUs", "Gpus"),
    ("vCPUs", "Vcpus"),
    ("VCpu", "Vcpu"),
    ("vCpu", "Vcpu"),
    ("VCPU", "Vcpu"),
];

const KEYWORDS: &[&str] = &[
    "as", "async", "await", "box", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "false",
    "fn", "for", "gen", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return",
    "static", "struct", "super", "trait", "true", "try", "type", "unsafe", "use", "where", "while", "yield",
];

/// `taskDefinitionArn` and `VpcIPv6CIDRs` as `task_definition_arn` and `vpc_ipv6_cidrs`.
pub fn snake(name: &str) -> String {
    let mut name = name.replace(['-', '.', ':'], "_");
    for (from, to) in WHOLE_WORDS {
        name = name.replace(from, to);
    }
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (index, letter) in letters.iter().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            let before = letters[index - 1];
            let after = letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
            let starts = before.is_ascii_lowercase() || before.is_ascii_digit();
            if before != '_' && (starts || (before.is_ascii_uppercase() && after)) {
                out.push('_');
            }
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// The field name of a member: snake case, raw where it is a keyword.
pub fn field(name: &str) -> String {
    let name = snake(name);
    if KEYWORDS.contains(&name.as_str()) { format!("r#{name}") } else { name }
}

/// The name of a `static`.
pub fn screaming(name: &str) -> String {
    snake(name).to_ascii_uppercase()
}

/// The name of a type: the model's, with a capital first letter.
pub fn type_name(name: &str) -> String {
    capitalised(name)
}

/// The trait of a service: `application-autoscaling` as `ApplicationAutoscaling`.
pub fn trait_name(service: &str) -> String {
    service.split('-').map(capitalised).collect()
}

/// The same text with a capital first letter.
pub fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_like_rust() {
        for (from, to) in [
            ("taskDefinitionArn", "task_definition_arn"),
            ("DescribeVpcs", "describe_vpcs"),
            ("KMSKeyId", "kms_key_id"),
            ("SSLCertificateId", "ssl_certificate_id"),
            ("AssignIpv6AddressOnCreation", "assign_ipv6_address_on_creation"),
            ("LoadBalancerARNs", "load_balancer_arns"),
            ("CreateOpenIDConnectProvider", "create_open_id_connect_provider"),
            ("vpcId", "vpc_id"),
        ] {
            assert_eq!(snake(from), to);
        }
        assert_eq!(field("type"), "r#type");
        assert_eq!(trait_name("application-autoscaling"), "ApplicationAutoscaling");
    }
}
