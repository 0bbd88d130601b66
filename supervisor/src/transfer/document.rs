//! Indexes, manifests and configs, as far as transfers read them.
//!
//! Refuses schema 1, and documents that could be read as another kind than their descriptor says (CVE-2021-41190).

use serde::Deserialize;

use super::{
    descriptor::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Kind, OCI_INDEX, OCI_MANIFEST},
    platform::Platform,
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// The largest config, in bytes.
pub(super) const MAX_CONFIG: u64 = 16 << 20;
/// The most layers of an image: overlayfs stacks no more than 500, and Docker allows 127.
pub(super) const MAX_LAYERS: usize = 500;
/// The most entries of an index.
pub(super) const MAX_ENTRIES: usize = 1000;

/// A parsed index or manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Manifest {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads the document that `descriptor` describes.
pub(super) fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document> {
    let refused = |reason: String| {
        Error::invalid(format!(
            "{} {}: {reason}",
            descriptor.media_type, descriptor.digest
        ))
    };
    let fields: Fields = serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
    if fields.fs_layers.is_some() {
        return Err(refused("schema 1 image manifests are not supported".into()));
    }
    let says_index = matches!(fields.media_type.as_str(), OCI_INDEX | DOCKER_INDEX);
    let says_manifest = matches!(fields.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST);
    match descriptor.kind() {
        Kind::Index if fields.config.is_some() || fields.layers.is_some() || says_manifest => {
            Err(refused("expected an index but found a manifest".into()))
        }
        Kind::Manifest if fields.manifests.is_some() || says_index => {
            Err(refused("expected a manifest but found an index".into()))
        }
        Kind::Index => {
            let manifests = fields.manifests.unwrap_or_default();
            if manifests.len() > MAX_ENTRIES {
                return Err(refused(format!(
                    "{} entries, at most {MAX_ENTRIES} are accepted",
                    manifests.len()
                )));
            }
            manifests.iter().try_for_each(check)?;
            Ok(Document::Index(manifests))
        }
        Kind::Manifest => {
            let config = fields
                .config
                .ok_or_else(|| refused("a manifest without config".into()))?;
            let layers = fields.layers.unwrap_or_default();
            if layers.len() > MAX_LAYERS {
                return Err(refused(format!(
                    "{} layers, at most {MAX_LAYERS} are accepted",
                    layers.len()
                )));
            }
            check(&config)?;
            layers.iter().try_for_each(check)?;
            Ok(Document::Manifest { config, layers })
        }
        _ => Err(refused("neither an index nor a manifest".into())),
    }
}

fn check(descriptor: &Descriptor) -> Result<()> {
    descriptor.digest()?;
    descriptor.size().map(|_size| ())
}

/// What unpacking needs to know of a config.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// The platform, if the config says one.
    pub(super) platform: Option<Platform>,
    /// The DiffIDs of the layers, bottom first.
    pub(super) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct ConfigFields {
    #[serde(flatten)]
    platform: Platform,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// Reads the config with digest `digest`.
pub(super) fn parse_config(digest: &str, bytes: &[u8]) -> Result<Config> {
    let refused = |reason: String| Error::invalid(format!("image config {digest}: {reason}"));
    let fields: ConfigFields = serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
    let rootfs = fields.rootfs.ok_or_else(|| refused("no rootfs".into()))?;
    if !matches!(rootfs.r#type.as_str(), "" | "layers") {
        return Err(refused(format!(
            "rootfs of type {:?} is not supported",
            rootfs.r#type
        )));
    }
    let said = !fields.platform.os.is_empty() || !fields.platform.architecture.is_empty();
    Ok(Config {
        platform: said.then_some(fields.platform),
        diff_ids: rootfs
            .diff_ids
            .iter()
            .map(|id| id.parse())
            .collect::<Result<_>>()?,
    })
}

/// The ChainIDs of layers with these DiffIDs: what identifies each layer together with all below it.
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn of(media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest: D.into(),
            ..Descriptor::default()
        }
    }

    #[test]
    fn a_document_has_one_reading_only() {
        let descriptor = format!(r#"{{"mediaType":"x","digest":"{D}","size":1}}"#);
        let both = format!(r#"{{"manifests":[{descriptor}],"config":{descriptor},"layers":[]}}"#);
        let index = format!(r#"{{"manifests":[{descriptor}]}}"#);
        let manifest = format!(r#"{{"config":{descriptor},"layers":[{descriptor}]}}"#);
        let typed = |media_type: &str, rest: &str| format!(r#"{{"mediaType":"{media_type}",{}"#, &rest[1..]);
        let parse = |media_type: &str, text: &str| parse(&of(media_type), text.as_bytes());
        assert!(matches!(parse(OCI_INDEX, &index), Ok(Document::Index(entries)) if entries.len() == 1));
        assert!(matches!(
            parse(OCI_MANIFEST, &manifest),
            Ok(Document::Manifest { .. })
        ));
        assert!(parse(OCI_MANIFEST, &typed(DOCKER_MANIFEST, &manifest)).is_ok());
        for (media_type, text) in [
            (OCI_INDEX, both.as_str()),
            (OCI_MANIFEST, &both),
            (OCI_MANIFEST, &index),
            (OCI_INDEX, &manifest),
            (OCI_INDEX, &typed(OCI_MANIFEST, &index)),
            (OCI_MANIFEST, &typed(OCI_INDEX, &manifest)),
            (OCI_MANIFEST, r#"{"fsLayers":[]}"#),
            (OCI_MANIFEST, "{}"),
            (OCI_CONFIG_LIKE, &manifest),
            (OCI_INDEX, "[]"),
            (OCI_INDEX, r#"{"manifests":[{"digest":"sha256:../x","size":1}]}"#),
            (OCI_INDEX, &index.replace("\"size\":1", "\"size\":-1")),
        ] {
            assert!(parse(media_type, text).is_err(), "{media_type}: {text}");
        }
    }

    const OCI_CONFIG_LIKE: &str = "application/vnd.oci.image.config.v1+json";

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain, [a.clone(), Digest::of(format!("{a} {b}").as_bytes())]);
    }

    #[test]
    fn configs_tell_platform_and_layers() {
        let text = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
        );
        let config = parse_config(D, text.as_bytes()).unwrap();
        assert_eq!(config.platform.unwrap().to_string(), "linux/amd64");
        assert_eq!(config.diff_ids.len(), 1);
        assert_eq!(parse_config(D, br#"{"rootfs":{}}"#).unwrap().platform, None);
        assert!(parse_config(D, b"{}").is_err());
        assert!(parse_config(D, br#"{"rootfs":{"type":"other"}}"#).is_err());
    }

    proptest::proptest! {
        /// Whatever a registry answers: a document or an error.
        #[test]
        fn any_document_is_survived(
            index in proptest::prelude::any::<bool>(),
            damage in proptest::collection::vec(
                (proptest::prelude::any::<usize>(), "[\\x00-\\x7f]{0,6}|\\PC{0,3}|null|\\[\\]|\\{\\}|-1|1e400"),
                0..4,
            ),
        ) {
            let descriptor = format!(r#"{{"mediaType":"x","digest":"{D}","size":1,"platform":{{"os":"l","architecture":"a"}}}}"#);
            let mut text = format!(
                r#"{{"manifests":[{descriptor}],"config":{descriptor},"layers":[{descriptor}],"os":"l","architecture":"a","rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
            );
            for (position, piece) in damage {
                let mut position = position % text.len();
                while !text.is_char_boundary(position) {
                    position -= 1;
                }
                text.insert_str(position, &piece);
            }
            let kind = if index { OCI_INDEX } else { OCI_MANIFEST };
            // It has two readings as it is, and damage takes away only the second.
            if let Ok(document) = parse(&of(kind), text.as_bytes()) {
                assert_eq!(index, matches!(document, Document::Index(_)));
            }
            drop(parse_config(D, text.as_bytes()));
        }
    }
}
