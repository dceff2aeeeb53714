//! Rule conditions compiled for matching against requests.

use std::net::IpAddr;

use domain::balancing::{self as nouns, Cidr};
use http::{HeaderMap, HeaderName, Method};

use crate::pattern::{Case, Pattern};

/// What conditions look at.
#[derive(Debug)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it came, not decoded.
    pub path: &'a str,
    /// The query as it came, without `?`.
    pub query: Option<&'a str>,
    /// The host name without port.
    pub host: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The peer.
    pub source: IpAddr,
}

/// A compiled condition.
#[derive(Debug)]
pub enum Condition {
    /// Path patterns.
    Path(Vec<Pattern>),
    /// Host patterns.
    Host(Vec<Pattern>),
    /// A header and patterns of its value.
    Header(HeaderName, Vec<Pattern>),
    /// Methods.
    Method(Vec<String>),
    /// Patterns of a key, where one is asked for, and of its value.
    Query(Vec<(Option<Pattern>, Pattern)>),
    /// Blocks of peers.
    Source(Vec<Cidr>),
    /// A condition that nothing fulfils, because it is malformed. The API lets none through.
    Never,
}

impl Condition {
    /// Compiles a condition.
    pub fn compile(condition: &nouns::Condition) -> Self {
        let patterns = |values: &[String], case| values.iter().map(|text| Pattern::new(text, case, false)).collect();
        match condition {
            nouns::Condition::PathPattern { values } => Self::Path(patterns(values, Case::Sensitive)),
            nouns::Condition::HostHeader { values } => Self::Host(patterns(values, Case::Ignored)),
            nouns::Condition::HttpHeader { name, values } => match name.parse() {
                Ok(name) => Self::Header(name, patterns(values, Case::Ignored)),
                Err(_) => Self::Never,
            },
            nouns::Condition::HttpRequestMethod { values } => Self::Method(values.clone()),
            nouns::Condition::QueryString { values } => {
                let pattern = |text: &str| Pattern::new(text, Case::Ignored, true);
                Self::Query(
                    values.iter().map(|pair| (pair.key.as_deref().map(pattern), pattern(&pair.value))).collect(),
                )
            }
            nouns::Condition::SourceIp { values } => {
                Self::Source(values.iter().filter_map(|block| block.parse().ok()).collect())
            }
        }
    }

    /// Whether the request fulfils it.
    pub fn holds(&self, request: &RequestView<'_>) -> bool {
        let any = |patterns: &[Pattern], text: &[u8]| patterns.iter().any(|pattern| pattern.matches(text));
        match self {
            Self::Path(patterns) => any(patterns, request.path.as_bytes()),
            Self::Host(patterns) => any(patterns, request.host.as_bytes()),
            Self::Header(name, patterns) => {
                request.headers.get_all(name).iter().any(|value| any(patterns, value.as_bytes()))
            }
            Self::Method(methods) => methods.iter().any(|method| method == request.method.as_str()),
            Self::Query(wanted) => query_pairs(request.query.unwrap_or_default()).any(|(key, value)| {
                wanted.iter().any(|(want_key, want_value)| {
                    want_key.as_ref().is_none_or(|pattern| pattern.matches(key.as_bytes()))
                        && want_value.matches(value.as_bytes())
                })
            }),
            Self::Source(blocks) => blocks.iter().any(|block| block.contains(request.source)),
            Self::Never => false,
        }
    }
}

/// The pairs of a query string; a part without `=` is a key with an empty value.
fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
}

#[cfg(test)]
mod tests {
    use domain::balancing::QueryMatch;
    use http::HeaderValue;

    use super::*;

    fn check(condition: nouns::Condition) -> bool {
        let mut headers = HeaderMap::new();
        headers.append("user-agent", HeaderValue::from_static("Mozilla/5.0 Chrome/100"));
        headers.append("x-kind", HeaderValue::from_static("first"));
        headers.append("x-kind", HeaderValue::from_static("Second"));
        Condition::compile(&condition).holds(&RequestView {
            method: &Method::POST,
            path: "/Shop/cart",
            query: Some("a=1&Flag&text=x*y"),
            host: "www.Example.com",
            headers: &headers,
            source: IpAddr::from([10, 1, 2, 3]),
        })
    }

    fn values(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn each_field_looks_at_its_part_of_the_request() {
        assert!(check(nouns::Condition::PathPattern { values: values(&["/x", "/Shop/*"]) }));
        assert!(!check(nouns::Condition::PathPattern { values: values(&["/shop/*"]) }));
        assert!(check(nouns::Condition::HostHeader { values: values(&["*.EXAMPLE.com"]) }));
        assert!(!check(nouns::Condition::HostHeader { values: values(&["example.com"]) }));
        let header =
            |name: &str, value: &str| nouns::Condition::HttpHeader { name: name.into(), values: values(&[value]) };
        assert!(check(header("User-Agent", "*chrome*")) && check(header("X-Kind", "second")));
        assert!(!check(header("x-kind", "third")) && !check(header("none", "*")) && !check(header("bad name", "*")));
        assert!(check(nouns::Condition::HttpRequestMethod { values: values(&["GET", "POST"]) }));
        assert!(!check(nouns::Condition::HttpRequestMethod { values: values(&["post"]) }));
        assert!(check(nouns::Condition::SourceIp { values: values(&["192.0.2.0/24", "10.0.0.0/8"]) }));
        assert!(!check(nouns::Condition::SourceIp { values: values(&["10.2.0.0/16"]) }));
    }

    #[test]
    fn query_conditions_look_at_pairs() {
        let query = |key: Option<&str>, value: &str| nouns::Condition::QueryString {
            values: vec![QueryMatch { key: key.map(str::to_owned), value: value.to_owned() }],
        };
        assert!(check(query(Some("a"), "1")) && check(query(None, "1")) && check(query(Some("FLAG"), "")));
        assert!(check(query(Some("text"), r"x\*y")) && !check(query(Some("a"), r"\*")));
        assert!(!check(query(Some("a"), "2")) && !check(query(Some("b"), "*")));
    }
}
