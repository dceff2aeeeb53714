//! What an agent is to be: its command line, its environment, its configuration file and, on an EC2 instance, the
//! metadata service, taken together and checked.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::agent_protocol::FARGATE_CLUSTER;
use domain::network::ENDPOINT_ADDRESS;

use crate::Options;
use crate::aws::Endpoint;
use crate::aws::credentials::InstanceCredentials;
use crate::config::Config;
use crate::engine::record::TaskRecord;
use crate::host::{Settings, network};
use crate::identity::Offer;
use crate::instance::{Kind, ec2, external, fargate, machine};
use crate::network::awsvpc::Interfaces;
use crate::network::bridge::{self, Bridge};
use crate::options::Runtime as Choice;
use crate::start::Error;

/// Where an agent keeps its state when nobody says.
const DIRECTORY: &str = "/var/lib/longshore-agent";

/// What the command line, the environment and the configuration file say together.
pub struct Plan {
    pub kind: Kind,
    pub options: Options,
    pub config: Config,
    pub cluster: String,
    pub region: Option<String>,
    pub endpoint: String,
    pub directory: PathBuf,
    pub platform: String,
}

impl Plan {
    pub fn new(options: Options) -> Result<Plan, Error> {
        let kind = match (options.fargate, options.ec2) {
            (true, _) => Kind::Fargate,
            (false, true) => Kind::Ec2,
            (false, false) => Kind::External,
        };
        // The Fargate host belongs to its platform, which tells it everything.
        let mut config = match kind {
            Kind::Fargate => Config::default(),
            Kind::Ec2 => {
                Config::load(Some(Path::new(ec2::DEFAULTS)), options.config.as_deref()).map_err(Error::Option)?
            }
            Kind::External => Config::load(None, options.config.as_deref()).map_err(Error::Option)?,
        };
        for name in &config.ignored {
            tracing::warn!(name, "this variable is set, and this agent does not honour it");
        }
        for attribute in &options.instance_attributes {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            config.attributes.insert(name.to_owned(), value.to_owned());
        }
        check_runtime(&options, &config)?;
        let or = |flag: &Option<String>, variable: &Option<String>, default: &str| {
            flag.clone().or_else(|| variable.clone()).unwrap_or_else(|| default.to_owned())
        };
        let cluster = if kind == Kind::Fargate { FARGATE_CLUSTER } else { "default" };
        let directory = options.data_dir.clone().or_else(|| config.data_dir.clone());
        let directory = directory.unwrap_or_else(|| DIRECTORY.into());
        let directory = std::fs::create_dir_all(&directory)
            .and_then(|()| directory.canonicalize())
            .map_err(|source| Error::Directory { what: directory.display().to_string(), source })?;
        let platform = match &options.platform {
            Some(platform) => platform.trim_start_matches("ls-").to_ascii_lowercase(),
            None => machine::marked(&directory)
                .map_err(|source| Error::Directory { what: directory.display().to_string(), source })?,
        };
        if !machine::is_mark(&platform) {
            return Err(Error::Option(format!("--platform {platform} is not six hexadecimal digits")));
        }
        Ok(Plan {
            kind,
            cluster: or(&options.cluster, &config.cluster, cluster),
            region: options.region.clone().or_else(|| config.region.clone()),
            endpoint: or(&options.endpoint, &config.endpoint, "http://127.0.0.1:4580"),
            directory,
            platform,
            config,
            options,
        })
    }

    pub fn settings(&self, endpoint: &Endpoint, zone: &str) -> Result<Settings, Error> {
        let mut mirrors = Vec::new();
        for mirror in self.options.registry_mirrors.iter().filter(|mirror| !mirror.is_empty()) {
            let (name, url) = mirror
                .split_once('=')
                .ok_or_else(|| Error::Option(format!("--registry-mirror {mirror} is not of the form NAME=URL")))?;
            mirrors.push((name.to_owned(), url.to_owned()));
        }
        let port = endpoint.authority.rsplit_once(':').map_or("80", |(_, port)| port);
        let reached = match self.kind {
            Kind::Fargate => format!("http://{ENDPOINT_ADDRESS}:{port}"),
            Kind::Ec2 | Kind::External => format!("{}://{}", endpoint.scheme(), endpoint.authority),
        };
        Ok(Settings {
            kind: self.kind,
            platform: self.platform.clone(),
            interfaces: match self.kind {
                Kind::Ec2 => Interfaces::HandedOver(domain::instances::INTERFACES_DIRECTORY.into()),
                Kind::Fargate | Kind::External => Interfaces::OfPlatform(self.platform.clone()),
            },
            directory: self.directory.clone(),
            task_endpoint: self.options.task_endpoint.clone().unwrap_or(reached),
            authorities: self.options.ca_bundle.as_ref().map(|path| read_authorities(path)).transpose()?,
            mirrors,
            availability_zone: zone.to_owned(),
            image_cache: self.options.image_cache << 20,
            stop_timeout: self.config.stop_timeout,
        })
    }

    pub fn offer(&self, place: &Place) -> Result<Offer, Error> {
        let (cpu, memory) = (self.options.cpu, self.options.memory);
        let offer = match (self.kind, &place.instance) {
            (_, Some(instance)) => instance.offer(cpu, memory, &self.directory, &self.config),
            (Kind::Fargate, None) => fargate::offer(cpu, memory, &place.zone, &self.directory),
            (_, None) => external::offer(cpu, memory, &place.zone, &self.directory, &self.config),
        };
        offer.map_err(|source| Error::Directory { what: "the host's memory".to_owned(), source })
    }

    /// The networks of this instance's own, with what is left of them from before.
    pub fn bridge(&self, records: &[TaskRecord]) -> Result<Option<Arc<Bridge>>, Error> {
        if self.kind == Kind::Fargate {
            return Ok(None);
        }
        let range = self.config.host_ports.clone().unwrap_or_else(bridge::ports::kernels_range);
        let known: HashSet<String> = network::keys(records).collect();
        let opened = Bridge::open(&self.platform, self.directory.join("network"), range, &known);
        opened
            .map(|bridge| Some(Arc::new(bridge)))
            .map_err(|source| Error::Directory { what: "the machine's network".to_owned(), source })
    }
}

/// Where this machine is, and what it is called with.
pub struct Place {
    pub region: String,
    pub zone: String,
    pub credentials: InstanceCredentials,
    /// Where it is an EC2 instance.
    pub instance: Option<ec2::Instance>,
}

impl Plan {
    /// An EC2 instance asks its metadata service, for as long as it takes; others have been told.
    pub async fn place(&self) -> Result<Place, Error> {
        let zone = self.options.availability_zone.clone();
        if self.kind == Kind::Ec2 {
            let instance = ec2::Instance::discover().await;
            let region = self.region.clone().unwrap_or_else(|| instance.region.clone());
            let zone = zone.unwrap_or_else(|| instance.zone.clone());
            let credentials = InstanceCredentials::from_metadata(instance.imds.clone(), &region).await;
            return Ok(Place { region, zone, credentials, instance: Some(instance) });
        }
        let region = self.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
        let credentials = InstanceCredentials::from_environment(&region).map_err(Error::Option)?;
        let zone = zone.unwrap_or_else(|| format!("{region}a"));
        Ok(Place { region, zone, credentials, instance: None })
    }
}

/// What only one of the runtimes honours.
fn check_runtime(options: &Options, config: &Config) -> Result<(), Error> {
    if options.runtime == Choice::Own {
        if config.cleanup_wait.is_some() {
            let name = "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION";
            tracing::warn!(name, "this variable is set, and this agent does not honour it with its own runtime");
        }
        return Ok(());
    }
    let refused = |what: &str| Err(Error::Option(format!("{what} is not supported with --runtime docker")));
    if options.fargate {
        return refused("--fargate");
    }
    if options.registry_mirrors.iter().any(|mirror| !mirror.is_empty()) {
        return refused("--registry-mirror (Docker Engine has its own, in daemon.json)");
    }
    if options.image_cache != crate::IMAGE_CACHE {
        return refused("--image-cache");
    }
    Ok(())
}

fn read_authorities(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Directory { what: path.display().to_string(), source })
}
