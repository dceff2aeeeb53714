//! Manifests, indexes and configurations: from a registry's bytes to what is needed of them. Everything here is hostile input.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{Digest, HealthCheck, ImageConfig};

/// Larger manifests no registry takes.
pub(crate) const MAXIMUM_MANIFEST: usize = 4 << 20;
/// Larger configurations nobody has.
pub(crate) const MAXIMUM_CONFIG: u64 = 8 << 20;
/// Docker's bound is 127; the kernel's 500.
const MAXIMUM_LAYERS: usize = 200;

/// What a registry is told we understand.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// One of the two things a reference can point at.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<Offer>),
    Manifest(Manifest),
}

/// A manifest an index offers, with its platform as `os/architecture`.
#[derive(Debug)]
pub(crate) struct Offer {
    pub digest: Digest,
    pub platform: String,
}

/// An image for one platform.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// A piece of content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Deserialize)]
struct RawDocument {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
struct RawDescriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// Reads a manifest or an index; the text says what is wrong.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, String> {
    if bytes.len() > MAXIMUM_MANIFEST {
        return Err("larger than 4 MiB".to_owned());
    }
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if raw.schema_version == Some(1) {
        return Err("Docker manifest schema 1 is not supported any more".to_owned());
    }
    if let Some(manifests) = raw.manifests {
        let offers = manifests.into_iter().take(10_000).filter_map(|descriptor| {
            let platform = descriptor
                .platform
                .map(|platform| format!("{}/{}", platform.os, platform.architecture))
                .unwrap_or_default();
            Some(Offer { digest: descriptor.digest.parse().ok()?, platform })
        });
        return Ok(Document::Index(offers.collect()));
    }
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
        return Err("neither an image manifest nor an index".to_owned());
    };
    if layers.is_empty() || layers.len() > MAXIMUM_LAYERS {
        return Err(format!("{} layers", layers.len()));
    }
    let layers = layers.into_iter().map(blob).collect::<Result<Vec<_>, _>>()?;
    let config = blob(config)?;
    if config.size > MAXIMUM_CONFIG {
        return Err("the configuration is larger than 8 MiB".to_owned());
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

fn blob(raw: RawDescriptor) -> Result<Blob, String> {
    if raw.media_type.contains("foreign") || raw.media_type.contains("nondistributable") {
        return Err("layers kept outside the registry are not supported".to_owned());
    }
    let digest = raw
        .digest
        .parse()
        .map_err(|_| format!("{:?} is not a sha256 digest", raw.digest.chars().take(100).collect::<String>()))?;
    Ok(Blob { digest, size: raw.size })
}

/// This host's platform, as image authors write it.
pub(crate) fn host_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// A configuration and the digests of its unpacked layers.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub config: ImageConfig,
    pub diff_ids: Vec<Digest>,
}

impl Configuration {
    /// Names each layer by everything below it as well: the same archive over other layers may unpack differently.
    pub(crate) fn chain(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            chain.push(match chain.last() {
                Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
                None => diff_id.clone(),
            });
        }
        chain
    }
}

#[derive(Deserialize)]
struct RawConfiguration {
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    config: RawConfig,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawConfig {
    #[serde(deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    user: String,
    #[serde(deserialize_with = "nullable")]
    working_dir: String,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    healthcheck: Option<RawHealthcheck>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawHealthcheck {
    #[serde(deserialize_with = "nullable")]
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    retries: u64,
}

/// Builders write `null` where they mean nothing.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a configuration; the text says what is wrong.
pub(crate) fn configuration(bytes: &[u8]) -> Result<Configuration, String> {
    let raw: RawConfiguration = serde_json::from_slice(bytes).map_err(|error| format!("configuration: {error}"))?;
    let diff_ids = raw
        .rootfs
        .diff_ids
        .iter()
        .map(|text| text.parse())
        .collect::<Result<Vec<Digest>, _>>()
        .map_err(|error| format!("configuration: {error}"))?;
    let config = ImageConfig {
        entrypoint: raw.config.entrypoint,
        command: raw.config.cmd,
        environment: raw.config.env,
        user: raw.config.user,
        working_directory: raw.config.working_dir,
        stop_signal: raw.config.stop_signal.filter(|signal| !signal.is_empty()),
        exposed_ports: raw.config.exposed_ports.into_keys().collect(),
        volumes: raw.config.volumes.into_keys().collect(),
        labels: raw.config.labels,
        health_check: raw.config.healthcheck.map(|check| HealthCheck {
            test: check.test,
            interval_nanoseconds: check.interval,
            timeout_nanoseconds: check.timeout,
            start_period_nanoseconds: check.start_period,
            retries: check.retries,
        }),
        architecture: raw.architecture,
        os: raw.os,
    };
    Ok(Configuration { config, diff_ids })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn check_refused(text: &str, reason: &str) {
        let error = parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn what_is_refused_and_why() {
        check_refused("", "EOF");
        check_refused("{}", "neither");
        check_refused(r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1");
        check_refused(&format!(r#"{{"config":{{"digest":"{DIGEST}"}},"layers":[]}}"#), "0 layers");
        check_refused(
            &format!(r#"{{"config":{{"digest":"{DIGEST}"}},"layers":[{{"digest":"sha256:../../etc"}}]}}"#),
            "not a sha256",
        );
        check_refused(
            &format!(
                r#"{{"config":{{"digest":"{DIGEST}"}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{DIGEST}"}}]}}"#
            ),
            "outside",
        );
        let many = vec![format!(r#"{{"digest":"{DIGEST}"}}"#); 300].join(",");
        check_refused(&format!(r#"{{"config":{{"digest":"{DIGEST}"}},"layers":[{many}]}}"#), "300 layers");
    }

    #[test]
    fn an_index_offers_platforms() {
        let text = format!(
            r#"{{"manifests":[{{"digest":"{DIGEST}","platform":{{"os":"linux","architecture":"arm64"}}}},{{"digest":"bad"}},{{"digest":"{DIGEST}"}}]}}"#
        );
        let Document::Index(offers) = parse(text.as_bytes()).unwrap() else { panic!("no index") };
        assert_eq!(offers.iter().map(|offer| offer.platform.as_str()).collect::<Vec<_>>(), ["linux/arm64", ""]);
    }

    #[test]
    fn a_configuration_with_nulls() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{DIGEST}","{DIGEST}"]}},
            "config":{{"Entrypoint":null,"Cmd":["/bin/sh"],"Env":["A=b"],"ExposedPorts":{{"80/tcp":{{}}}},"Labels":null,"StopSignal":"","Healthcheck":{{"Test":["NONE"]}}}}}}"#
        );
        let parsed = configuration(text.as_bytes()).unwrap();
        assert_eq!(
            (parsed.config.command, parsed.config.exposed_ports, parsed.config.stop_signal.clone()),
            (vec!["/bin/sh".to_owned()], vec!["80/tcp".to_owned()], None)
        );
        let again = configuration(text.as_bytes()).unwrap();
        let chain = again.chain();
        assert_eq!(chain[0].to_string(), DIGEST);
        assert_eq!(chain[1], Digest::of(format!("{DIGEST} {DIGEST}").as_bytes()));
        assert!(configuration(b"{}").is_err());
    }
}
