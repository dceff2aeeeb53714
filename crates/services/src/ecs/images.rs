//! Which images are in this platform's own registry, and so need credentials of a role to be pulled.

use domain::{AccountId, Region};

use crate::Options;

/// The account and region of the registry that an image is in, if it is ours:
/// `{account}.dkr.ecr.{region}.amazonaws.com/…`, `{account}.dkr.ecr.{region}.localhost:{port}/…` or `localhost:{port}/…`.
pub(crate) fn ecr_registry(image: &str, options: &Options) -> Option<(AccountId, Region)> {
    let (host, _) = image.split_once('/')?;
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let own_port = port.parse() == Ok(options.listen.port());
    if matches!(name, "localhost" | "127.0.0.1") && own_port {
        return Some((options.account.clone(), options.region.clone()));
    }
    let (account, rest) = name.split_once(".dkr.ecr.")?;
    let region = match rest.strip_suffix(".amazonaws.com") {
        Some(region) if port.is_empty() => region,
        _ => rest.strip_suffix(".localhost")?,
    };
    Some((account.parse().ok()?, region.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_registry_has_three_names() {
        let options = Options {
            account: "123456789012".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            listen: "127.0.0.1:4580".parse().unwrap(),
            instance_id: "a1b2c3".into(),
            allow_load_balancer_updates: false,
            lost_instance_after: None,
        };
        let check = |image: &str, expect: Option<&str>| {
            let found = ecr_registry(image, &options).map(|(account, region)| format!("{account} {region}"));
            assert_eq!(found.as_deref(), expect, "{image}");
        };
        check("210987654321.dkr.ecr.eu-west-1.amazonaws.com/a/b:c", Some("210987654321 eu-west-1"));
        check("123456789012.dkr.ecr.us-east-1.localhost:4580/web", Some("123456789012 us-east-1"));
        check("localhost:4580/web@sha256:00", Some("123456789012 us-east-1"));
        check("localhost:5000/web", None);
        check("public.ecr.aws/nginx/nginx", None);
        check("nginx", None);
        check("x.dkr.ecr.us-east-1.amazonaws.com/a", None);
    }
}
