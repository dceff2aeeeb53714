//! The health check of a load balancer's instances: `HTTP:80/path` or `TCP:80`.

use api::elb::*;
use domain::balancing::{self, HealthCheckProtocol, Matcher, TargetGroup};
use wire::ServiceError;

use super::find::{self, invalid, unsupported};
use crate::Call;

/// The longest path of a check.
const MAX_PATH: usize = 1024;

/// How instances are checked unless told otherwise: whether a port takes connections.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/classic/elb-healthchecks.html>
pub(super) fn by_default(port: u16) -> balancing::HealthCheck {
    balancing::HealthCheck {
        protocol: HealthCheckProtocol::Tcp,
        port: Some(port),
        path: "/".into(),
        interval_seconds: 30,
        timeout_seconds: 5,
        healthy_threshold: 10,
        unhealthy_threshold: 2,
        // An HTTP check passes with 200 and nothing else.
        matcher: Matcher::default(),
    }
}

fn read(given: Option<HealthCheck>) -> Result<balancing::HealthCheck, ServiceError> {
    let HealthCheck { target, interval, timeout, unhealthy_threshold, healthy_threshold } = given.unwrap_or_default();
    let (protocol, port, path) = read_target(&target.unwrap_or_default())?;
    let number = |given: Option<i32>, name: &str, low: u32, high: u32| {
        let number = given.and_then(|given| u32::try_from(given).ok()).filter(|given| (low..=high).contains(given));
        number.ok_or_else(|| invalid(format!("HealthCheck {name} must be between {low} and {high}")))
    };
    let (interval, timeout) = (number(interval, "Interval", 5, 300)?, number(timeout, "Timeout", 2, 60)?);
    if timeout >= interval {
        return Err(invalid("HealthCheck Interval must be greater than HealthCheck Timeout"));
    }
    Ok(balancing::HealthCheck {
        protocol,
        port: Some(port),
        path,
        interval_seconds: interval,
        timeout_seconds: timeout,
        healthy_threshold: number(healthy_threshold, "HealthyThreshold", 2, 10)?,
        unhealthy_threshold: number(unhealthy_threshold, "UnhealthyThreshold", 2, 10)?,
        matcher: Matcher::default(),
    })
}

/// Protocol, port and path of `protocol:port/path`.
fn read_target(text: &str) -> Result<(HealthCheckProtocol, u16, String), ServiceError> {
    let wrong =
        |why: &str| invalid(format!("HealthCheck Target '{}' {why}", text.chars().take(64).collect::<String>()));
    let (protocol, rest) = text.split_once(':').ok_or_else(|| wrong("must be protocol:port"))?;
    let (port, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port > 0 && digits);
    let port = port.ok_or_else(|| wrong("must specify a port between 1 and 65535"))?;
    match protocol.to_ascii_uppercase().as_str() {
        "TCP" if path.is_empty() => Ok((HealthCheckProtocol::Tcp, port, "/".into())),
        "TCP" => Err(wrong("must not have a path with protocol TCP")),
        "HTTP" if path.is_empty() => Err(wrong("must specify a path with protocol HTTP")),
        "HTTP" if path.len() > MAX_PATH => Err(wrong("has too long a path")),
        "HTTP" if !path.bytes().all(|byte| byte.is_ascii_graphic()) => Err(wrong("has a path with invalid characters")),
        "HTTP" => Ok((HealthCheckProtocol::Http, port, path.to_owned())),
        secure @ ("HTTPS" | "SSL") => Err(unsupported(&format!("A health check with protocol '{secure}'"))),
        _ => Err(wrong("must have protocol TCP, HTTP, HTTPS or SSL")),
    }
}

pub(super) fn shape(check: &balancing::HealthCheck) -> HealthCheck {
    let port = check.port.unwrap_or_default();
    let target = match check.protocol {
        HealthCheckProtocol::Tcp => format!("TCP:{port}"),
        HealthCheckProtocol::Http => format!("HTTP:{port}{}", check.path),
        HealthCheckProtocol::Https => format!("HTTPS:{port}{}", check.path),
    };
    let number = |seconds: u32| i32::try_from(seconds).ok();
    HealthCheck {
        target: Some(target),
        interval: number(check.interval_seconds),
        timeout: number(check.timeout_seconds),
        unhealthy_threshold: number(check.unhealthy_threshold),
        healthy_threshold: number(check.healthy_threshold),
    }
}

pub(super) async fn configure(
    call: Call,
    input: ConfigureHealthCheckInput,
) -> Result<ConfigureHealthCheckOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let check = read(input.health_check)?;
    let shown = shape(&check);
    auth.transact(|tx| {
        find::load_balancer(tx, &arn)?;
        tx.update::<TargetGroup>(arn.as_str(), |group| group.health_check = check);
        Ok(())
    })
    .await?;
    Ok(ConfigureHealthCheckOutput { health_check: Some(shown) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_shown_as_they_were_given() {
        let shown = |target: &str| {
            let given = HealthCheck {
                target: Some(target.into()),
                interval: Some(30),
                timeout: Some(5),
                unhealthy_threshold: Some(2),
                healthy_threshold: Some(10),
            };
            read(Some(given)).map(|check| shape(&check).target.unwrap()).map_err(|error| error.message().to_owned())
        };
        for right in ["TCP:80", "HTTP:8080/", "HTTP:65535/a/b?c=d", "HTTP:1/:/x"] {
            assert_eq!(shown(right).as_deref(), Ok(right));
        }
        assert_eq!(shown("http:80/up").as_deref(), Ok("HTTP:80/up"));
        let wrong = [
            "",
            "80",
            "TCP:",
            "TCP:0",
            "TCP:65536",
            "TCP:+80",
            "TCP:80/",
            "HTTP:80",
            "HTTP:80/a b",
            "HTTPS:443/",
            "UDP:53",
        ];
        for wrong in wrong {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        assert!(shown("SSL:443").unwrap_err().contains("SSL"));
        assert_eq!(shape(&by_default(7)).target.as_deref(), Some("TCP:7"));
    }
}
