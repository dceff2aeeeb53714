//! The command line of `longshore agent`.

use std::path::PathBuf;

use clap::Args;
use domain::agent_protocol::FARGATE_CLUSTER;

/// A container instance of this host.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example: longshore agent --fargate --endpoint http://127.0.0.1:4580 --data-dir longshore-data/agent --platform a1b2c3"
)]
pub struct Options {
    /// Run as a Fargate host: a container instance of the platform's hidden cluster.
    #[arg(long)]
    pub fargate: bool,
    /// Where the platform's API answers.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4580")]
    pub endpoint: String,
    /// The instance's region.
    #[arg(long, default_value = "us-east-1")]
    pub region: String,
    /// The cluster to join; a Fargate host's is hidden.
    #[arg(long, default_value = FARGATE_CLUSTER)]
    pub cluster: String,
    /// Where the agent keeps its state, images and tasks.
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
    /// Six hexadecimal digits that mark the platform's kernel objects.
    #[arg(long, value_name = "HEX")]
    pub platform: String,
    /// The platform's API as tasks reach it; by default at the VPCs' endpoint address, on the same port.
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
