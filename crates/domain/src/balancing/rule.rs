//! What a rule says: its conditions and its action. Matching them against a request is the balancer's business.

use serde::{Deserialize, Serialize};

use super::GroupStickiness;

/// One condition of a rule. All conditions of a rule must hold; one of a condition's values must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "field", rename_all = "kebab-case")]
pub enum Condition {
    /// The path of the URL, case-sensitive, with `*` and `?`.
    PathPattern {
        /// Patterns.
        values: Vec<String>,
    },
    /// The host name, not case-sensitive, with `*` and `?`.
    HostHeader {
        /// Patterns.
        values: Vec<String>,
    },
    /// A header's value, not case-sensitive, with `*` and `?`.
    HttpHeader {
        /// The header's name.
        name: String,
        /// Patterns.
        values: Vec<String>,
    },
    /// The method, exact and case-sensitive.
    HttpRequestMethod {
        /// Methods.
        values: Vec<String>,
    },
    /// A pair of the query string, not case-sensitive, with `*` and `?`; a backslash makes the next character literal.
    QueryString {
        /// Pairs.
        values: Vec<QueryMatch>,
    },
    /// The peer's address, as CIDR blocks. X-Forwarded-For is not looked at.
    SourceIp {
        /// CIDR blocks of IPv4 or IPv6.
        values: Vec<String>,
    },
}

impl Condition {
    /// The name of the field as in the API.
    pub fn field(&self) -> &'static str {
        match self {
            Self::PathPattern { .. } => "path-pattern",
            Self::HostHeader { .. } => "host-header",
            Self::HttpHeader { .. } => "http-header",
            Self::HttpRequestMethod { .. } => "http-request-method",
            Self::QueryString { .. } => "query-string",
            Self::SourceIp { .. } => "source-ip",
        }
    }

    /// How many values it compares with; the API bounds their sum per rule.
    pub fn value_count(&self) -> usize {
        match self {
            Self::PathPattern { values }
            | Self::HostHeader { values }
            | Self::HttpHeader { values, .. }
            | Self::HttpRequestMethod { values }
            | Self::SourceIp { values } => values.len(),
            Self::QueryString { values } => values.len(),
        }
    }
}

/// A pair looked for in the query string. Without a key, a value matches whatever its key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Pattern of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Pattern of the value.
    pub value: String,
}

/// What a rule does with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Action {
    /// To one of these target groups, in proportion to their weights.
    Forward {
        /// One to five groups.
        groups: Vec<WeightedTargetGroup>,
        /// Whether a client stays with its group.
        #[serde(default, skip_serializing_if = "GroupStickiness::is_default")]
        stickiness: GroupStickiness,
    },
    /// A redirect; each part may hold `#{protocol}`, `#{host}`, `#{port}`, `#{path}` and `#{query}` as Amazon allows.
    Redirect {
        /// `HTTP`, `HTTPS` or `#{protocol}`.
        protocol: String,
        /// Host name.
        host: String,
        /// `1` to `65535` or `#{port}`.
        port: String,
        /// Absolute path.
        path: String,
        /// Query without `?`.
        query: String,
        /// 301 or 302.
        status_code: u16,
    },
    /// A response made by the load balancer.
    FixedResponse {
        /// 2xx, 4xx or 5xx.
        status_code: u16,
        /// One of the five content types that Amazon allows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// At most 1,024 bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
}

impl Action {
    /// The target groups it forwards to.
    pub fn target_groups(&self) -> impl Iterator<Item = &str> {
        let groups = match self {
            Self::Forward { groups, .. } => groups.as_slice(),
            _ => &[],
        };
        groups.iter().map(|group| group.target_group.as_str())
    }
}

/// One of the target groups of a forward action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedTargetGroup {
    /// The target group's ARN.
    pub target_group: String,
    /// 0 to 999. A group of weight 0 gets nothing.
    pub weight: u16,
}
