//! Log configurations: the drivers that there are, and their options.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html>

use std::collections::BTreeMap;

use api::ecs::LogConfiguration as Asked;
use domain::ecs::{ContainerDefinition, LogConfiguration};
use wire::ServiceError;

use crate::ecs::common::{Given, client, refuse, unsupported};

/// A log driver as the API knows it. What the agent does with it is in the agent's module of that name.
pub(in crate::ecs) struct LogDriver {
    pub(super) name: &'static str,
    /// The options that the agent acts on.
    options: &'static [&'static str],
    required_options: &'static [&'static str],
    /// Looks at the values of options that are all known and none of which is absent.
    check_values: fn(&BTreeMap<String, String>) -> Result<(), ServiceError>,
    /// Whether Fargate refuses it to a task definition without an execution role.
    pub(in crate::ecs) needs_execution_role: bool,
    /// What it requires of a container instance.
    pub(super) attributes: &'static [&'static str],
    /// What it requires besides when the task definition has an execution role.
    pub(super) execution_role_attribute: Option<&'static str>,
}

/// All of them.
const DRIVERS: [LogDriver; 1] = [LogDriver {
    name: "awslogs",
    options: &[
        "awslogs-create-group",
        "awslogs-datetime-format",
        "awslogs-group",
        "awslogs-multiline-pattern",
        "awslogs-region",
        "awslogs-stream-prefix",
        "max-buffer-size",
        "mode",
    ],
    required_options: &["awslogs-region", "awslogs-group", "awslogs-stream-prefix"],
    check_values: check_awslogs,
    needs_execution_role: true,
    attributes: &[
        "com.amazonaws.ecs.capability.logging-driver.awslogs",
        "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    ],
    execution_role_attribute: Some("ecs.capability.execution-role-awslogs"),
}];

/// A terabyte of log buffer is a typing error.
const MOST_BUFFER: u64 = 1_000_000_000_000;

/// The log driver of a container, if it has one.
pub(in crate::ecs) fn driver_of(container: &ContainerDefinition) -> Option<&'static LogDriver> {
    driver(&container.log_configuration.as_ref()?.log_driver)
}

fn driver(name: &str) -> Option<&'static LogDriver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

/// Checks a log configuration.
pub(super) fn check(asked: Asked) -> Result<LogConfiguration, ServiceError> {
    let Asked { log_driver, options, secret_options } = asked;
    refuse(&[("logConfiguration.secretOptions", secret_options.given())])?;
    let log_driver = log_driver.unwrap_or_default();
    let Some(driver) = driver(&log_driver) else {
        return Err(unsupported(&format!("logConfiguration.logDriver {log_driver}")));
    };
    let options = options.unwrap_or_default();
    if let Some(unknown) = options.keys().find(|name| !driver.options.contains(&name.as_str())) {
        return Err(unsupported(&format!("logConfiguration.options.{unknown}")));
    }
    let is_absent = |name: &&&str| options.get(**name).is_none_or(|value| value.is_empty());
    let absent: Vec<&str> = driver.required_options.iter().filter(is_absent).copied().collect();
    if !absent.is_empty() {
        return Err(client(format!("Log driver {log_driver} requires options: {}", absent.join(", "))));
    }
    (driver.check_values)(&options)?;
    Ok(LogConfiguration { log_driver, options })
}

fn check_awslogs(options: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    let wrong = |name: &str, value: &str| Err(client(format!("Invalid value for log option {name}: {value}")));
    for (name, value) in options {
        let right = match name.as_str() {
            "mode" => matches!(value.as_str(), "blocking" | "non-blocking"),
            "awslogs-create-group" => matches!(value.as_str(), "true" | "false"),
            "max-buffer-size" => buffer_size(value).is_some_and(|bytes| (1..MOST_BUFFER).contains(&bytes)),
            "awslogs-region" => value.parse::<domain::Region>().is_ok(),
            // One that cannot be read would only be found out on the host.
            "awslogs-multiline-pattern" => value.len() <= 512 && regex::Regex::new(value).is_ok(),
            _ => !value.is_empty() && value.len() <= 512,
        };
        if !right {
            return wrong(name, value);
        }
    }
    if options.contains_key("max-buffer-size") && options.get("mode").is_some_and(|mode| mode == "blocking") {
        return Err(client("The log option max-buffer-size is only supported with mode non-blocking."));
    }
    if options.contains_key("awslogs-datetime-format") && options.contains_key("awslogs-multiline-pattern") {
        return Err(client(
            "The log options awslogs-datetime-format and awslogs-multiline-pattern cannot be used together.",
        ));
    }
    Ok(())
}

/// Bytes from Docker's way of writing sizes: `25m`, `4096`, `1g`.
fn buffer_size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (digits, factor) = match text.chars().last()? {
        'k' => (text.strip_suffix('k')?, 1 << 10),
        'm' => (text.strip_suffix('m')?, 1 << 20),
        'g' => (text.strip_suffix('g')?, 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(more: &[(&str, &str)]) -> Asked {
        let base = [("awslogs-region", "us-east-1"), ("awslogs-group", "g"), ("awslogs-stream-prefix", "p")];
        let options = base.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Asked { log_driver: Some("awslogs".into()), options: Some(options), secret_options: None }
    }

    #[test]
    fn options_are_acted_on_or_refused() {
        let check =
            |more: &[(&str, &str)], right: bool| assert_eq!(super::check(asked(more)).is_ok(), right, "{more:?}");
        check(&[], true);
        check(&[("mode", "non-blocking"), ("max-buffer-size", "25m")], true);
        check(&[("mode", "sometimes")], false);
        check(&[("max-buffer-size", "-1")], false);
        check(&[("max-buffer-size", "1x")], false);
        check(&[("max-buffer-size", "2000g")], false);
        check(&[("awslogs-multiline-pattern", "^(ERROR|WARN)")], true);
        check(&[("awslogs-multiline-pattern", "(")], false);
        check(&[("mode", "blocking"), ("max-buffer-size", "1m")], false);
        check(&[("awslogs-datetime-format", "%Y"), ("awslogs-multiline-pattern", "^x")], false);
        check(&[("awslogs-endpoint", "http://x")], false);
        check(&[("awslogs-stream-prefix", "")], false);
    }

    #[test]
    fn the_driver_and_what_is_missing_are_named() {
        let refusal = super::check(Asked { log_driver: Some("splunk".into()), ..asked(&[]) }).unwrap_err();
        assert!(refusal.message().ends_with("logConfiguration.logDriver splunk"), "{}", refusal.message());
        let bare = Asked { options: None, ..asked(&[]) };
        assert!(super::check(bare).unwrap_err().message().contains("awslogs-stream-prefix"));
    }
}
