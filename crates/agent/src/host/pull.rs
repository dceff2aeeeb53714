//! Bringing an image to the host: from the platform's own registry as the task's execution role, from any other
//! registry out of the task's own network, or from a mirror the operator named.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use domain::agent_protocol::payload::{EcrAuthData, Task};
use runtime::{Endpoint, EndpointTls, ImageError, PullNetwork, PullProgress, PullRequest, Reference, RegistryAuth};
use wire::sigv4::Keys;

use super::{Host, lock, reasons};
use crate::aws::{patiently, role_keys};
use crate::engine::machine::{Failure, Pulled};
use crate::instance::Kind;
use crate::network::{Mode, awsvpc};

/// How often a registry that does not answer is asked.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; doubles.
const PAUSE: Duration = Duration::from_millis(300);
/// For one connection.
const CONNECT: Duration = Duration::from_secs(5);
/// For a whole pull, as Amazon's agent.
const WHOLE: Duration = Duration::from_secs(2 * 3600);

impl Host {
    pub(super) async fn pull_image(
        &self,
        task: Arc<Task>,
        index: usize,
        resolved: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Pulled, Failure> {
        let Some(container) = task.containers.get(index) else {
            return Err(Failure("CannotPullContainerError: no such container".to_owned()));
        };
        let reference: Reference =
            container.image.parse().map_err(|error: ImageError| reasons::pull(&error, &container.image, "", 1))?;
        let mut request = PullRequest::new(reference.clone());
        request.timeout = WHOLE;
        request.connect_timeout = CONNECT;
        let ecr = container.registry_authentication.as_ref().filter(|auth| auth.kind == "ecr");
        if let Some(data) = ecr.and_then(|auth| auth.ecr_auth_data.as_ref()) {
            self.own_registry(&task, data, &mut request).await?;
        } else if let Some((_, url)) = self.settings.mirrors.iter().find(|(name, _)| name == &reference.registry) {
            request.endpoints =
                vec![Endpoint { registry: reference.registry.clone(), url: url.clone(), connect: None, tls: None }];
        } else {
            request.network = self.task_network(&task).await?;
        }
        let resolved = Arc::new(resolved);
        let mut attempts = 0;
        let mut pause = PAUSE;
        let image = loop {
            attempts += 1;
            let teller = resolved.clone();
            let progress = move |progress: PullProgress| {
                if let PullProgress::Resolved { digest, .. } = progress {
                    teller(digest.to_string());
                }
            };
            match self.images.pull(request.clone(), Arc::new(progress)).await {
                Ok(image) => break image,
                Err(error) if attempts < ATTEMPTS && is_temporary(&error) => {
                    tracing::info!(image = container.image, %error, "pulling again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    let url = manifest_url(&reference);
                    return Err(reasons::pull(&error, &reference.to_string(), &url, attempts));
                }
            }
        };
        let pulled = Pulled {
            digest: image.index_digest.as_ref().unwrap_or(&image.digest).to_string(),
            manifest: image.digest.to_string(),
            stop_signal: image.config.stop_signal.clone(),
        };
        lock(&self.pulled).insert((task.arn.clone(), index), Arc::new(image));
        self.collector.notify_one();
        Ok(pulled)
    }

    /// The platform's registry: logged in as the execution role, or as an instance of the user's where the task has
    /// none; always reachable, so asked from the host itself.
    async fn own_registry(&self, task: &Task, data: &EcrAuthData, request: &mut PullRequest) -> Result<(), Failure> {
        let keys = if self.settings.kind != Kind::Fargate && !data.use_execution_role {
            let keys = self.identity.credentials.keys("ecr").map_err(|_| reasons::no_execution_role())?;
            Keys { region: data.region.clone(), ..keys }
        } else {
            let role = self.roles.execution_in_time(&task.arn).await.ok_or_else(reasons::no_execution_role)?;
            role_keys(&role, "ecr", &data.region)
        };
        let client = &self.identity.client;
        let (username, password) = patiently(|| client.registry_login(&data.registry_id, &keys))
            .await
            .map_err(|error| reasons::registry_login(&error))?;
        request.auth = RegistryAuth::Basic { username, password };
        let endpoint = client.endpoint();
        let authority = &endpoint.authority;
        let port = authority.rsplit(':').next().unwrap_or("80");
        // A registry is told apart by its name, and which names there are only the platform knows.
        let url = format!("{}://{}.dkr.ecr.{}.localhost:{port}", endpoint.scheme(), data.registry_id, data.region);
        let connect = resolve(authority, port).await;
        let registry = request.reference.registry.clone();
        request.endpoints = vec![Endpoint { registry, url, connect: Some(connect), tls: self.platform_tls() }];
        Ok(())
    }

    /// The platform's certificate is for where it is, not for the names of its registries.
    fn platform_tls(&self) -> Option<EndpointTls> {
        let endpoint = self.identity.client.endpoint();
        let server_name = endpoint.authority.rsplit_once(':').map_or(endpoint.authority.as_str(), |(name, _)| name);
        let authorities = self.settings.authorities.clone().filter(|_| endpoint.secure)?;
        Some(EndpointTls { server_name: server_name.to_owned(), authorities })
    }

    /// The task's own network, if it has one: what it cannot reach, its images cannot come from. Else the machine's.
    async fn task_network(&self, task: &Task) -> Result<Option<PullNetwork>, Failure> {
        if self.mode(task)? != Mode::Awsvpc {
            return Ok(None);
        }
        let netns = self.wait_for_network(task).await?;
        let resolvers = awsvpc::resolvers(task).iter().filter_map(|text| text.parse().ok()).collect();
        Ok(Some(PullNetwork { netns, resolvers, hosts: Vec::new() }))
    }
}

/// Where the platform is, which may be another machine known by its name.
async fn resolve(authority: &str, port: &str) -> SocketAddr {
    let port = port.parse().unwrap_or(80);
    if let Ok(address) = authority.parse() {
        return address;
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let found = tokio::net::lookup_host((host, port)).await.ok().and_then(|mut found| found.next());
    found.unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

fn is_temporary(error: &ImageError) -> bool {
    match error {
        ImageError::Timeout { .. } | ImageError::Unreachable { .. } | ImageError::TooManyRequests { .. } => true,
        ImageError::Registry { status, .. } => *status >= 500,
        _ => false,
    }
}

fn manifest_url(reference: &Reference) -> String {
    let tag = reference.digest.as_ref().map(ToString::to_string).or_else(|| reference.tag.clone());
    let tag = tag.unwrap_or_else(|| "latest".to_owned());
    format!("https://{}/v2/{}/manifests/{tag}", reference.registry, reference.repository)
}
