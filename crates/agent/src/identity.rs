//! Who this agent is to the control plane: its cluster, its container instance, its keys and where its sessions go.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use api::ecs::{Attribute, RegisterContainerInstanceRequest, Resource};
use domain::IdSource;
use serde::{Deserialize, Serialize};

use crate::aws::credentials::InstanceCredentials;
use crate::aws::{CallError, Client};
use crate::session::Backoff;
use crate::state;

/// DiscoverPollEndpoint's answer is good for this long; an older one is still used when the call fails.
const ENDPOINTS_LIFE: Duration = Duration::from_secs(12 * 3600);

/// A registered container instance.
pub struct Identity {
    /// The platform's API.
    pub client: Client,
    /// The instance's own keys.
    pub credentials: InstanceCredentials,
    /// The cluster as configured: a name or an ARN.
    pub cluster: String,
    /// Region of the instance.
    pub region: String,
    /// The instance's ARN.
    pub instance_arn: String,
    /// The version of the container runtime.
    pub runtime_version: String,
    endpoints: Mutex<Option<(Instant, String, String)>>,
}

/// What the agent remembers of itself. On the disk before it is used: without it, the machine would come back from a power cut
/// as another instance, and nobody would tell how the tasks of this one ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// The cluster it was registered with.
    pub cluster: String,
    /// The ARN it got.
    pub instance_arn: String,
}

/// What an instance offers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offer {
    /// CPU units, 1024 per core.
    pub cpu: i32,
    /// Memory in MiB.
    pub memory: i32,
    /// TCP ports that are taken.
    pub ports: Vec<String>,
    /// UDP ports that are taken.
    pub ports_udp: Vec<String>,
    /// Capabilities and properties; an empty value means a name alone.
    pub attributes: Vec<(String, String)>,
    /// The version of the container runtime, where it is not our own.
    pub runtime_version: Option<String>,
    /// Which EC2 instance it is, where it is one.
    pub document: Option<IdentityDocument>,
}

/// The instance identity document, as the metadata service hands it out.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityDocument {
    /// JSON, byte for byte.
    pub document: String,
    /// The platform's signature of it.
    pub signature: String,
}

/// Why the agent cannot register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The control plane will never take this registration.
    #[error("the control plane refuses to register this instance: {0}")]
    Refused(String),
    /// The control plane did not store what was sent.
    #[error("Attribute validation failed: {0}")]
    Attributes(String),
    /// What is remembered belongs elsewhere.
    #[error("this data directory is registered with cluster {found}, not {wanted}")]
    OtherCluster {
        /// Remembered.
        found: String,
        /// Configured.
        wanted: String,
    },
    /// The state cannot be kept.
    #[error("{0}")]
    State(#[from] std::io::Error),
}

impl Identity {
    /// The tags of a resource, asked for as the instance.
    pub async fn tags_of(&self, arn: &str) -> Result<BTreeMap<String, String>, CallError> {
        let keys = self.credentials.keys("ecs").map_err(|why| CallError::Transport(why.to_string()))?;
        self.client.tags(arn, &keys).await
    }

    /// Sets this container instance to DRAINING.
    pub async fn drain(&self) -> Result<(), String> {
        let keys = self.credentials.keys("ecs")?;
        let outcome = self.client.drain(&self.cluster, &self.instance_arn, &keys).await;
        if outcome.as_ref().is_err_and(CallError::is_expired) {
            self.credentials.forget();
        }
        outcome.map_err(|error| error.to_string())
    }

    /// Registers, again under the same ARN if one is remembered, and tries for as long as the control plane is away.
    pub async fn register(
        client: Client,
        credentials: InstanceCredentials,
        cluster: &str,
        region: &str,
        offer: &Offer,
        file: &Path,
    ) -> Result<Identity, RegisterError> {
        let remembered: Remembered = state::read(file)?.unwrap_or_default();
        if !remembered.instance_arn.is_empty() && remembered.cluster != cluster {
            return Err(RegisterError::OtherCluster { found: remembered.cluster, wanted: cluster.to_owned() });
        }
        let mut ids = IdSource::from_system();
        let mut request = request(cluster, offer);
        request.container_instance_arn = Some(remembered.instance_arn.clone()).filter(|arn| !arn.is_empty());
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), 1.4, 0.2);
        let instance = loop {
            let outcome = match credentials.keys("ecs") {
                Ok(keys) => client.register(&request, &keys).await,
                Err(why) => return Err(RegisterError::Refused(why)),
            };
            let error = match outcome {
                Ok(instance) => break instance,
                Err(error) => error,
            };
            if request.container_instance_arn.is_some()
                && error.to_string().to_lowercase().contains("container instance")
            {
                // What we remember is gone there, as after a reset: this is a new instance then.
                tracing::warn!(%error, "registering as a new instance");
                request.container_instance_arn = None;
                continue;
            }
            credentials.forget();
            if !error.is_temporary() && !error.is_expired() {
                return Err(RegisterError::Refused(error.to_string()));
            }
            tracing::info!(%error, "not registered yet");
            tokio::time::sleep(backoff.pause(&mut ids)).await;
        };
        verify(offer, instance.attributes.as_deref().unwrap_or_default())?;
        let instance_arn = instance.container_instance_arn.unwrap_or_default();
        if instance_arn != remembered.instance_arn {
            let remembered = Remembered { cluster: cluster.to_owned(), instance_arn: instance_arn.clone() };
            state::write_durably(file, &remembered)?;
        }
        tracing::info!(instance = instance_arn, "registered");
        let identity = Identity {
            client,
            credentials,
            cluster: cluster.to_owned(),
            region: region.to_owned(),
            instance_arn,
            runtime_version: offer.runtime_version.clone().unwrap_or_else(|| crate::RUNTIME_VERSION.to_owned()),
            endpoints: Mutex::new(None),
        };
        Ok(identity)
    }

    /// Where ACS and TCS are.
    pub async fn poll_endpoints(&self) -> Result<(String, String), String> {
        let cached = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, acs, tcs)) = cached.clone().filter(|(since, _, _)| since.elapsed() < ENDPOINTS_LIFE) {
            return Ok((acs, tcs));
        }
        let keys = self.credentials.keys("ecs")?;
        match self.client.discover_poll_endpoint(&self.cluster, &self.instance_arn, &keys).await {
            Ok((acs, tcs)) => {
                let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
                *endpoints = Some((Instant::now(), acs.clone(), tcs.clone()));
                Ok((acs, tcs))
            }
            Err(error) => {
                if error.is_expired() {
                    self.credentials.forget();
                }
                cached.map(|(_, acs, tcs)| (acs, tcs)).ok_or_else(|| error.to_string())
            }
        }
    }
}

fn request(cluster: &str, offer: &Offer) -> RegisterContainerInstanceRequest {
    let integer = |name: &str, value: i32| Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        integer_value: Some(value),
        ..Default::default()
    };
    let set = |name: &str, values: &[String]| Resource {
        name: Some(name.to_owned()),
        r#type: Some("STRINGSET".to_owned()),
        string_set_value: Some(values.to_vec()),
        ..Default::default()
    };
    let attribute = |(name, value): &(String, String)| Attribute {
        name: Some(name.clone()),
        value: Some(value.clone()).filter(|value| !value.is_empty()),
        ..Default::default()
    };
    RegisterContainerInstanceRequest {
        cluster: Some(cluster.to_owned()),
        total_resources: Some(vec![
            integer("CPU", offer.cpu),
            integer("MEMORY", offer.memory),
            set("PORTS", &offer.ports),
            set("PORTS_UDP", &offer.ports_udp),
        ]),
        attributes: Some(offer.attributes.iter().map(attribute).collect()),
        instance_identity_document: offer.document.as_ref().map(|identity| identity.document.clone()),
        instance_identity_document_signature: offer.document.as_ref().map(|identity| identity.signature.clone()),
        ..Default::default()
    }
}

/// Every attribute sent must come back with the same value; a name alone counts as an empty one.
fn verify(offer: &Offer, got: &[Attribute]) -> Result<(), RegisterError> {
    for (name, value) in &offer.attributes {
        let found = got.iter().any(|attribute| {
            attribute.name.as_deref() == Some(name) && attribute.value.as_deref().unwrap_or_default() == value
        });
        if !found {
            return Err(RegisterError::Attributes(format!("{name} did not come back")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_that_loses_attributes_is_noticed() {
        let offer =
            Offer { attributes: vec![("a".into(), String::new()), ("b".into(), "1".into())], ..Offer::default() };
        let sent = request("c", &offer).attributes.unwrap_or_default();
        assert!(verify(&offer, &sent).is_ok());
        assert!(verify(&offer, &sent[..1]).is_err());
        let changed = Attribute { name: Some("b".into()), value: Some("2".into()), ..Default::default() };
        assert!(verify(&offer, &[sent[0].clone(), changed]).is_err());
    }
}
