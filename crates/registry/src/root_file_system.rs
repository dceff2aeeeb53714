//! What an image's root file system is made of: its layers, for whoever fills a disk with it.

use std::sync::Arc;

use domain::{
    Scope,
    instances::ImageLayer,
    repositories::{Digest, Image},
};
use serde::Deserialize;

use crate::{ImageReference, Registry, RegistryError, images, media_types};

/// Larger configurations nobody has.
const MAX_CONFIG: u64 = 8 << 20;
/// The kernel and container engines have their bounds too.
const MAX_LAYERS: usize = 200;

/// The root file system of an image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFileSystem {
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The lowest first.
    pub layers: Vec<ImageLayer>,
}

/// Why an image has none.
#[derive(Debug, thiserror::Error)]
pub enum RootFileSystemError {
    /// It cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It is for other platforms.
    #[error("the image is for {offered}, and not for {wanted}")]
    Platform {
        /// `linux/amd64`, ….
        offered: String,
        /// As asked for.
        wanted: String,
    },
    /// It is no image, or a damaged one.
    #[error("it is no image of a Linux system: {0}")]
    NoImage(String),
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Offer>,
}

#[derive(Deserialize)]
struct Offer {
    digest: Digest,
    platform: Option<Platform>,
}

#[derive(Default, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl Platform {
    fn text(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(flatten)]
    platform: Platform,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Registry {
    /// The root file system that a reference means for a platform such as `linux/amd64`.
    ///
    /// # Errors
    /// If there is no such image, or no such platform in it.
    pub async fn root_file_system(
        &self,
        scope: &Scope,
        name: &str,
        reference: &ImageReference,
        platform: &str,
    ) -> Result<RootFileSystem, RootFileSystemError> {
        let no_image = |error: serde_json::Error| RootFileSystemError::NoImage(error.to_string());
        let mut image = images::find(&self.snapshot(), scope, name, reference)?;
        if media_types::is_index(&image.media_type) {
            let index: Index = serde_json::from_slice(&self.manifest(&image).await?).map_err(no_image)?;
            let chosen = choose(&index.manifests, platform)?;
            image = images::find(&self.snapshot(), scope, name, &ImageReference::Digest(chosen))?;
        }
        let manifest: Manifest = serde_json::from_slice(&self.manifest(&image).await?).map_err(no_image)?;
        let configuration = self.configuration(scope, name, &manifest.config.digest).await?;
        let configuration: Configuration = serde_json::from_slice(&configuration).map_err(no_image)?;
        let layers = layers(manifest, configuration, platform)?;
        self.all_are_here(scope, name, &image, &layers)?;
        Ok(RootFileSystem { manifest: image.digest.clone(), layers })
    }

    async fn configuration(&self, scope: &Scope, name: &str, digest: &Digest) -> Result<Vec<u8>, RootFileSystemError> {
        let blob = self.open_layer(&*self.layer(scope, name, digest)?).await?;
        if blob.size() > MAX_CONFIG {
            return Err(RootFileSystemError::NoImage("its configuration is larger than 8 MiB".to_owned()));
        }
        let read = move || {
            let mut bytes = vec![0; usize::try_from(blob.size()).unwrap_or_default()];
            let count = blob.read(0, &mut bytes)?;
            bytes.truncate(count);
            Ok(bytes)
        };
        Ok(crate::blocking(read).await.map_err(RegistryError::from)?)
    }

    /// Layers that may not be redistributed were never pushed.
    fn all_are_here(
        &self,
        scope: &Scope,
        name: &str,
        image: &Arc<Image>,
        layers: &[ImageLayer],
    ) -> Result<(), RootFileSystemError> {
        for layer in layers {
            if !image.layers.contains(&layer.digest) {
                return Err(RootFileSystemError::NoImage("it has layers that are kept elsewhere".to_owned()));
            }
            self.layer(scope, name, &layer.digest)?;
        }
        Ok(())
    }
}

fn choose(offers: &[Offer], wanted: &str) -> Result<Digest, RootFileSystemError> {
    let text = |offer: &Offer| offer.platform.as_ref().map(Platform::text).unwrap_or_default();
    let chosen = offers.iter().find(|offer| text(offer) == wanted).map(|offer| offer.digest.clone());
    chosen.ok_or_else(|| {
        let mut offered: Vec<String> = offers.iter().map(text).filter(|text| !text.is_empty()).take(20).collect();
        offered.dedup();
        let offered = if offered.is_empty() { "no platform".to_owned() } else { offered.join(", ") };
        RootFileSystemError::Platform { offered, wanted: wanted.to_owned() }
    })
}

fn layers(
    manifest: Manifest,
    configuration: Configuration,
    wanted: &str,
) -> Result<Vec<ImageLayer>, RootFileSystemError> {
    let offered = configuration.platform.text();
    if offered != wanted {
        return Err(RootFileSystemError::Platform { offered, wanted: wanted.to_owned() });
    }
    let (digests, diff_ids) = (manifest.layers, configuration.rootfs.diff_ids);
    if digests.is_empty() || digests.len() > MAX_LAYERS || digests.len() != diff_ids.len() {
        let text = format!("it has {} layers, and its configuration names {}", digests.len(), diff_ids.len());
        return Err(RootFileSystemError::NoImage(text));
    }
    let pairs = digests.into_iter().zip(diff_ids);
    Ok(pairs.map(|(layer, diff_id)| ImageLayer { digest: layer.digest, diff_id }).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Hasher;

    fn of(text: &str) -> Digest {
        Hasher::of(text.as_bytes())
    }

    fn check(architecture: &str, diff_ids: &[Digest]) -> Result<Vec<ImageLayer>, String> {
        let manifest = json!({"config": {"digest": of("c")}, "layers": [{"digest": of("a")}, {"digest": of("b")}]});
        let configuration =
            json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let (manifest, configuration) =
            (serde_json::from_value(manifest).unwrap(), serde_json::from_value(configuration).unwrap());
        layers(manifest, configuration, "linux/amd64").map_err(|error| error.to_string())
    }

    #[test]
    fn layers_go_with_what_is_in_them() {
        let found = check("amd64", &[of("A"), of("B")]).unwrap();
        let layer = |digest: &str, diff_id: &str| ImageLayer { digest: of(digest), diff_id: of(diff_id) };
        assert_eq!(found, [layer("a", "A"), layer("b", "B")]);
        let refused = check("arm64", &[of("A"), of("B")]).unwrap_err();
        assert_eq!(refused, "the image is for linux/arm64, and not for linux/amd64");
        assert!(check("amd64", &[of("A")]).unwrap_err().contains("2 layers, and its configuration names 1"));
    }

    #[test]
    fn an_index_offers_platforms() {
        let offer = |name: &str, architecture: &str| json!({"digest": of(name), "platform": {"os": "linux", "architecture": architecture}});
        let index = json!({"manifests": [{"digest": of("x")}, offer("a", "arm64"), offer("b", "amd64")]});
        let index: Index = serde_json::from_value(index).unwrap();
        assert_eq!(choose(&index.manifests, "linux/amd64").unwrap(), of("b"));
        let refused = choose(&index.manifests, "linux/s390x").unwrap_err().to_string();
        assert_eq!(refused, "the image is for linux/arm64, linux/amd64, and not for linux/s390x");
    }
}
