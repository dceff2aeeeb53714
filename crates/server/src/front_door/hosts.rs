//! Which host names the control plane answers to. A page in a browser can make it send requests to loopback; with a
//! host name of its own (DNS rebinding) or a foreign origin it gets nothing.

use std::net::{IpAddr, SocketAddr};

use http::{Request, header};

/// Names, with everything below them, that lead here.
const DOMAINS: [&str; 4] = ["localhost", "amazonaws.com", "amazonaws.com.cn", "longshore.internal"];

/// The request's host name without its port, if it is one of ours and the request comes from no foreign page.
pub fn check<B>(request: &Request<B>, listen: &SocketAddr) -> Result<String, &'static str> {
    let host = match (request.uri().authority(), request.headers().get(header::HOST)) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| "The Host header is not text.")?,
        (None, None) => return Err("The request has no Host header."),
    };
    let name = without_port(host);
    if !is_ours(name, listen) {
        return Err("The Host header names another host. Use the address that longshore printed, or localhost.");
    }
    let origin = request.headers().get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let foreign = origin.is_some_and(|origin| {
        let place = origin.split_once("://").map_or("", |(_, place)| place);
        !place.eq_ignore_ascii_case(host)
    });
    if foreign {
        return Err("Requests from pages of another origin are refused.");
    }
    Ok(name.to_ascii_lowercase())
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host, |(name, _)| name),
    }
}

fn is_ours(name: &str, listen: &SocketAddr) -> bool {
    if let Ok(address) = name.parse::<IpAddr>() {
        let link_local = matches!(address, IpAddr::V4(address) if address.is_link_local());
        return address.is_loopback() || address == listen.ip() || link_local || listen.ip().is_unspecified();
    }
    let name = name.to_ascii_lowercase();
    DOMAINS.iter().any(|domain| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, origin: Option<&str>) -> Option<String> {
        let mut request = Request::builder().uri("/").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        check(&request.body(()).unwrap(), &"127.0.0.1:4580".parse().unwrap()).ok()
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let ours = [
            ("127.0.0.1:4580", "127.0.0.1"),
            ("localhost", "localhost"),
            ("[::1]:4580", "::1"),
            ("169.254.169.252:4580", "169.254.169.252"),
            ("123456789012.dkr.ecr.eu-west-1.localhost:4580", "123456789012.dkr.ecr.eu-west-1.localhost"),
            ("ECS.us-east-1.amazonaws.com", "ecs.us-east-1.amazonaws.com"),
        ];
        for (given, name) in ours {
            assert_eq!(host(given, None).as_deref(), Some(name));
        }
        for foreign in ["evil.example", "10.0.0.1", "localhost.evil.example", "notlocalhost", "xamazonaws.com"] {
            assert_eq!(host(foreign, None), None, "{foreign}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        assert!(host("localhost:4580", Some("http://localhost:4580")).is_some());
        assert!(host("localhost:4580", Some("http://localhost:8080")).is_none());
        assert!(host("localhost:4580", Some("https://evil.example")).is_none());
        assert!(host("localhost:4580", Some("null")).is_none());
    }
}
