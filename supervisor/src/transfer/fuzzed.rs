//! What the fuzz target of documents does with its input: any bytes are an index, a manifest or a config with one reading,
//! or they are refused.

use super::{
    descriptor::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Kind, OCI_INDEX, OCI_MANIFEST, labels},
    docker_archive,
    document::{self, Document, MAX_ENTRIES, MAX_LAYERS},
    import,
    platform::Platform,
};
use crate::{
    digest::Digest,
    filter::{Fields, Filters},
};

/// Reads `data`, whose first byte says as what. Panics when what was read is not what it may be.
pub fn document(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    match choice % 6 {
        0 => parsed(OCI_INDEX, data),
        1 => parsed(OCI_MANIFEST, data),
        2 => {
            parsed(DOCKER_INDEX, data);
            parsed(DOCKER_MANIFEST, data);
        }
        3 => config(data),
        4 => archive_names(data),
        _ => filter(&String::from_utf8_lossy(data)),
    }
}

struct Image<'a>(&'a str);

impl Fields for Image<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => Some(self.0.to_owned()),
            ["labels", rest @ ..] => Some(rest.join(".")),
            _ => None,
        }
    }
}

fn filter(text: &str) {
    if let Ok(filters) = Filters::parse(&[text]) {
        assert_eq!(filters.matches(&Image(text)), filters.matches(&Image(text)));
    }
}

fn parsed(media_type: &str, data: &[u8]) {
    let described = Descriptor {
        media_type: media_type.into(),
        digest: Digest::of(data).to_string(),
        size: data.len() as i64,
        ..Descriptor::default()
    };
    let Ok(document) = document::parse(&described, data) else {
        return;
    };
    let children = match document {
        Document::Index(manifests) => {
            assert_eq!(described.kind(), Kind::Index);
            assert!(manifests.len() <= MAX_ENTRIES);
            manifests
        }
        Document::Manifest { config, layers } => {
            assert_eq!(described.kind(), Kind::Manifest);
            assert!(layers.len() <= MAX_LAYERS);
            [vec![config], layers].concat()
        }
    };
    assert_eq!(labels(&children).len(), children.len());
    for child in &children {
        assert!(child.digest().is_ok() && child.size().is_ok(), "{child:?}");
        assert!(!child.reference().contains('/'), "{child:?}");
        if let Some(platform) = &child.platform {
            score(platform);
        }
        assert!(!child.is_foreign() || child.kind() == Kind::Layer);
        let written = serde_json::to_vec(child).expect("a descriptor is JSON");
        assert_eq!(
            serde_json::from_slice::<Descriptor>(&written).ok().as_ref(),
            Some(child)
        );
    }
    // Nobody may read it as the other kind (CVE-2021-41190).
    let other = match described.kind() {
        Kind::Index => OCI_MANIFEST,
        _ => OCI_INDEX,
    };
    let described = Descriptor {
        media_type: other.into(),
        ..described
    };
    if let Ok(document) = document::parse(&described, data) {
        assert!(
            children.is_empty() || matches!(&document, Document::Index(entries) if entries.is_empty()),
            "two readings: {document:?}"
        );
    }
}

fn score(platform: &Platform) {
    assert!(platform.is_same(platform));
    assert_eq!(platform.score(platform), Some(1000), "{platform}");
    let host = Platform::host();
    assert!(
        host.score(platform)
            .is_none_or(|score| score == 1000 || !host.is_same(platform))
    );
}

fn config(data: &[u8]) {
    let Ok(config) = document::parse_config("sha256:x", data) else {
        return;
    };
    if let Some(platform) = &config.platform {
        score(platform);
    }
    let chain = document::chain_ids(&config.diff_ids);
    assert_eq!(chain.len(), config.diff_ids.len());
    assert_eq!(chain.first(), config.diff_ids.first());
}

fn archive_names(data: &[u8]) {
    let name = import::clean(data);
    assert!(
        !name.split('/').any(|component| matches!(component, "." | "..")),
        "{name:?}"
    );
    assert_eq!(import::clean(name.as_bytes()), name);
    drop(import::named_digest(&name));
    drop(docker_archive::familiar(&name));
    drop(serde_json::from_slice::<Vec<docker_archive::Saved>>(data));
}
