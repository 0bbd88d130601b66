//! Descriptors: what a media type means, and the names and labels that containerd derives from it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wharf_proto::containerd::types;

use super::platform::Platform;
use crate::{
    digest::Digest,
    error::{Error, Result},
    layer,
};

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(super) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub(super) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(super) const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The annotation with the full name of an image in an archive.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with the tag, or the full name, of an image in an archive.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A descriptor as documents carry it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
    /// Where else the bytes can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
}

/// What a descriptor points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Index,
    Manifest,
    Config,
    Layer,
    Other,
}

impl Descriptor {
    /// What the media type says it is.
    pub(super) fn kind(&self) -> Kind {
        match self.media_type.as_str() {
            OCI_INDEX | DOCKER_INDEX => Kind::Index,
            OCI_MANIFEST | DOCKER_MANIFEST => Kind::Manifest,
            OCI_CONFIG | DOCKER_CONFIG => Kind::Config,
            other if layer::is_layer(other) => Kind::Layer,
            _ => Kind::Other,
        }
    }

    /// Whether it is a layer that registries may not distribute.
    pub(super) fn is_foreign(&self) -> bool {
        let media_type = &self.media_type;
        self.kind() == Kind::Layer
            && (media_type.contains("nondistributable") || media_type.contains(".foreign."))
    }

    /// The digest, checked.
    pub(super) fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }

    /// The size, checked.
    pub(super) fn size(&self) -> Result<u64> {
        u64::try_from(self.size)
            .map_err(|_negative| Error::invalid(format!("descriptor of {}: negative size", self.digest)))
    }

    /// The name of its ingest and of its progress, as containerd forms it.
    pub(super) fn reference(&self) -> String {
        let prefix = match self.kind() {
            Kind::Index => "index",
            Kind::Manifest => "manifest",
            Kind::Config => "config",
            Kind::Layer => "layer",
            Kind::Other => "unknown",
        };
        format!("{prefix}-{}", self.digest)
    }

    /// The label by which its parent keeps it; one that ends in a dot gets a number.
    pub(super) fn label(&self) -> &'static str {
        match self.kind() {
            Kind::Manifest => "containerd.io/gc.ref.content.m.",
            Kind::Config => "containerd.io/gc.ref.content.config",
            Kind::Layer => "containerd.io/gc.ref.content.l.",
            Kind::Index | Kind::Other => "containerd.io/gc.ref.content.",
        }
    }

    /// The annotation, when there is one that says something.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations
            .as_ref()?
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// As it travels over gRPC.
    pub(super) fn to_wire(&self) -> types::Descriptor {
        types::Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            annotations: self.annotations.clone().unwrap_or_default(),
        }
    }
}

impl From<types::Descriptor> for Descriptor {
    fn from(wire: types::Descriptor) -> Self {
        Self {
            media_type: wire.media_type,
            digest: wire.digest,
            size: wire.size,
            annotations: (!wire.annotations.is_empty()).then_some(wire.annotations),
            urls: Vec::new(),
            platform: None,
        }
    }
}

/// The labels that keep `children`, numbered within their kind.
pub(super) fn labels(children: &[Descriptor]) -> BTreeMap<String, String> {
    let mut counters: BTreeMap<&str, usize> = BTreeMap::new();
    let mut labels = BTreeMap::new();
    for child in children {
        let prefix = child.label();
        let counter = counters.entry(prefix).or_default();
        let key = match (prefix.ends_with('.'), *counter) {
            (true, number) => format!("{prefix}{number}"),
            (false, 0) => prefix.to_owned(),
            (false, number) => format!("{prefix}.{number}"),
        };
        *counter += 1;
        labels.insert(key, child.digest.clone());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_kept_by_containerds_labels() {
        let child = |media_type: &str, digest: &str| Descriptor {
            media_type: media_type.into(),
            digest: digest.into(),
            ..Descriptor::default()
        };
        let children = [
            child(OCI_CONFIG, "c"),
            child(DOCKER_LAYER_GZIP, "l0"),
            child(DOCKER_LAYER, "l1"),
            child("x", "o"),
            child(OCI_INDEX, "i"),
            child(OCI_MANIFEST, "m"),
        ];
        let labels: Vec<_> = labels(&children).into_iter().collect();
        let expected = [
            ("containerd.io/gc.ref.content.0", "o"),
            ("containerd.io/gc.ref.content.1", "i"),
            ("containerd.io/gc.ref.content.config", "c"),
            ("containerd.io/gc.ref.content.l.0", "l0"),
            ("containerd.io/gc.ref.content.l.1", "l1"),
            ("containerd.io/gc.ref.content.m.0", "m"),
        ];
        assert_eq!(
            labels,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        assert_eq!(children[1].reference(), "layer-l0");
    }
}
