//! What is particular to an EC2 instance: it knows itself from its metadata service, and calls the platform with the role
//! of its instance profile. Its tasks share its network, sit behind its address on a bridge, or have interfaces of their own, which the
//! platform's host hands over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::machine;
use crate::config::Config;
use crate::identity::{IdentityDocument, Offer};
use crate::imds::{Imds, ImdsError};

/// `AWS_EXECUTION_ENV` in a task.
pub const EXECUTION_ENVIRONMENT: &str = "AWS_ECS_EC2";

/// What an EC2 instance can do beside a machine of the user's.
const CAPABILITIES: &[&str] = &["ecs.capability.task-eni"];

/// What the image's init says before anybody else; `/etc/ecs/ecs.config` goes before it.
pub const DEFAULTS: &str = "/var/lib/ecs/ecs.config";

/// Between two questions to a metadata service that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What the instance knows of itself.
pub struct Instance {
    /// Whom it asks.
    pub imds: Arc<Imds>,
    /// `i-…`.
    pub instance_id: String,
    /// E.g. `us-east-1`.
    pub region: String,
    /// E.g. `us-east-1a`.
    pub zone: String,
    /// Its VPC and its subnet.
    vpc_and_subnet: Option<(String, String)>,
    document: IdentityDocument,
}

impl Instance {
    /// Asks the metadata service, for as long as it takes.
    pub async fn discover() -> Instance {
        let imds = Arc::new(Imds::default());
        loop {
            match Self::ask(&imds).await {
                Ok(instance) => return instance,
                Err(error) => tracing::warn!(%error, "not known yet which instance this is"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(imds: &Arc<Imds>) -> Result<Instance, ImdsError> {
        let mac = imds.required("meta-data/mac").await?;
        let interface = format!("meta-data/network/interfaces/macs/{mac}");
        let vpc = imds.text(&format!("{interface}/vpc-id")).await?;
        let subnet = imds.text(&format!("{interface}/subnet-id")).await?;
        Ok(Instance {
            imds: imds.clone(),
            instance_id: imds.required("meta-data/instance-id").await?,
            region: imds.required("meta-data/placement/region").await?,
            zone: imds.required("meta-data/placement/availability-zone").await?,
            vpc_and_subnet: vpc.zip(subnet),
            document: IdentityDocument {
                // Signed as it is: not a byte of it may change.
                document: match imds.get("dynamic/instance-identity/document").await? {
                    Some(document) => String::from_utf8_lossy(&document).into_owned(),
                    None => String::new(),
                },
                signature: imds.required("dynamic/instance-identity/signature").await?,
            },
        })
    }

    /// What it offers; numbers the operator gave go before the kernel's.
    pub fn offer(
        &self,
        cpu: Option<i32>,
        memory: Option<i32>,
        directory: &Path,
        config: &Config,
    ) -> std::io::Result<Offer> {
        // The instance, not its host name: in another VPC another instance may have the same.
        let place = format!("{}:{}", self.instance_id, directory.display());
        let mut offer = machine::offer(CAPABILITIES, cpu, memory, &self.zone, &place, config)?;
        if let Some((vpc, subnet)) = &self.vpc_and_subnet {
            offer.attributes.push(("ecs.vpc-id".to_owned(), vpc.clone()));
            offer.attributes.push(("ecs.subnet-id".to_owned(), subnet.clone()));
        }
        offer.document = Some(self.document.clone());
        Ok(offer)
    }
}
