//! The command line of `longshore agent`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Runtime {
    /// Our own runtime.
    #[default]
    Own,
    /// Docker Engine.
    Docker,
}

/// A container instance of this host.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Without --fargate it is an external instance (launch type EXTERNAL) of a cluster of yours, with the keys in AWS_ACCESS_KEY_ID, \
AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or in AWS_SHARED_CREDENTIALS_FILE. It then also reads the variables of Amazon's agent \
(ECS_CLUSTER, ECS_RESERVED_MEMORY, ...) from its environment and from /etc/ecs/ecs.config; the flags here go before both.\n\n\
Examples:\n  longshore agent --cluster web --endpoint https://192.0.2.10:4580 --ca-bundle ca.pem --region eu-west-1\n  \
longshore agent --runtime docker --cluster web --endpoint https://192.0.2.10:4580 --ca-bundle ca.pem\n  \
longshore agent --fargate --endpoint http://127.0.0.1:4580 --data-dir longshore-data/agent --platform a1b2c3"
)]
pub struct Options {
    /// Run as a Fargate host: a container instance of the platform's hidden cluster.
    #[arg(long)]
    pub fargate: bool,
    /// Run as an EC2 instance: it knows itself, and has its keys, from the instance metadata service at 169.254.169.254.
    #[arg(long, conflicts_with_all = ["fargate", "external"])]
    pub ec2: bool,
    /// Run as an external instance: a machine of yours in a cluster of yours. This is what it does without --fargate.
    #[arg(long, conflicts_with = "fargate")]
    pub external: bool,
    /// What runs the containers: our own runtime, or this machine's Docker Engine at DOCKER_HOST (unix:///var/run/docker.sock when unset).
    #[arg(long, value_enum, default_value_t, env = "LONGSHORE_RUNTIME", conflicts_with = "fargate")]
    pub runtime: Runtime,
    /// Where the platform's API answers; else ECS_BACKEND_HOST, else http://127.0.0.1:4580.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Certificates (PEM) to trust besides the machine's own, such as the platform's `keys/ca.pem`.
    #[arg(long, value_name = "FILE", env = "AWS_CA_BUNDLE")]
    pub ca_bundle: Option<PathBuf>,
    /// The instance's region; else AWS_DEFAULT_REGION, else us-east-1.
    #[arg(long)]
    pub region: Option<String>,
    /// The cluster to join, by its name or ARN; else ECS_CLUSTER, else `default`. A Fargate host's is hidden.
    #[arg(long)]
    pub cluster: Option<String>,
    /// Where the agent keeps its state, images and tasks; else ECS_DATADIR, else /var/lib/longshore-agent.
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Six hexadecimal digits that mark the agent's kernel objects; else made from its data directory and kept there.
    #[arg(long, value_name = "HEX", required_if_eq("fargate", "true"))]
    pub platform: Option<String>,
    /// A custom attribute of the instance. May be repeated; beside those of ECS_INSTANCE_ATTRIBUTES.
    #[arg(long = "instance-attribute", value_name = "NAME=VALUE", conflicts_with = "fargate")]
    pub instance_attributes: Vec<String>,
    /// Read variables from this file instead of /etc/ecs/ecs.config.
    #[arg(long, value_name = "FILE", conflicts_with = "fargate")]
    pub config: Option<PathBuf>,
    /// Stop this agent's tasks, remove everything of them from the machine, and end. The agent must not be running.
    #[arg(long)]
    pub teardown: bool,
    /// The platform's API as tasks reach it; by default as the agent does, on Fargate at the VPCs' endpoint address.
    #[arg(long, value_name = "URL")]
    pub task_endpoint: Option<String>,
    /// The instance's availability zone; by default the region's first.
    #[arg(long, value_name = "ZONE")]
    pub availability_zone: Option<String>,
    /// Memory to offer, in MiB; by default the host's, less a reserve.
    #[arg(long, value_name = "MIB")]
    pub memory: Option<i32>,
    /// CPU to offer, in units of 1/1024 core; by default the host's.
    #[arg(long, value_name = "UNITS")]
    pub cpu: Option<i32>,
    /// Pull a registry's images from elsewhere, such as docker.io=http://127.0.0.1:5000. May be repeated.
    #[arg(
        long = "registry-mirror",
        value_name = "NAME=URL",
        env = "LONGSHORE_REGISTRY_MIRRORS",
        value_delimiter = ','
    )]
    pub registry_mirrors: Vec<String>,
    /// Most MiB of images to keep that no task uses.
    #[arg(long, value_name = "MIB", default_value_t = IMAGE_CACHE, value_parser = clap::value_parser!(u64).range(..1 << 40))]
    pub image_cache: u64,
}

/// MiB of images kept that no task uses, unless the operator says something else.
pub const IMAGE_CACHE: u64 = 10 << 10;
