//! What a stored noun must say of itself.

use serde::{Serialize, de::DeserializeOwned};

/// A noun that the store keeps: it has a kind, a key that never changes, and index entries derived from its value.
///
/// The value is kept as JSON, so a field added later needs `#[serde(default)]`.
pub trait Resource: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The kind's name on disk, e.g. `ecs/task`. Never changes once released.
    const KIND: &'static str;

    /// The key, unique within the kind. For most resources it is the ARN; for those that Amazon names within a
    /// region only it is `{account}/{region}/{id}` (see [`crate::Scope::key`]).
    fn key(&self) -> String;

    /// Secondary index entries: pairs of an index name and the value under which this resource is found there,
    /// e.g. `("service", service_arn)`. The store keeps them in step with the value.
    fn indexes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
