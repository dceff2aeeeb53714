//! How one of several target groups, and one of a group's targets, is chosen, and what keeps a client with its choice.
//! Mirrors <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/sticky-sessions.html>.

use serde::{Deserialize, Serialize};

/// `load_balancing.algorithm.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The targets take turns.
    #[default]
    RoundRobin,
    /// The target with the fewest requests in flight.
    LeastOutstandingRequests,
}

impl Algorithm {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastOutstandingRequests => "least_outstanding_requests",
        }
    }
}

/// `stickiness.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StickinessType {
    /// From the first response on.
    #[default]
    LbCookie,
    /// From the response on in which the target sets the application's cookie.
    AppCookie,
}

impl StickinessType {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LbCookie => "lb_cookie",
            Self::AppCookie => "app_cookie",
        }
    }
}

/// What keeps a client with one target of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stickiness {
    /// `stickiness.enabled`.
    pub enabled: bool,
    /// `stickiness.type`.
    pub kind: StickinessType,
    /// `stickiness.lb_cookie.duration_seconds`, 1 to 604800.
    pub lb_cookie_seconds: u32,
    /// `stickiness.app_cookie.cookie_name`; empty where there is none.
    pub app_cookie_name: String,
    /// `stickiness.app_cookie.duration_seconds`, 1 to 604800.
    pub app_cookie_seconds: u32,
}

impl Default for Stickiness {
    fn default() -> Self {
        Self {
            enabled: false,
            kind: StickinessType::LbCookie,
            lb_cookie_seconds: 86_400,
            app_cookie_name: String::new(),
            app_cookie_seconds: 86_400,
        }
    }
}

/// How a target group chooses among its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetChoice {
    /// `load_balancing.algorithm.type`.
    pub algorithm: Algorithm,
    /// `slow_start.duration_seconds`: 0, or 30 to 900. Never together with least outstanding requests.
    pub slow_start_seconds: u32,
    /// Sticky sessions.
    pub stickiness: Stickiness,
}

/// What keeps a client with one target group of a forward action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStickiness {
    /// Whether it does.
    pub enabled: bool,
    /// 1 to 604800; always there where it is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u32>,
}

impl GroupStickiness {
    /// For how long a client stays, if at all.
    pub fn duration(self) -> Option<u32> {
        self.duration_seconds.filter(|_| self.enabled)
    }

    /// Whether it is what it is when nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
