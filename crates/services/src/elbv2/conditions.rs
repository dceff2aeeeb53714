//! Rule conditions between the API's shapes and the nouns.

use api::elbv2::*;
use domain::balancing::{self, Cidr, QueryMatch};
use wire::ServiceError;

use super::names::{invalid, required, unsupported};

/// The most values of one rule's conditions.
const MAX_VALUES: usize = 5;

/// The most wildcards in one rule's conditions.
const MAX_WILDCARDS: usize = 6;

/// The conditions of a rule.
pub(super) fn parse(conditions: Option<Vec<RuleCondition>>) -> Result<Vec<balancing::Condition>, ServiceError> {
    let parsed: Vec<balancing::Condition> =
        conditions.unwrap_or_default().into_iter().map(one).collect::<Result<_, _>>()?;
    if parsed.is_empty() {
        return Err(invalid("A condition must be specified"));
    }
    for unique in ["path-pattern", "host-header", "http-request-method", "source-ip"] {
        if parsed.iter().filter(|condition| condition.field() == unique).count() > 1 {
            return Err(invalid(format!("A rule can have only one '{unique}' condition")));
        }
    }
    if parsed.iter().map(balancing::Condition::value_count).sum::<usize>() > MAX_VALUES {
        return Err(invalid(format!("A rule can have at most {MAX_VALUES} condition values")));
    }
    if parsed.iter().map(wildcards).sum::<usize>() > MAX_WILDCARDS {
        return Err(invalid(format!("A rule can have at most {MAX_WILDCARDS} condition wildcards")));
    }
    Ok(parsed)
}

fn one(condition: RuleCondition) -> Result<balancing::Condition, ServiceError> {
    let regex = condition.regex_values.is_some()
        || condition.host_header_config.as_ref().is_some_and(|config| config.regex_values.is_some())
        || condition.path_pattern_config.as_ref().is_some_and(|config| config.regex_values.is_some())
        || condition.http_header_config.as_ref().is_some_and(|config| config.regex_values.is_some());
    if regex {
        return Err(unsupported("RegexValues"));
    }
    let field = required(condition.field, "A condition field")?;
    let plain = condition.values;
    let parsed = match field.as_str() {
        "path-pattern" => {
            let values = values(&field, plain, condition.path_pattern_config.map(|config| config.values))?;
            check(&field, &values, path_character)?;
            balancing::Condition::PathPattern { values }
        }
        "host-header" => {
            let values = values(&field, plain, condition.host_header_config.map(|config| config.values))?;
            check(&field, &values, |c| c.is_ascii_alphanumeric() || "-.*?:".contains(c))?;
            balancing::Condition::HostHeader { values }
        }
        "http-header" => {
            let config = required(condition.http_header_config, "HttpHeaderConfig")?;
            let name = required(config.http_header_name, "A header name")?;
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || name.len() > 40 || !name.chars().all(token) || name.eq_ignore_ascii_case("host") {
                return Err(invalid(format!("The header name '{name}' is not valid for an http-header condition")));
            }
            let values = values(&field, plain, Some(config.values))?;
            check(&field, &values, |c| !c.is_control())?;
            balancing::Condition::HttpHeader { name, values }
        }
        "http-request-method" => {
            let values = values(&field, plain, condition.http_request_method_config.map(|config| config.values))?;
            let method = |value: &String| {
                (1..=40).contains(&value.len()) && value.chars().all(|c| c.is_ascii_uppercase() || c == '-' || c == '_')
            };
            match values.iter().find(|value| !method(value)) {
                Some(value) => return Err(invalid(format!("The method '{value}' is not valid"))),
                None => balancing::Condition::HttpRequestMethod { values },
            }
        }
        "query-string" => {
            let pairs = required(condition.query_string_config, "QueryStringConfig")?.values.unwrap_or_default();
            let pair = |pair: QueryStringKeyValuePair| {
                Ok(QueryMatch {
                    key: pair.key.filter(|key| !key.is_empty()),
                    value: required(pair.value, "A query value")?,
                })
            };
            let values: Vec<QueryMatch> = pairs.into_iter().map(pair).collect::<Result<_, ServiceError>>()?;
            if values.is_empty() {
                return Err(invalid("A query-string condition must have a value"));
            }
            let texts: Vec<String> =
                values.iter().flat_map(|pair| pair.key.iter().chain([&pair.value])).cloned().collect();
            check(&field, &texts, |c| !c.is_control())?;
            balancing::Condition::QueryString { values }
        }
        "source-ip" => {
            let config = condition.source_ip_config;
            if config.as_ref().is_some_and(|config| config.ip_address_type.is_some()) {
                return Err(unsupported("SourceIpConfig.IpAddressType"));
            }
            let values = values(&field, plain, config.map(|config| config.values))?;
            match values.iter().find(|value| value.parse::<Cidr>().is_err()) {
                Some(value) => return Err(invalid(format!("The source IP '{value}' must be in CIDR format"))),
                None => balancing::Condition::SourceIp { values },
            }
        }
        other => {
            return Err(invalid(format!(
                "Condition field '{other}' must be one of '[path-pattern, host-header, http-header, http-request-method, query-string, source-ip]'"
            )));
        }
    };
    Ok(parsed)
}

/// The values, which a request gives either as `Values` or within the field's own config.
fn values(
    field: &str,
    plain: Option<Vec<String>>,
    config: Option<Option<Vec<String>>>,
) -> Result<Vec<String>, ServiceError> {
    let (plain, config) = (plain.unwrap_or_default(), config.flatten().unwrap_or_default());
    if !plain.is_empty() && !config.is_empty() && plain != config {
        return Err(invalid(format!("You cannot specify both Values and the config of a '{field}' condition")));
    }
    let values = if config.is_empty() { plain } else { config };
    if values.is_empty() { Err(invalid(format!("A '{field}' condition must have a value"))) } else { Ok(values) }
}

fn path_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.$/~\"'@:+&()!,;=*?%".contains(c)
}

fn check(field: &str, values: &[String], allowed: impl Fn(char) -> bool) -> Result<(), ServiceError> {
    match values.iter().find(|value| value.is_empty() || value.len() > 128 || !value.chars().all(&allowed)) {
        Some(value) => Err(invalid(format!("The value '{value}' is not valid for a '{field}' condition"))),
        None => Ok(()),
    }
}

fn wildcards(condition: &balancing::Condition) -> usize {
    let count = |text: &String| text.matches(['*', '?']).count();
    match condition {
        balancing::Condition::PathPattern { values }
        | balancing::Condition::HostHeader { values }
        | balancing::Condition::HttpHeader { values, .. } => values.iter().map(count).sum(),
        balancing::Condition::QueryString { values } => {
            values.iter().map(|pair| pair.key.as_ref().map_or(0, count) + count(&pair.value)).sum()
        }
        balancing::Condition::HttpRequestMethod { .. } | balancing::Condition::SourceIp { .. } => 0,
    }
}

/// A condition as the API shows it.
pub(super) fn shape(condition: &balancing::Condition) -> RuleCondition {
    let mut shape = RuleCondition { field: Some(condition.field().into()), ..RuleCondition::default() };
    match condition {
        balancing::Condition::PathPattern { values } => {
            shape.values = Some(values.clone());
            shape.path_pattern_config = Some(PathPatternConditionConfig {
                values: Some(values.clone()),
                ..PathPatternConditionConfig::default()
            });
        }
        balancing::Condition::HostHeader { values } => {
            shape.values = Some(values.clone());
            shape.host_header_config = Some(HostHeaderConditionConfig {
                values: Some(values.clone()),
                ..HostHeaderConditionConfig::default()
            });
        }
        balancing::Condition::HttpHeader { name, values } => {
            shape.http_header_config = Some(HttpHeaderConditionConfig {
                http_header_name: Some(name.clone()),
                values: Some(values.clone()),
                ..HttpHeaderConditionConfig::default()
            });
        }
        balancing::Condition::HttpRequestMethod { values } => {
            shape.http_request_method_config = Some(HttpRequestMethodConditionConfig { values: Some(values.clone()) });
        }
        balancing::Condition::QueryString { values } => {
            let pair =
                |pair: &QueryMatch| QueryStringKeyValuePair { key: pair.key.clone(), value: Some(pair.value.clone()) };
            shape.query_string_config =
                Some(QueryStringConditionConfig { values: Some(values.iter().map(pair).collect()) });
        }
        balancing::Condition::SourceIp { values } => {
            shape.source_ip_config =
                Some(SourceIpConditionConfig { values: Some(values.clone()), ..SourceIpConditionConfig::default() });
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(field: &str, values: &[&str]) -> RuleCondition {
        RuleCondition {
            field: Some(field.into()),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            ..RuleCondition::default()
        }
    }

    #[test]
    fn what_is_shown_parses_to_the_same_again() {
        let conditions = vec![
            balancing::Condition::PathPattern { values: vec!["/a/*".into()] },
            balancing::Condition::HttpHeader { name: "X-A".into(), values: vec!["b".into()] },
            balancing::Condition::QueryString { values: vec![QueryMatch { key: None, value: "v".into() }] },
            balancing::Condition::SourceIp { values: vec!["10.0.0.0/8".into()] },
            balancing::Condition::HttpRequestMethod { values: vec!["GET".into()] },
        ];
        let shapes = conditions.iter().map(shape).collect();
        assert_eq!(parse(Some(shapes)).unwrap(), conditions);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |conditions: Vec<RuleCondition>| parse(Some(conditions)).is_err();
        assert!(refused(vec![]));
        assert!(refused(vec![plain("path-pattern", &[])]));
        assert!(refused(vec![plain("path-pattern", &["/a b"])]));
        assert!(refused(vec![plain("path-pattern", &["/a"]), plain("path-pattern", &["/b"])]));
        assert!(refused(vec![plain("host-header", &["1", "2", "3", "4", "5", "6"])]));
        assert!(refused(vec![plain("source-ip", &["10.0.0.1"])]));
        assert!(refused(vec![plain("http-request-method", &["get"])]));
        assert!(refused(vec![plain("cookie", &["x"])]));
        assert!(refused(vec![RuleCondition { regex_values: Some(vec!["x".into()]), ..plain("path-pattern", &["/"]) }]));
        assert!(!refused(vec![plain("path-pattern", &["/api/*", "/v?/x"])]));
    }
}
