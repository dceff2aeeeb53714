//! EBS volumes: a sparse file on the machine, a block device in an instance.

use serde::{Deserialize, Serialize};

use super::ImageLayer;
use crate::{Resource, Scope, Tags, Timestamp};

/// A volume and the instance that has it, if one has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Account and region.
    pub scope: Scope,
    /// `vol-…`.
    pub volume_id: String,
    /// Its zone: only instances of it can have it.
    pub availability_zone: String,
    /// In GiB.
    pub size_gib: u64,
    /// `gp3`, `gp2`, `io1`, `io2`, `st1`, `sc1`, `standard`: kept and shown; the disk beneath is the machine's.
    pub volume_type: String,
    /// As asked for or the type's default; shown, not enforced.
    pub iops: Option<u64>,
    /// As asked for or the type's default, in MiB/s; shown, not enforced.
    pub throughput: Option<u64>,
    /// The image's snapshot it was made from.
    pub snapshot_id: Option<String>,
    /// What it is filled from before anybody sees it, the lowest layer first; it is empty if there is none.
    #[serde(default)]
    pub layers: Vec<ImageLayer>,
    /// Who has it.
    pub attachment: Option<VolumeAttachment>,
    /// The token of the request that made it: the same request again makes no other.
    pub client_token: Option<String>,
    /// Why `host` cannot have it, as last reported; `None` when it has it or has not spoken.
    pub problem: Option<String>,
    /// Whether `host` has reported that its bytes exist.
    pub made: bool,
    /// What it was before it was last modified.
    #[serde(default)]
    pub modification: Option<VolumeModification>,
    /// When it was made.
    pub created_at: Timestamp,
    /// User's tags.
    pub tags: Tags,
}

/// What a volume was before ModifyVolume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeModification {
    /// In GiB.
    pub size_gib: u64,
    /// E.g. `gp3`.
    pub volume_type: String,
    /// As it was shown.
    pub iops: Option<u64>,
    /// As it was shown.
    pub throughput: Option<u64>,
    /// When it was modified.
    pub at: Timestamp,
}

/// That an instance has a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAttachment {
    /// `i-…`.
    pub instance_id: String,
    /// As the instance sees it, e.g. `/dev/xvda`.
    pub device_name: String,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
    /// Since when.
    pub attached_at: Timestamp,
}

impl Volume {
    /// The index that finds the volumes that have yet to be filled from a blob of the registry.
    pub const BY_BLOB: &str = "blob";
}

impl Resource for Volume {
    const KIND: &'static str = "ec2/volume";
    fn key(&self) -> String {
        self.scope.key(&self.volume_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let attached = self.attachment.iter().map(|attachment| ("instance", attachment.instance_id.clone()));
        let wanted = self.layers.iter().filter(|_| !self.made);
        let wanted = wanted.map(|layer| (Self::BY_BLOB, layer.digest.to_string()));
        attached.chain([("id", self.volume_id.clone())]).chain(wanted).collect()
    }
}
