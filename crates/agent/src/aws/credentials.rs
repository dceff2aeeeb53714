//! The instance's own keys: from the environment, else from a shared credentials file that is read again when they are
//! refused, so that rotated keys need no restart. An EC2 instance has those of its profile's role, from its metadata
//! service, and fetches new ones before they stop working.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wire::sigv4::Keys;

use crate::imds::Imds;

/// How often a role's keys are fetched anew: they work for six hours.
const REFRESH: Duration = Duration::from_secs(15 * 60);
/// Between two attempts to fetch them.
const PAUSE: Duration = Duration::from_secs(5);
/// Where the metadata service has them.
const ROLES: &str = "meta-data/iam/security-credentials/";

/// Where the instance's keys come from.
#[derive(Debug)]
pub struct InstanceCredentials {
    source: Source,
    region: String,
    cached: Arc<Mutex<Option<Pair>>>,
}

#[derive(Debug)]
enum Source {
    Environment,
    File {
        path: PathBuf,
        profile: String,
    },
    /// Fetched in the background; told when they are refused.
    Metadata(Arc<Notify>),
}

#[derive(Clone)]
struct Pair {
    id: String,
    secret: String,
    token: Option<String>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pair").field("id", &self.id).finish_non_exhaustive()
    }
}

impl InstanceCredentials {
    /// `AWS_ACCESS_KEY_ID` and its companions, else `AWS_SHARED_CREDENTIALS_FILE`.
    pub fn from_environment(region: &str) -> Result<InstanceCredentials, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let source = if variable("AWS_ACCESS_KEY_ID").is_some() {
            Source::Environment
        } else if let Some(path) = variable("AWS_SHARED_CREDENTIALS_FILE") {
            let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
            Source::File { path: path.into(), profile }
        } else {
            return Err("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                        AWS_SHARED_CREDENTIALS_FILE"
                .to_owned());
        };
        Ok(InstanceCredentials { source, region: region.to_owned(), cached: Arc::default() })
    }

    /// Those of the role of an EC2 instance: returns when there are some, and keeps them fresh from then on.
    pub async fn from_metadata(imds: Arc<Imds>, region: &str) -> InstanceCredentials {
        let (cached, refused) = (Arc::new(Mutex::new(None)), Arc::new(Notify::new()));
        fetch_into(&cached, &imds).await;
        let (kept, told) = (cached.clone(), refused.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(REFRESH) => {}
                    () = told.notified() => tokio::time::sleep(PAUSE).await,
                }
                fetch_into(&kept, &imds).await;
            }
        });
        InstanceCredentials { source: Source::Metadata(refused), region: region.to_owned(), cached }
    }

    /// Keys for one of the platform's services.
    pub fn keys(&self, service: &str) -> Result<Keys, String> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = match &*cached {
            Some(pair) => pair.clone(),
            None => cached.insert(self.read()?).clone(),
        };
        Ok(Keys {
            access_key_id: pair.id,
            secret_access_key: pair.secret,
            session_token: pair.token,
            region: self.region.clone(),
            service: service.to_owned(),
        })
    }

    /// Reads them again at the next use.
    pub fn forget(&self) {
        if let Source::Metadata(refused) = &self.source {
            // The old ones stay until there are others: nobody waits for them.
            refused.notify_one();
            return;
        }
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn read(&self) -> Result<Pair, String> {
        match &self.source {
            Source::Environment => {
                let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                Ok(Pair {
                    id: variable("AWS_ACCESS_KEY_ID").ok_or("AWS_ACCESS_KEY_ID is not set")?,
                    secret: variable("AWS_SECRET_ACCESS_KEY").ok_or("AWS_SECRET_ACCESS_KEY is not set")?,
                    token: variable("AWS_SESSION_TOKEN"),
                })
            }
            Source::File { path, profile } => from_file(path, profile),
            Source::Metadata(_) => Err("the metadata service has given no credentials yet".to_owned()),
        }
    }
}

/// Fetches for as long as it takes.
async fn fetch_into(cached: &Mutex<Option<Pair>>, imds: &Imds) {
    let mut said = String::new();
    loop {
        match fetch(imds).await {
            Ok(pair) => {
                *cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(pair);
                return;
            }
            Err(why) if why != said => {
                tracing::warn!(why, "no credentials from the instance metadata service");
                said = why;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn fetch(imds: &Imds) -> Result<Pair, String> {
    let role = imds.text(ROLES).await.map_err(|error| error.to_string())?;
    let role = role.and_then(|roles| roles.lines().next().map(str::to_owned));
    let role = role.ok_or("this instance has no role: associate an IAM instance profile with it")?;
    let body = imds.get(&format!("{ROLES}{role}")).await.map_err(|error| error.to_string())?;
    let body: serde_json::Value =
        serde_json::from_slice(&body.ok_or_else(|| format!("role {role} has no credentials"))?)
            .map_err(|error| format!("the credentials of role {role} cannot be read: {error}"))?;
    let field = |name: &str| body.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    match (field("AccessKeyId"), field("SecretAccessKey")) {
        (Some(id), Some(secret)) => Ok(Pair { id, secret, token: field("Token") }),
        _ => Err(format!("the credentials of role {role}: {}", field("Message").or(field("Code")).unwrap_or_default())),
    }
}

fn from_file(path: &Path, profile: &str) -> Result<Pair, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text, profile).ok_or_else(|| format!("{} has no keys for profile {profile}", path.display()))
}

fn parse(text: &str, profile: &str) -> Option<Pair> {
    let (mut id, mut secret, mut token, mut ours) = (None, None, None, false);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            ours = name.trim() == profile;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| ours) else { continue };
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match name.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    Some(Pair { id: id?, secret: secret?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_credentials_file_is_read_by_profile() {
        let text = "# mine\n[default]\naws_access_key_id = AKIA1\naws_secret_access_key=s1\n\n[other]\naws_access_key_id=AKIA2\naws_secret_access_key=s2\naws_session_token = t\n";
        let default = parse(text, "default").expect("default");
        assert_eq!((default.id.as_str(), default.secret.as_str(), default.token), ("AKIA1", "s1", None));
        assert_eq!(parse(text, "other").and_then(|pair| pair.token).as_deref(), Some("t"));
        assert!(parse(text, "third").is_none());
        assert!(parse("[default]\naws_access_key_id=only\n", "default").is_none());
        assert!(!format!("{default:?}", default = parse(text, "other").expect("other")).contains("s2"));
    }
}
