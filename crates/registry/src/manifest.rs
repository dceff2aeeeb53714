//! Reading manifests: Docker's schema 2 and OCI's, image and index. Hostile input: every number is bounded, and what
//! one reader could take for an image and another for an index is refused.

use std::collections::BTreeMap;

use domain::repositories::Digest;
use serde::Deserialize;

/// The largest manifest, as Amazon's.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// The most layers of an image or images of an index, as Amazon's quota for layers.
const MAX_DESCRIPTORS: usize = 4200;
/// The most bytes of annotations that are kept for the list of referrers.
const MAX_ANNOTATIONS_BYTES: usize = 64 * 1024;
/// The longest media type, as RFC 6838 has it.
const MAX_MEDIA_TYPE: usize = 255;

/// The media types of manifests.
pub mod media_types {
    /// Docker's image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// OCI's image manifest, also of artifacts that are no images.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI's image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

    /// Whether manifests of this type name other manifests.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, DOCKER_LIST | OCI_INDEX)
    }
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Too long.
    #[error("The manifest has more than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or not of a manifest's form.
    #[error("The manifest cannot be read: {0}")]
    Json(String),
    /// A version that the registry does not take.
    #[error("Manifests of schema version {0} are not supported: push the image with schema version 2")]
    SchemaVersion(u64),
    /// A media type that the registry does not take.
    #[error("The manifest's media type '{0}' is not supported")]
    MediaType(String),
    /// The header and the manifest disagree.
    #[error("The manifest says its media type is '{inside}', the request says '{outside}'")]
    MediaTypesDiffer {
        /// In the JSON.
        inside: String,
        /// In the request.
        outside: String,
    },
    /// Something that must be there is not, or the other way round.
    #[error("The manifest {0}")]
    Form(&'static str),
    /// A bound.
    #[error("The manifest has more than {MAX_DESCRIPTORS} layers or images")]
    TooMany,
}

/// What the registry needs to know of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The media type it is served with.
    pub media_type: String,
    /// `artifactType`, or else the config's media type.
    pub artifact_type: Option<String>,
    /// The config and the layers that must be in the repository, each once.
    pub layers: Vec<Digest>,
    /// The manifests of an index, each once.
    pub children: Vec<Digest>,
    /// The manifest that this one is about; it need not exist.
    pub subject: Option<Digest>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    // Schema 1's; with them a reader of that schema would see another image.
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: Digest,
    #[serde(rename = "size")]
    _size: u64,
}

impl Manifest {
    /// Reads a manifest. `media_type` is what the request says it is, if it says so.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        // Schema 1 has a required version and none of the rest: tell its users what is wrong before the JSON's form.
        if let Some(SchemaVersion { schema_version }) = serde_json::from_slice(bytes).ok()
            && schema_version != 2
        {
            return Err(ManifestError::SchemaVersion(schema_version));
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(error.to_string()))?;
        if document.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(document.schema_version));
        }
        let media_type = media_type_of(&document, media_type)?;
        let index = media_types::is_index(&media_type);
        if document.fs_layers.is_some() {
            return Err(ManifestError::Form("has members of several kinds of manifests"));
        }
        let oci = [media_types::OCI_INDEX, media_types::OCI_MANIFEST].contains(&media_type.as_str());
        match (index, &document.manifests, &document.config, &document.layers) {
            (true, Some(_), None, None) | (false, None, Some(_), Some(_)) => {}
            (true, None, ..) => return Err(ManifestError::Form("has no list of manifests")),
            (false, None, ..) => return Err(ManifestError::Form("has no config or no layers")),
            _ => return Err(ManifestError::Form("has members of several kinds of manifests")),
        }
        let config_type = document.config.as_ref().and_then(|config| config.media_type.clone());
        let artifact_type = document.artifact_type.filter(|_| oci).or(config_type);
        if artifact_type.as_ref().is_some_and(|text| text.len() > MAX_MEDIA_TYPE) {
            return Err(ManifestError::Form("has an artifact type of more than 255 characters"));
        }
        let layers = document.config.into_iter().chain(document.layers.into_iter().flatten());
        let layers = digests(layers.filter(|layer| !layer.is_elsewhere()))?;
        let children = digests(document.manifests.into_iter().flatten())?;
        let subject = document.subject.filter(|_| oci).map(|subject| subject.digest);
        let annotations = document.annotations.unwrap_or_default();
        let annotation_bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if subject.is_some() && annotation_bytes > MAX_ANNOTATIONS_BYTES {
            return Err(ManifestError::Form("has a subject and more than 65536 bytes of annotations"));
        }
        Ok(Self { media_type, artifact_type, layers, children, subject, annotations })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaVersion {
    schema_version: u64,
}

impl Descriptor {
    /// Layers that may not be redistributed stay where their `urls` say: nobody pushes them.
    fn is_elsewhere(&self) -> bool {
        self.media_type.as_deref().is_some_and(|media_type| {
            media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
                || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
        })
    }
}

/// The digests, each once, in order.
fn digests(descriptors: impl Iterator<Item = Descriptor>) -> Result<Vec<Digest>, ManifestError> {
    let mut seen = std::collections::HashSet::new();
    let mut list = Vec::new();
    for (count, descriptor) in descriptors.enumerate() {
        if count >= MAX_DESCRIPTORS {
            return Err(ManifestError::TooMany);
        }
        if seen.insert(descriptor.digest.clone()) {
            list.push(descriptor.digest);
        }
    }
    Ok(list)
}

fn media_type_of(document: &Document, outside: Option<&str>) -> Result<String, ManifestError> {
    let known =
        [media_types::DOCKER_MANIFEST, media_types::DOCKER_LIST, media_types::OCI_MANIFEST, media_types::OCI_INDEX];
    // Parameters such as a charset say nothing about the kind of manifest; nor does a bare "JSON".
    let outside = outside.map(|text| text.split(';').next().unwrap_or_default().trim());
    let outside = outside.filter(|text| !matches!(*text, "" | "application/json" | "application/octet-stream"));
    let media_type = match (document.media_type.as_deref(), outside) {
        (Some(inside), Some(outside)) if inside != outside => {
            let short = |text: &str| text.chars().take(MAX_MEDIA_TYPE).collect();
            return Err(ManifestError::MediaTypesDiffer { inside: short(inside), outside: short(outside) });
        }
        (Some(media_type), _) | (None, Some(media_type)) => media_type,
        (None, None) if document.manifests.is_some() => media_types::OCI_INDEX,
        (None, None) => media_types::OCI_MANIFEST,
    };
    if known.contains(&media_type) {
        Ok(media_type.to_owned())
    } else {
        Err(ManifestError::MediaType(media_type.chars().take(MAX_MEDIA_TYPE).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::Hasher;

    fn descriptor(content: &str) -> Value {
        json!({"mediaType": "application/x", "digest": Hasher::of(content.as_bytes()), "size": content.len()})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": media_types::OCI_MANIFEST, "config": descriptor("c"),
            "layers": [descriptor("a"), descriptor("b"), descriptor("a")]})
    }

    fn parse(document: &Value, media_type: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::parse(&serde_json::to_vec(document).unwrap(), media_type)
    }

    fn with(mut document: Value, member: &str, value: Value) -> Value {
        document[member] = value;
        document
    }

    #[test]
    fn an_image_names_its_config_and_layers_once() {
        let manifest = parse(&image(), Some(media_types::OCI_MANIFEST)).unwrap();
        assert_eq!(manifest.layers, [Hasher::of(b"c"), Hasher::of(b"a"), Hasher::of(b"b")]);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/x"));
        let artifact = with(image(), "artifactType", json!("application/y"));
        assert_eq!(parse(&artifact, None).unwrap().artifact_type.as_deref(), Some("application/y"));
    }

    #[test]
    fn an_index_names_its_manifests_and_a_subject_need_not_exist() {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor("m")], "subject": descriptor("s")});
        let manifest = parse(&index, None).unwrap();
        assert_eq!(manifest.media_type, media_types::OCI_INDEX);
        assert_eq!((manifest.children, manifest.subject), (vec![Hasher::of(b"m")], Some(Hasher::of(b"s"))));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let refused = |document: &Value, media_type: Option<&str>, part: &str| {
            let error = parse(document, media_type).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(&with(image(), "manifests", json!([])), None, "several kinds");
        refused(&with(image(), "fsLayers", json!([])), None, "several kinds");
        refused(&image(), Some(media_types::DOCKER_MANIFEST), "the request says");
        refused(&with(image(), "mediaType", json!("application/x")), None, "not supported");
        refused(&json!({"schemaVersion": 1, "name": "a", "fsLayers": []}), None, "schema version 1");
        refused(&json!({"schemaVersion": 2}), None, "no config");
        refused(&json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX}), None, "no list");
        refused(&with(image(), "layers", json!([{"digest": "sha256:x", "size": 1}])), None, "sha256 digest");
        refused(&with(image(), "layers", json!([{"digest": Hasher::of(b""), "size": -1}])), None, "cannot be read");
        let many: Vec<Value> = (0..=MAX_DESCRIPTORS).map(|_| descriptor("a")).collect();
        refused(&with(image(), "layers", json!(many)), None, "more than 4200");
        assert_eq!(Manifest::parse(&vec![b' '; MAX_MANIFEST_BYTES + 1], None), Err(ManifestError::TooLarge));
        let twice = br#"{"schemaVersion":2,"layers":[],"layers":[]}"#;
        assert!(matches!(Manifest::parse(twice, None), Err(ManifestError::Json(_))));
    }

    #[test]
    fn layers_that_stay_elsewhere_are_not_asked_for() {
        let foreign = json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": Hasher::of(b"f"), "size": 1, "urls": ["https://example.org/f"]});
        let manifest = parse(&with(image(), "layers", json!([foreign])), None).unwrap();
        assert_eq!(manifest.layers, [Hasher::of(b"c")]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            crate::fuzz::manifest(&bytes);
        }

        #[test]
        fn any_change_of_a_manifest_is_read_or_refused(at in 0_usize..300, byte in any::<u8>()) {
            let mut bytes = serde_json::to_vec(&image()).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            crate::fuzz::manifest(&bytes);
        }
    }
}
