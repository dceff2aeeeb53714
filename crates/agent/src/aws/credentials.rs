//! The instance's own keys: from the environment, else from a shared credentials file that is read again when they are
//! refused, so that rotated keys need no restart.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use wire::sigv4::Keys;

/// Where the instance's keys come from.
#[derive(Debug)]
pub struct InstanceCredentials {
    source: Source,
    region: String,
    cached: Mutex<Option<Pair>>,
}

#[derive(Debug)]
enum Source {
    Environment,
    File { path: PathBuf, profile: String },
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
        Ok(InstanceCredentials { source, region: region.to_owned(), cached: Mutex::new(None) })
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
        }
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
