//! Everything that can go wrong, in Amazon's words. Each face has its own codes for these.

use std::io;

use domain::{AccountId, repositories::Digest};

/// Why the registry does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such repository.
    #[error("The repository with name '{name}' does not exist in the registry with id '{registry}'")]
    RepositoryNotFound {
        /// The name that was asked for.
        name: String,
        /// The account.
        registry: AccountId,
    },
    /// No such image.
    #[error("Requested image not found")]
    ImageNotFound,
    /// The repository has no such layer.
    #[error(
        "The layer with digest '{digest}' does not exist within the repository with name '{name}' in the registry with id '{registry}'"
    )]
    LayerNotFound {
        /// The digest.
        digest: String,
        /// The repository.
        name: String,
        /// The account.
        registry: AccountId,
    },
    /// A layer still belongs to an image.
    #[error("The layer with digest '{digest}' cannot be deleted because it is used by an image in the repository")]
    LayerInUse {
        /// The layer.
        digest: Digest,
    },
    /// A manifest names layers that the repository does not have.
    #[error(
        "Layers with digests '[{}]' required for pushing image into repository with name '{name}' in the registry with id '{registry}' do not exist",
        list(digests)
    )]
    LayersNotFound {
        /// What is missing.
        digests: Vec<Digest>,
        /// The repository.
        name: String,
        /// The account.
        registry: AccountId,
    },
    /// An index names manifests that the repository does not have.
    #[error(
        "Images with digests '[{}]' required for pushing image into repository with name '{name}' in the registry with id '{registry}' do not exist",
        list(digests)
    )]
    ReferencedImagesNotFound {
        /// What is missing.
        digests: Vec<Digest>,
        /// The repository.
        name: String,
        /// The account.
        registry: AccountId,
    },
    /// An image is named by an index, and cannot go before it.
    #[error("Requested image referenced by manifest list: [{}]", list(indexes))]
    ReferencedByIndex {
        /// The indexes.
        indexes: Vec<Digest>,
    },
    /// The tag exists and may not move.
    #[error(
        "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the tag is immutable."
    )]
    TagImmutable {
        /// The tag.
        tag: String,
        /// The repository.
        name: String,
    },
    /// Not a tag.
    #[error(
        "'{0}' is not an image tag: it must have 1 to 128 letters, digits, underscores, dots and dashes, and begin with none of the last two"
    )]
    TagInvalid(String),
    /// The manifest is not one.
    #[error(transparent)]
    Manifest(#[from] crate::ManifestError),
    /// No such upload in this repository.
    #[error("The upload with id '{0}' does not exist")]
    UploadNotFound(String),
    /// Not the digest that the bytes have, or none that the registry takes.
    #[error("{0}")]
    DigestInvalid(String),
    /// Bytes that do not continue the upload.
    #[error("The upload has {offset} bytes: the next part must begin there")]
    RangeInvalid {
        /// How many bytes the upload has.
        offset: u64,
    },
    /// The number of bytes is not the one announced.
    #[error("{0}")]
    SizeInvalid(String),
    /// Beyond a bound.
    #[error("{0}")]
    TooLarge(String),
    /// Too many uploads at once.
    #[error("There are too many unfinished uploads. Finish some or wait until they expire.")]
    TooManyUploads,
    /// The client stopped sending.
    #[error("The request's body ended early: {0}")]
    Body(String),
    /// The disk failed or is full.
    #[error("The registry's storage failed: {0}")]
    Storage(#[from] io::Error),
    /// The state could not be saved.
    #[error("The request could not be saved. Check the platform's log and its disk, then try again.")]
    NotSaved,
}

impl From<store::TransactError<RegistryError>> for RegistryError {
    fn from(error: store::TransactError<RegistryError>) -> Self {
        match error {
            store::TransactError::Refused(error) => error,
            store::TransactError::NotDurable(_) | store::TransactError::Closed => Self::NotSaved,
        }
    }
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(Digest::as_str).collect::<Vec<_>>().join(", ")
}
