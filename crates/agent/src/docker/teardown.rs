//! Taking everything of an agent from Docker Engine and from the machine.

use std::path::Path;

use serde_json::json;

use super::client::{Client, TIMEOUT};
use super::create::AGENT_LABEL;
use super::{api, machine};

/// Ends and removes every container of the agent with these digits, and its rules; says what it was. Safe to repeat.
pub async fn teardown(digits: &str, directory: &Path) -> Result<Vec<String>, String> {
    let host = std::env::var("DOCKER_HOST").ok();
    let client = Client::connect(host.as_deref()).await?;
    let filters = json!({ "label": [format!("{AGENT_LABEL}={digits}")] }).to_string();
    let path = format!("/containers/json?all=1&filters={}", wire::percent_encode(&filters));
    let own: Vec<api::Listed> = client.get(&path).await.map_err(|error| error.to_string())?;
    let mut removed = Vec::new();
    for one in own {
        let path = format!("/containers/{}?force=1&v=1", one.id);
        match client.act(http::Method::DELETE, &path, bytes::Bytes::new(), Some(TIMEOUT)).await {
            Err(error) if !error.is_absent() => return Err(error.to_string()),
            _ => removed.push(format!("container {}", one.name().unwrap_or(&one.id))),
        }
    }
    if let Ok(group) = runtime::Group::open(&format!("longshore/{digits}")) {
        for name in group.children() {
            if let Ok(task) = runtime::Group::open(&format!("longshore/{digits}/{name}")) {
                task.remove().map_err(|error| error.to_string())?;
            }
        }
        group.remove_if_empty();
    }
    removed.extend(machine::restore(digits).map_err(|error| error.to_string())?);
    match std::fs::remove_dir_all(directory.join("lines")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(removed),
    }
}
