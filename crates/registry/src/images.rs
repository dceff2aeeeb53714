//! Images of repositories: pushing, finding and deleting manifests and tags.

use std::sync::Arc;

use bytes::Bytes;
use domain::{
    Resource, Scope,
    repositories::{Digest, Image, ImageTag, Layer, content_key, tag_key, valid_tag},
};
use store::{Snapshot, Transaction};

use crate::{
    Hasher, Manifest, Registry, RegistryError, blocking,
    layers::{detached, is_referenced, repository, settled},
};

/// How an image is named within its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageReference {
    /// By a tag.
    Tag(String),
    /// By the digest of its manifest.
    Digest(Digest),
}

impl ImageReference {
    /// What stands after `/manifests/`: a digest if it looks like one, else a tag. `None` when it can be neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            return text.parse().ok().map(Self::Digest);
        }
        valid_tag(text).then(|| Self::Tag(text.to_owned()))
    }
}

/// A manifest to be pushed.
#[derive(Debug)]
pub struct PutImage {
    /// The manifest as it will be served.
    pub manifest: Bytes,
    /// What the request says it is.
    pub media_type: Option<String>,
    /// The digest that the client computed.
    pub digest: Option<Digest>,
    /// The tag it gets.
    pub tag: Option<String>,
}

/// What became of a pushed manifest.
#[derive(Debug)]
pub struct Put {
    /// The image as it is stored.
    pub image: Image,
    /// Whether image and tag were there already, just so.
    pub existed: bool,
}

/// The image that a reference means, if the repository has it.
pub fn find(
    snapshot: &Snapshot,
    scope: &Scope,
    name: &str,
    reference: &ImageReference,
) -> Result<Arc<Image>, RegistryError> {
    repository(snapshot, scope, name)?;
    let digest = match reference {
        ImageReference::Digest(digest) => digest.clone(),
        ImageReference::Tag(tag) => {
            let tag = snapshot.get::<ImageTag>(&tag_key(scope, name, tag)).ok_or(RegistryError::ImageNotFound)?;
            tag.digest.clone()
        }
    };
    snapshot.get(&content_key(scope, name, &digest)).ok_or(RegistryError::ImageNotFound)
}

/// The tags of an image, in order.
pub fn tags_of(snapshot: &Snapshot, image: &Image) -> Vec<String> {
    snapshot.find::<ImageTag>(ImageTag::BY_IMAGE, image.key()).map(|tag| tag.tag.clone()).collect()
}

/// Deletes what a reference means: by digest the image with all its tags; by tag the tag, and with its last tag the
/// image, as Amazon does. Returns what is gone: the digest, and the tags.
pub fn delete(
    tx: &mut Transaction,
    scope: &Scope,
    name: &str,
    reference: &ImageReference,
) -> Result<(Digest, Vec<String>), RegistryError> {
    let image = find(tx, scope, name, reference)?;
    let tags = tags_of(tx, &image);
    let mut indexes = tx.find::<Image>(Image::BY_CHILD, image.key()).map(|index| index.digest.clone());
    let first_index = indexes.next();
    let indexes: Vec<Digest> = first_index.into_iter().chain(indexes.take(9)).collect();
    match reference {
        ImageReference::Digest(_) if !indexes.is_empty() => Err(RegistryError::ReferencedByIndex { indexes }),
        ImageReference::Digest(_) => {
            tags.iter().for_each(|tag| tx.delete::<ImageTag>(&tag_key(scope, name, tag)));
            tx.delete::<Image>(&image.key());
            Ok((image.digest.clone(), tags))
        }
        ImageReference::Tag(tag) => {
            tx.delete::<ImageTag>(&tag_key(scope, name, tag));
            if tags.len() == 1 && indexes.is_empty() {
                tx.delete::<Image>(&image.key());
            }
            Ok((image.digest.clone(), vec![tag.clone()]))
        }
    }
}

/// Deletes everything in a repository: what deleting the repository itself does first.
pub fn clear(tx: &mut Transaction, scope: &Scope, name: &str) {
    let (contents, tags) = (scope.key(&format!("{name}@")), scope.key(&format!("{name}:")));
    let tags: Vec<String> = tx.list::<ImageTag>(&tags).map(|tag| tag.key()).collect();
    tags.iter().for_each(|key| tx.delete::<ImageTag>(key));
    let images: Vec<String> = tx.list::<Image>(&contents).map(|image| image.key()).collect();
    images.iter().for_each(|key| tx.delete::<Image>(key));
    let layers: Vec<String> = tx.list::<Layer>(&contents).map(|layer| layer.key()).collect();
    layers.iter().for_each(|key| tx.delete::<Layer>(key));
}

impl Registry {
    /// Pushes a manifest: all or nothing of image and tag.
    pub async fn put_image(self: &Arc<Self>, scope: &Scope, name: &str, put: PutImage) -> Result<Put, RegistryError> {
        repository(&self.snapshot(), scope, name)?;
        if let Some(tag) = put.tag.as_ref().filter(|tag| !valid_tag(tag)) {
            return Err(RegistryError::TagInvalid(tag.chars().take(160).collect()));
        }
        let manifest = Manifest::parse(&put.manifest, put.media_type.as_deref())?;
        let digest = Hasher::of(&put.manifest);
        if put.digest.as_ref().is_some_and(|expected| *expected != digest) {
            return Err(RegistryError::DigestInvalid(format!(
                "The manifest's digest is '{digest}', not the one that was provided"
            )));
        }
        // Refused before anything is written, and decided again in the transaction.
        admit(&self.snapshot(), scope, name, &manifest, &digest, put.tag.as_deref())?;
        let (registry, scope, name) = (self.clone(), scope.clone(), name.to_owned());
        detached(async move { registry.commit_image(scope, name, put, manifest, digest).await }).await
    }

    async fn commit_image(
        &self,
        scope: Scope,
        name: String,
        put: PutImage,
        manifest: Manifest,
        digest: Digest,
    ) -> Result<Put, RegistryError> {
        let manifest_size = put.manifest.len() as u64;
        let pin = self.pins.hold(&digest);
        if !is_referenced(&self.snapshot(), &digest) {
            let staged = self.stage(put.manifest).await?;
            let (disk, blobs, wanted) = (self.disk.clone(), self.blobs.clone(), digest.clone());
            blocking(move || {
                let adopted = blobs.adopt(&staged, &wanted);
                if adopted.is_err() {
                    crate::disk::found(disk.remove(&staged))?;
                }
                adopted
            })
            .await?;
        }
        let pushed = self.clock.now();
        let tag = put.tag;
        let commit = move |tx: &mut Transaction| {
            let size = admit(tx, &scope, &name, &manifest, &digest, tag.as_deref())?;
            let key = content_key(&scope, &name, &digest);
            let known = tx.get::<Image>(&key);
            let mut existed = known.is_some();
            let image = match known {
                Some(image) => Image::clone(&image),
                None => {
                    let about = manifest.subject.is_some();
                    let image = Image {
                        scope: scope.clone(),
                        repository: name.clone(),
                        digest: digest.clone(),
                        media_type: manifest.media_type,
                        artifact_type: manifest.artifact_type,
                        manifest_size,
                        size,
                        layers: manifest.layers,
                        children: manifest.children,
                        subject: manifest.subject,
                        annotations: if about { manifest.annotations } else { Default::default() },
                        pushed,
                    };
                    tx.put(image.clone());
                    image
                }
            };
            if let Some(tag) = tag {
                let tag = ImageTag { scope, repository: name, tag, digest };
                if tx.get::<ImageTag>(&tag.key()).is_none_or(|known| *known != tag) {
                    existed = false;
                    tx.put(tag);
                }
            }
            Ok(Put { image, existed })
        };
        settled(pin, self.store.transact(commit).await)
    }

    /// Deletes what a reference means, see [`delete`].
    pub async fn delete_image(
        &self,
        scope: &Scope,
        name: &str,
        reference: &ImageReference,
    ) -> Result<(), RegistryError> {
        self.store.transact(|tx| delete(tx, scope, name, reference).map(drop)).await?;
        Ok(())
    }

    /// The manifest of an image, as it was pushed.
    pub async fn manifest(&self, image: &Image) -> Result<Bytes, RegistryError> {
        let blob = self.open_blob(&image.digest).await?;
        let size = usize::try_from(image.manifest_size).unwrap_or(usize::MAX).min(crate::MAX_MANIFEST_BYTES);
        let read = move || {
            let mut manifest = vec![0; size];
            let count = blob.read(0, &mut manifest)?;
            manifest.truncate(count);
            Ok(manifest)
        };
        Ok(blocking(read).await?.into())
    }

    async fn stage(&self, bytes: Bytes) -> Result<std::path::PathBuf, RegistryError> {
        let name = self.uploads.staging_path();
        let (disk, path) = (self.disk.clone(), name.clone());
        blocking(move || disk.write(&disk.create(&path)?, &bytes, 0)).await?;
        Ok(name)
    }
}

/// Whether the repository may take the image under this tag; how many bytes its layers have.
fn admit(
    snapshot: &Snapshot,
    scope: &Scope,
    name: &str,
    manifest: &Manifest,
    digest: &Digest,
    tag: Option<&str>,
) -> Result<u64, RegistryError> {
    let repository = repository(snapshot, scope, name)?;
    if let Some(tag) = tag
        && repository.mutability.is_immutable(tag)
        && snapshot.get::<ImageTag>(&tag_key(scope, name, tag)).is_some_and(|known| known.digest != *digest)
    {
        return Err(RegistryError::TagImmutable { tag: tag.to_owned(), name: name.to_owned() });
    }
    let mut size = 0;
    let mut missing = Vec::new();
    for digest in &manifest.layers {
        match snapshot.get::<Layer>(&content_key(scope, name, digest)) {
            Some(layer) => size += layer.size,
            None => missing.push(digest.clone()),
        }
    }
    if !missing.is_empty() {
        let (name, registry) = (name.to_owned(), scope.account.clone());
        return Err(RegistryError::LayersNotFound { digests: missing, name, registry });
    }
    for digest in &manifest.children {
        match snapshot.get::<Image>(&content_key(scope, name, digest)) {
            Some(image) => size += image.size,
            None => missing.push(digest.clone()),
        }
    }
    if !missing.is_empty() {
        let (name, registry) = (name.to_owned(), scope.account.clone());
        return Err(RegistryError::ReferencedImagesNotFound { digests: missing, name, registry });
    }
    Ok(size)
}
