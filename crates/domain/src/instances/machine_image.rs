//! An Amazon Machine Image made of an OCI image: which layers the root volumes of its instances are filled from.

use serde::{Deserialize, Serialize};

use crate::{Resource, Scope, Tags, Timestamp, repositories::Digest};

/// A layer of an OCI image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// Of the blob that the registry keeps.
    pub digest: Digest,
    /// Of the archive in it.
    pub diff_id: Digest,
}

/// An AMI that a user has registered. It never changes, whatever becomes of the tag it was registered by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineImage {
    /// Account and region.
    pub scope: Scope,
    /// `ami-…`.
    pub image_id: String,
    /// `snap-…`: what volumes made of it are said to be made from.
    pub snapshot_id: String,
    /// Unique in its account and region.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The OCI image: `{registry}/{repository}@{digest of its manifest}`.
    pub location: String,
    /// Its layers, the lowest first.
    pub layers: Vec<ImageLayer>,
    /// The size of the root volume in GiB unless an instance asks for more.
    pub size_gib: u64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// User's tags.
    pub tags: Tags,
}

impl MachineImage {
    /// The index that finds the images that need a blob of the registry.
    pub const BY_BLOB: &str = "blob";
}

impl Resource for MachineImage {
    const KIND: &'static str = "ec2/image";
    fn key(&self) -> String {
        self.scope.key(&self.image_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        self.layers.iter().map(|layer| (Self::BY_BLOB, layer.digest.to_string())).collect()
    }
}
