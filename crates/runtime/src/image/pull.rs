//! Pulling, as the caller sees it: a child downloads, another unpacks each layer, and the image becomes visible at the end.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::fetch::{Event, Job};
use super::store::Record;
use super::{Digest, Image, ImageError, ImageStore, PullProgress, PullRequest, manifest, unpack};
use crate::{PULL, files};

/// What is told about a pull while it goes on.
type Progress = Arc<dyn Fn(PullProgress) + Send + Sync>;

impl ImageStore {
    /// Brings an image here: downloads what is missing, verifies it and unpacks it. Several calls for the same content share the work.
    /// A cancelled call stops the download and leaves nothing visible.
    ///
    /// # Errors
    /// The kinds of [`ImageError`].
    pub async fn pull(&self, request: PullRequest, progress: Progress) -> Result<Image, ImageError> {
        let content = self.content.read().await;
        if request.missing_only
            && let Some(image) = self.lookup(&request.reference)
        {
            self.remember(&Record {
                reference: request.reference,
                digest: image.digest.clone(),
                index_digest: image.index_digest.clone(),
                used_at: files::now_nanoseconds(),
            })?;
            return Ok(image);
        }
        let patience = request.timeout;
        let reference = request.reference.to_string();
        let image = match tokio::time::timeout(patience, self.pull_through(request, progress)).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                let detail = format!("not complete after {} seconds", patience.as_secs());
                return Err(ImageError::Timeout { url: reference.clone(), reference, detail });
            }
        };
        drop(content);
        self.forget_packed_layers(&image.digest);
        Ok(image)
    }

    /// Unpacked layers are not kept packed as well, unless another pull may be about to unpack them over other layers.
    fn forget_packed_layers(&self, digest: &Digest) {
        let Ok(_content) = self.content.try_write() else { return };
        let Ok((manifest, _)) = self.describe(digest) else { return };
        for layer in manifest.layers {
            // What is left, the next collection removes.
            let _ = fs::remove_file(self.blobs().path(&layer.digest));
        }
    }

    async fn pull_through(&self, request: PullRequest, progress: Progress) -> Result<Image, ImageError> {
        let reference = request.reference.clone();
        let (digest, index_digest) = self.download(request, &progress).await?;
        let record = Record { reference, digest, index_digest, used_at: files::now_nanoseconds() };
        let (manifest, configuration) = self.describe(&record.digest)?;
        let chain = configuration.chain();
        for (number, name) in chain.iter().enumerate() {
            let (Some(blob), Some(diff_id)) = (manifest.layers.get(number), configuration.diff_ids.get(number)) else {
                break;
            };
            self.unpack_layer(name, &blob.digest, diff_id, chain.get(..number).unwrap_or_default()).await?;
            progress(PullProgress::Unpacked { layer: number + 1, layers: chain.len() });
        }
        self.remember(&record)?;
        self.image(&record)
    }

    /// Runs the child that speaks to the registry; returns the manifest's and the index's digest.
    async fn download(
        &self,
        request: PullRequest,
        progress: &Progress,
    ) -> Result<(Digest, Option<Digest>), ImageError> {
        let job = Job { root: self.options.root.clone(), request, platform: manifest::host_platform() };
        let job = serde_json::to_vec(&job).map_err(|error| ImageError::Helper(error.to_string()))?;
        let mut command = self.options.helper.command(PULL);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // The certificates an operator names are trusted in the child too.
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let gone = || ImageError::Helper("the puller ended without a result".to_owned());
        let (mut input, output) = (child.stdin.take().ok_or_else(gone)?, child.stdout.take().ok_or_else(gone)?);
        // On standard input: arguments can be read by everybody.
        input.write_all(&job).await?;
        drop(input);
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await? {
            match serde_json::from_str(&line).map_err(|error| ImageError::Helper(error.to_string()))? {
                Event::Resolved { digest, layers, bytes } => progress(PullProgress::Resolved { digest, layers, bytes }),
                Event::Downloaded { digest, bytes, total } => {
                    progress(PullProgress::Downloaded { digest, bytes, total })
                }
                Event::Done { digest, index_digest } => return Ok((digest, index_digest)),
                Event::Failed(failure) => return Err(failure.into()),
            }
        }
        Err(gone())
    }

    /// Unpacks one layer unless it is there, and publishes it under its name.
    async fn unpack_layer(
        &self,
        name: &Digest,
        blob: &Digest,
        diff_id: &Digest,
        below: &[Digest],
    ) -> Result<(), ImageError> {
        let lock = self.layer_lock(name);
        let _unpacking = lock.lock().await;
        let target = self.layer_path(name);
        if target.is_dir() {
            return Ok(());
        }
        let staging = self.options.root.join("staging").join(name.hex());
        if staging.exists() {
            fs::remove_dir_all(&staging)?;
        }
        files::private_directory(&staging)?;
        fs::set_permissions(&staging, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let guard = Staging(&staging);
        let job = unpack::Job {
            directory: staging.clone(),
            // The top one first: that is the order to look for what a path means.
            lowers: below.iter().rev().map(|name| self.layer_path(name)).collect(),
            limits: self.options.limits,
            merged: false,
        };
        let unpacked = unpack::run(&self.options.helper, &job, &self.blobs().path(blob), blob).await?;
        if unpacked.diff_id != *diff_id {
            return Err(ImageError::DigestMismatch {
                expected: diff_id.to_string(),
                actual: unpacked.diff_id.to_string(),
            });
        }
        let published = target.clone();
        let staged = staging.clone();
        let publish = move || -> Result<(), ImageError> {
            unpack::mark_opaque(&staged, &unpacked.opaque)?;
            let directory = fs::File::open(&staged)?;
            nix::unistd::syncfs(&directory).map_err(std::io::Error::from)?;
            fs::rename(&staged, &published)?;
            Ok(files::sync_parent(&published)?)
        };
        let outcome =
            tokio::task::spawn_blocking(publish).await.map_err(|error| ImageError::Helper(error.to_string()))?;
        drop(guard);
        outcome
    }
}

/// Removes a layer that was not published, whatever happened to it.
struct Staging<'a>(&'a std::path::Path);

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Gone if it was published; else the next opening of the store tries again.
        let _ = fs::remove_dir_all(self.0);
    }
}
