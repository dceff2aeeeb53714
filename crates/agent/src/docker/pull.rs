//! Images through Docker Engine: pulled under a name that the engine reaches, and named afterwards as the task
//! definition names them, as with Amazon's agent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use domain::agent_protocol::payload::{Container, EcrAuthData, Task};
use http::Method;
use runtime::{ImageError, Reference};
use serde_json::json;
use tokio::sync::Mutex;
use wire::sigv4::Keys;

use super::client::{Documents, EngineError, TIMEOUT};
use super::{Docker, api, lock};
use crate::aws::{patiently, role_keys};
use crate::engine::machine::{Failure, Pulled};
use crate::host::reasons;

/// For a whole pull, as Amazon's agent.
const WHOLE: Duration = Duration::from_secs(2 * 3600);
/// How often an engine that cannot pull is asked.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// One pull of an image at a time: the others then find it there.
pub type Locks = std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>;

/// What to pull, and as whom.
struct Source {
    /// The name without tag and digest.
    name: String,
    /// The tag or the digest.
    which: String,
    /// `X-Registry-Auth`.
    auth: Option<String>,
}

impl Source {
    /// As the engine knows it when it was pulled.
    fn reference(&self) -> String {
        let separator = if self.which.starts_with("sha256:") { '@' } else { ':' };
        format!("{}{separator}{}", self.name, self.which)
    }
}

impl Docker {
    pub(super) async fn pull_image(
        &self,
        task: &Task,
        index: usize,
        resolved: impl Fn(String),
    ) -> Result<Pulled, Failure> {
        let Some(container) = task.containers.get(index) else {
            return Err(Failure("CannotPullContainerError: no such container".to_owned()));
        };
        let reference: Reference =
            container.image.parse().map_err(|error: ImageError| reasons::pull(&error, &container.image, "", 1))?;
        let ecr = container.registry_authentication.as_ref().filter(|auth| auth.kind == "ecr");
        let source = match ecr.and_then(|auth| auth.ecr_auth_data.as_ref()) {
            Some(data) => self.own_registry(task, data, &reference).await?,
            None => Source {
                name: format!("{}/{}", reference.registry, reference.repository),
                which: which(&reference),
                auth: None,
            },
        };
        let locked = {
            let mut pulls = lock(&self.pulls);
            pulls.retain(|_, one| Arc::strong_count(one) > 1);
            pulls.entry(reference.to_string()).or_default().clone()
        };
        let _one = locked.lock().await;
        let name = named(container);
        let image = match self.bring(&source).await {
            Ok(()) => self.name_it(&source, &name).await,
            Err(error) => self.keep(&name, error).await,
        };
        let image = image.map_err(|error| Failure(format!("CannotPullContainerError: {error}")))?;
        let digest = reference.digest.as_ref().map(ToString::to_string).or_else(|| digest(&image, &source.name));
        // An image that was made on the machine has no digest in any registry.
        let digest = digest.unwrap_or_else(|| image.id.clone());
        resolved(digest.clone());
        lock(&self.pulled).insert((task.arn.clone(), index), image.id.clone());
        // Docker heeds the image's stop signal by itself.
        Ok(Pulled { digest, manifest: image.id, stop_signal: None })
    }

    /// Where the engine reaches the platform's registry, logged in as the execution role, or as the instance where the
    /// task has none.
    async fn own_registry(&self, task: &Task, data: &EcrAuthData, reference: &Reference) -> Result<Source, Failure> {
        let keys = if data.use_execution_role {
            let role = self.roles.execution_in_time(&task.arn).await.ok_or_else(reasons::no_execution_role)?;
            role_keys(&role, "ecr", &data.region)
        } else {
            let keys = self.identity.credentials.keys("ecr").map_err(|_| reasons::no_execution_role())?;
            Keys { region: data.region.clone(), ..keys }
        };
        let client = &self.identity.client;
        let (username, password) = patiently(|| client.registry_login(&data.registry_id, &keys))
            .await
            .map_err(|error| reasons::registry_login(&error))?;
        let reached = self.registries.reach(&data.registry_id, &data.region).await;
        let reached = reached.map_err(|error| reasons::resource("failed to open a way to the registry", &error))?;
        let auth = json!({ "username": username, "password": password, "serveraddress": reached }).to_string();
        Ok(Source {
            name: format!("{reached}/{}", reference.repository),
            which: which(reference),
            auth: Some(URL_SAFE.encode(auth)),
        })
    }

    async fn bring(&self, source: &Source) -> Result<(), EngineError> {
        let mut attempts = 0;
        let mut pause = PAUSE;
        loop {
            attempts += 1;
            let pulled = tokio::time::timeout(WHOLE, self.bring_once(source)).await;
            let error = match pulled {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => return Err(EngineError::Unreadable("the pull took longer than two hours".to_owned())),
            };
            // What is not there, or not to be had, will not be the next time either.
            let said = error.to_string();
            let settled = error.is_absent()
                || said.contains("denied")
                || said.contains("unauthorized")
                || said.contains("not found");
            if settled || attempts >= ATTEMPTS {
                return Err(error);
            }
            tracing::info!(image = source.reference(), %error, "pulling again");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn bring_once(&self, source: &Source) -> Result<(), EngineError> {
        let path = format!(
            "/images/create?fromImage={}&tag={}",
            wire::percent_encode(&source.name),
            wire::percent_encode(&source.which)
        );
        let headers: Vec<(&str, String)> = source.auth.iter().map(|auth| ("X-Registry-Auth", auth.clone())).collect();
        let mut progress = Documents::new(self.client.stream(Method::POST, &path, &headers).await?);
        while let Some(document) = progress.next::<api::Progress>().await? {
            // The head of the answer was sent long before: an error comes in the stream.
            if let Some(message) = document.error {
                return Err(EngineError::Refused { status: 500, message });
            }
        }
        Ok(())
    }

    /// Gives what was pulled the name that the definition has for it, and takes the other one away.
    async fn name_it(&self, source: &Source, name: &Name) -> Result<api::Image, EngineError> {
        let reference = source.reference();
        let image: api::Image = self.client.get(&format!("/images/{reference}/json")).await?;
        if let Some(tag) = name.tag.as_ref().filter(|tag| reference != format!("{}:{tag}", name.name)) {
            let path = format!(
                "/images/{reference}/tag?repo={}&tag={}",
                wire::percent_encode(&name.name),
                wire::percent_encode(tag)
            );
            self.client.act(Method::POST, &path, Bytes::new(), Some(TIMEOUT)).await?;
            if source.auth.is_some() {
                let path = format!("/images/{reference}?noprune=1");
                if let Err(error) = self.client.act(Method::DELETE, &path, Bytes::new(), Some(TIMEOUT)).await {
                    tracing::debug!(image = reference, %error, "the name it was pulled by stays");
                }
            }
        }
        Ok(image)
    }

    /// Amazon's agent goes on with the image that is on the machine where none can be pulled.
    async fn keep(&self, name: &Name, error: EngineError) -> Result<api::Image, EngineError> {
        let Some(tag) = &name.tag else { return Err(error) };
        match self.client.get(&format!("/images/{}:{tag}/json", name.name)).await {
            Ok(image) => {
                tracing::warn!(image = name.name, %error, "not pulled: going on with the image that is here");
                Ok(image)
            }
            Err(_) => Err(error),
        }
    }

    /// What to create a container of: the name if it still means what was pulled for it, else the identifier.
    pub(super) async fn image_of(&self, task: &Task, index: usize) -> Result<(String, String), Failure> {
        let failed = |what: &str| Failure(format!("CannotCreateContainerError: {what}"));
        let container = task.containers.get(index).ok_or_else(|| failed("no such container"))?;
        let pulled = lock(&self.pulled).get(&(task.arn.clone(), index)).cloned();
        // After a restart of the agent.
        let recorded = || self.view(&task.arn)?.containers.get(index)?.manifest_digest.clone();
        let id = pulled.or_else(recorded).ok_or_else(|| failed("its image was not pulled"))?;
        let Name { name, tag } = named(container);
        let reference = format!("{name}:{}", tag.unwrap_or_default());
        match self.client.get::<api::Image>(&format!("/images/{reference}/json")).await {
            Ok(image) if image.id == id => Ok((reference, id)),
            _ => Ok((id.clone(), id)),
        }
    }
}

/// How the definition names an image.
struct Name {
    name: String,
    tag: Option<String>,
}

fn named(container: &Container) -> Name {
    let defined = container.defined_image.as_ref().unwrap_or(&container.image);
    match defined.parse::<Reference>() {
        Ok(reference) => {
            let tag = match (&reference.tag, &reference.digest) {
                (Some(tag), _) => Some(tag.clone()),
                (None, None) => Some("latest".to_owned()),
                (None, Some(_)) => None,
            };
            Name { name: format!("{}/{}", reference.registry, reference.repository), tag }
        }
        Err(_) => Name { name: defined.clone(), tag: None },
    }
}

fn which(reference: &Reference) -> String {
    let digest = reference.digest.as_ref().map(ToString::to_string);
    digest.or_else(|| reference.tag.clone()).unwrap_or_else(|| "latest".to_owned())
}

/// What the tag pointed at, as the engine remembers it by the name it was pulled by, which it shortens.
fn digest(image: &api::Image, name: &str) -> Option<String> {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let shorter = short.strip_prefix("library/").unwrap_or(short);
    let mut known = image.repo_digests.iter().filter_map(|known| known.split_once('@'));
    let found = known.find(|(of, _)| [name, short, shorter].contains(of));
    found.map(|(_, digest)| digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_the_definition_names_them() {
        let container = |image: &str, defined: Option<&str>| Container {
            image: image.into(),
            defined_image: defined.map(str::to_owned),
            ..Container::default()
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        let name = |container: &Container| {
            let Name { name, tag } = named(container);
            (name, tag)
        };
        let pinned = format!("nginx:1@{digest}");
        assert_eq!(name(&container("nginx", None)), ("docker.io/library/nginx".into(), Some("latest".into())));
        assert_eq!(name(&container(&pinned, Some("nginx:1"))), ("docker.io/library/nginx".into(), Some("1".into())));
        assert_eq!(name(&container(&format!("nginx@{digest}"), None)), ("docker.io/library/nginx".into(), None));
    }

    #[test]
    fn a_digest_is_found_by_the_name_that_was_pulled() {
        let image =
            api::Image { id: "i".into(), repo_digests: vec!["nginx@sha256:1".into(), "h/nginx@sha256:2".into()] };
        assert_eq!(digest(&image, "docker.io/library/nginx").as_deref(), Some("sha256:1"));
        assert_eq!(digest(&image, "h/nginx").as_deref(), Some("sha256:2"));
        assert_eq!(digest(&image, "other"), None);
    }
}
