//! The boot of an instance: who it is, its user data, its agent.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use agent::imds::{Imds, ImdsError};
use nix::sys::signal::SigSet;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::output::Output;
use crate::user_data::{self, Part, When};
use crate::{ENDPOINT_VARIABLE, PATH, ecs};

/// Where cloud-init keeps what it knows of each instance, and so do we.
const STATE: &str = "/var/lib/cloud/instances";
const LOG: &str = "/var/log/cloud-init-output.log";
/// Between two questions to a metadata service that does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the last output of a script is waited for once the script has ended.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Why an instance cannot boot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The boot loader, which is `host`, said too little.
    #[error("{ENDPOINT_VARIABLE} is not set: this is what runs inside an instance, not a command for people")]
    Endpoint,
    /// A file of the instance.
    #[error("{what}: {source}")]
    File {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// Boots and goes on running until SIGTERM.
pub fn boot() -> Result<(), Error> {
    let endpoint = std::env::var(ENDPOINT_VARIABLE).map_err(|_| Error::Endpoint)?;
    // The first process waits for its signals, and what it starts has inherited that they are blocked.
    SigSet::empty().thread_set_mask().map_err(|error| at("signals")(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(at("threads"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(at("signals"))?;
        tokio::select! {
            outcome = run(&endpoint) => outcome,
            _ = terminate.recv() => Ok(()),
        }
    })
}

fn at(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    |source| Error::File { what, source }
}

async fn run(endpoint: &str) -> Result<(), Error> {
    let console = Output::open(Path::new(LOG), true).map_err(at(LOG))?;
    ecs::write_defaults(endpoint).map_err(at("/var/lib/ecs"))?;
    let (instance, user_data) = ask(&console).await;
    console.line(&format!("cloud-init: instance {instance}"));
    let directory = Path::new(STATE).join(&instance);
    let found = user_data::read(&user_data);
    for notice in &found.notices {
        console.line(&format!("cloud-init: {notice}"));
    }
    let first = is_first_boot(&directory).map_err(at(STATE))?;
    let runs = Runs { console: &console, directory, instance, endpoint };
    for when in [When::EveryBoot, When::FirstBoot] {
        let parts = found.parts.iter().enumerate().filter(|(_, part)| part.when == when);
        for (number, part) in parts.filter(|_| first || when == When::EveryBoot) {
            runs.part(number + 1, part).await;
        }
    }
    console.line("cloud-init: finished");
    ecs::run(&console).await.map(|never| match never {}).map_err(at("/var/log/ecs"))
}

/// Who the instance is and what it was given, once the metadata service answers.
async fn ask(console: &Output) -> (String, Vec<u8>) {
    let imds = Imds::default();
    let mut said = false;
    loop {
        match ask_once(&imds).await {
            Ok(answers) => return answers,
            Err(error) if !said => {
                said = true;
                console.line(&format!("cloud-init: {error}"));
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask_once(imds: &Imds) -> Result<(String, Vec<u8>), ImdsError> {
    let instance = imds.required("meta-data/instance-id").await?;
    let user_data = imds.get("user-data").await?.map(|bytes| bytes.to_vec()).unwrap_or_default();
    // It becomes the name of a directory.
    let instance = instance.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect();
    Ok((instance, user_data))
}

/// Whether this instance has never booted from this volume. Said once: as with cloud-init, a script that was cut off does
/// not run again.
fn is_first_boot(directory: &Path) -> io::Result<bool> {
    let mark = directory.join("sem/config_scripts_user");
    if mark.exists() {
        return Ok(false);
    }
    fs::create_dir_all(directory.join("sem"))?;
    fs::File::create(mark)?.sync_all()?;
    Ok(true)
}

struct Runs<'a> {
    console: &'a Output,
    directory: PathBuf,
    instance: String,
    endpoint: &'a str,
}

impl Runs<'_> {
    async fn part(&self, number: usize, part: &Part) {
        let name = format!("part-{number:03}");
        match self.run(&name, part).await {
            Ok(status) if status.success() => {}
            Ok(status) => self.console.line(&format!("cloud-init: {name} of the user data failed: {status}")),
            Err(error) => self.console.line(&format!("cloud-init: {name} of the user data cannot be run: {error}")),
        }
    }

    async fn run(&self, name: &str, part: &Part) -> io::Result<std::process::ExitStatus> {
        let (below, content) = match part.when {
            When::EveryBoot => ("boothooks", script_of(&part.content)),
            When::FirstBoot => ("scripts", part.content.clone()),
        };
        let directory = self.directory.join(below);
        fs::create_dir_all(&directory)?;
        let path = directory.join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        let mut command = Command::new(&path);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("INSTANCE_ID", &self.instance)
            .env("AWS_ENDPOINT_URL", self.endpoint)
            .current_dir("/")
            .kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let console = self.console.clone();
        let mut copying = tokio::spawn(async move {
            let (stdout, stderr) = (stdout.map(|from| console.copy(from)), stderr.map(|from| console.copy(from)));
            tokio::join!(maybe(stdout), maybe(stderr));
        });
        let status = child.wait().await?;
        // What it left running in the background may hold its output for ever.
        let _ = tokio::time::timeout(LAST_WORDS, &mut copying).await;
        Ok(status)
    }
}

async fn maybe(copying: Option<impl Future<Output = ()>>) {
    if let Some(copying) = copying {
        copying.await;
    }
}

/// A boothook need not say what reads it: then it is the shell.
fn script_of(content: &[u8]) -> Vec<u8> {
    let rest = match content.strip_prefix(b"#cloud-boothook") {
        Some(rest) => {
            rest.iter().position(|byte| *byte == b'\n').and_then(|end| rest.get(end + 1..)).unwrap_or_default()
        }
        None => content,
    };
    if rest.starts_with(b"#!") { rest.to_vec() } else { [b"#!/bin/sh\n", rest].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_boot_is_said_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let instance = directory.path().join("i-1");
        assert!(is_first_boot(&instance).expect("marked"));
        assert!(!is_first_boot(&instance).expect("marked"));
        assert!(is_first_boot(&directory.path().join("i-2")).expect("marked"));
    }

    #[test]
    fn a_boothook_is_a_script_without_its_first_line() {
        assert_eq!(script_of(b"#cloud-boothook\n#!/bin/bash\nx"), b"#!/bin/bash\nx");
        assert_eq!(script_of(b"#cloud-boothook\nx\n"), b"#!/bin/sh\nx\n");
        assert_eq!(script_of(b"#cloud-boothook"), b"#!/bin/sh\n");
        assert_eq!(script_of(b"x"), b"#!/bin/sh\nx");
    }

    #[tokio::test]
    async fn a_part_runs_and_what_it_prints_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("out.log");
        let console = Output::open(&log, false).expect("a file");
        let runs = Runs {
            console: &console,
            directory: directory.path().join("i-1"),
            instance: "i-1".to_owned(),
            endpoint: "http://127.0.0.1:1",
        };
        let script = |text: &str| Part { when: When::FirstBoot, content: text.as_bytes().to_vec() };
        runs.part(1, &script("#!/bin/sh\necho $INSTANCE_ID at $AWS_ENDPOINT_URL; sleep 30 & exit 3\n")).await;
        runs.part(2, &script("#!/nonexistent\n")).await;
        let text = fs::read_to_string(&log).expect("a log");
        assert!(text.contains("i-1 at http://127.0.0.1:1"), "{text}");
        assert!(text.contains("part-001 of the user data failed: exit status: 3"), "{text}");
        assert!(text.contains("part-002 of the user data cannot be run"), "{text}");
    }
}
