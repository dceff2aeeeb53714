//! What a payload says in Docker's own words: two strings of JSON merged over Docker's `Config` and `HostConfig`.
//!
//! Members are Docker's (Go) names. Sizes are bytes and times nanoseconds, as Docker has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The two strings of JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerConfig {
    /// Docker API version this container needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// JSON of [`Config`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// JSON of [`HostConfig`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_config: Option<String>,
}

impl DockerConfig {
    /// Packs both.
    pub fn new(config: &Config, host_config: &HostConfig) -> DockerConfig {
        DockerConfig {
            version: Some("1.24".to_owned()),
            config: serde_json::to_string(config).ok(),
            host_config: serde_json::to_string(host_config).ok(),
        }
    }

    /// Reads the first; empty where absent.
    pub fn config(&self) -> Result<Config, serde_json::Error> {
        self.config.as_deref().map_or_else(|| Ok(Config::default()), serde_json::from_str)
    }

    /// Reads the second; empty where absent.
    pub fn host_config(&self) -> Result<HostConfig, serde_json::Error> {
        self.host_config.as_deref().map_or_else(|| Ok(HostConfig::default()), serde_json::from_str)
    }
}

/// Docker's `Config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    /// `user[:group]`; empty means the image's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Empty means the image's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Host name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Whether it has a terminal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Whether its standard input stays open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub open_stdin: bool,
}

/// Docker's health check; times in nanoseconds, 0 meaning the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// `["CMD", …]`, `["CMD-SHELL", "…"]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: i64,
    /// For one check.
    pub timeout: i64,
    /// Consecutive failures that make it unhealthy.
    pub retries: i64,
    /// Failures in this time after the start do not count.
    pub start_period: i64,
}

/// Docker's `HostConfig`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// The log driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_config: Option<LogConfig>,
    /// Capabilities to add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Whether it has every capability and device.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Whether its root file system cannot be written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly_rootfs: bool,
    /// Resource limits of its processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// `name:address` for `/etc/hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// Resolvers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes; 0 means the default.
    #[serde(skip_serializing_if = "is_zero")]
    pub shm_size: i64,
    /// Path → mount options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// Whether an init process reaps children and forwards signals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Soft limit in bytes; 0 means none.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_reservation: i64,
    /// Memory plus swap in bytes; 0 means unset.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_swap: i64,
    /// 0–100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    /// `bridge`, `host` or `none`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// SELinux, AppArmor and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A log driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// The driver.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its options.
    pub config: BTreeMap<String, String>,
}

/// A resource limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// Soft.
    pub soft: i64,
    /// Hard.
    pub hard: i64,
}
