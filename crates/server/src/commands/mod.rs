//! The short commands: `env`, `down`, `doctor`, `agent-image`, `spot`.

mod agent_image;
mod doctor;

pub use agent_image::agent_image;
pub use doctor::doctor;

use std::{fs, process::Command};

use nix::unistd::Uid;

use crate::{
    aws::Client,
    cli::{DataDirArgs, DownArgs, ReclaimArgs},
    data_directory::{DataDirectory, DataError},
    supervisor::{self, Error},
};

/// The first versions of the aws CLI that know `AWS_ENDPOINT_URL`.
const ENDPOINT_URL_SINCE: [(u32, u32); 2] = [(1, 29), (2, 13)];

/// Prints the environment that points AWS tools here, for `eval "$(longshore env)"`.
pub fn env(args: &DataDirArgs) -> Result<(), Error> {
    let data = DataDirectory::open(&args.data_dir)?;
    let settings = data.settings()?;
    let key = data.root_key().map_err(|error| match error {
        DataError::Io { path, error } if error.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("{}: only root may read the root key: run it with sudo", path.display()).into()
        }
        error => Error::from(error),
    })?;
    println!("export AWS_ENDPOINT_URL={}", settings.endpoint());
    println!("export AWS_ACCESS_KEY_ID={}", quote(&key.access_key_id));
    println!("export AWS_SECRET_ACCESS_KEY={}", quote(&key.secret_access_key));
    println!("export AWS_DEFAULT_REGION={}", settings.region);
    if !settings.listen.ip().is_loopback() {
        println!("export AWS_CA_BUNDLE={}", quote(&data.file("keys/ca.pem").display().to_string()));
    }
    warn_of_an_old_cli();
    Ok(())
}

/// For a shell: nothing in single quotes is special.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn warn_of_an_old_cli() {
    let Ok(output) = Command::new("aws").arg("--version").output() else { return };
    // Old versions print it on standard error.
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if let Some(version) = cli_version(&text)
        && !knows_endpoint_url(version)
    {
        eprintln!(
            "longshore: the aws CLI on PATH is {}.{}, which does not know AWS_ENDPOINT_URL and would call Amazon itself: \
             install 1.29 or 2.13 or newer (pip install awscli), or give --endpoint-url with every command",
            version.0, version.1
        );
    }
}

fn cli_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split("aws-cli/").nth(1)?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn knows_endpoint_url((major, minor): (u32, u32)) -> bool {
    match ENDPOINT_URL_SINCE.iter().find(|(known, _)| *known == major) {
        Some((_, since)) => minor >= *since,
        None => major > 2,
    }
}

/// Stops everything on this host that belongs to a data directory, and removes the data with `--purge`.
pub fn down(args: &DownArgs) -> Result<(), Error> {
    if !Uid::effective().is_root() {
        return Err("it needs root to remove namespaces, cgroups and mounts: run it with sudo".into());
    }
    let data = match DataDirectory::open(&args.data.data_dir) {
        Ok(data) => data,
        Err(DataError::Missing(path)) => {
            println!("nothing to do: {} is not a data directory of longshore", path.display());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervisor::stop(&data));
    for line in supervisor::take_down(&data)? {
        println!("{line}");
    }
    if args.purge {
        fs::remove_dir_all(data.path())?;
        println!("removed {}", data.path().display());
    }
    Ok(())
}

/// Interrupts a Spot Instance, and says when it ends.
pub fn reclaim(args: &ReclaimArgs) -> Result<(), Error> {
    let data = DataDirectory::open(&args.data.data_dir)?;
    let client = Client::new(&data.settings()?, Some(data.root_key()?));
    let id = &args.instance_id;
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(format!("{id}: not the id of an instance").into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(client.post(&format!("/_longshore/spot/reclaim/{id}")))?;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    if !answer.status().is_success() {
        return Err(text.into());
    }
    println!("{id} will be terminated at {text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_of_the_cli_are_told_from_new_ones() {
        for (text, knows) in [
            ("aws-cli/1.22.34 Python/3.10", false),
            ("aws-cli/1.29.0 Python/3.10", true),
            ("aws-cli/2.12.7 Python/3.11", false),
            ("aws-cli/2.13.0 Python/3.11", true),
            ("aws-cli/3.0.0 Python/3.14", true),
        ] {
            assert_eq!(knows_endpoint_url(cli_version(text).unwrap()), knows, "{text}");
        }
        assert_eq!(cli_version("something else"), None);
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quote("a'b"), r"'a'\''b'");
    }
}
