//! The format of `docker save` before it was an OCI layout: `manifest.json` names config, layers and tags of each image.
//!
//! Read: each image gets a manifest and the whole archive an index, so that nothing behind this file knows the format. Tags are
//! short names by the format's convention; they are completed here, as every reader of the format does.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};

use super::{
    descriptor::{
        DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, DOCKER_MANIFEST, Descriptor,
        IMAGE_NAME, OCI_INDEX, REF_NAME,
    },
    document,
    import::{Files, clean},
};
use crate::{
    content::{Reader, Writer},
    daemon::Daemon,
    digest::Digest,
    error::{Error, Result},
    identifier::Labels,
    namespace::Scope,
    registry::Reference,
};

/// An image of an archive that Docker wrote.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// An image of an archive that Docker loads, as `manifest.json` lists it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Loadable {
    config: String,
    /// `null` rather than empty, as Docker and containerd write it.
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Loadable {
    /// An image by the names of its files.
    pub(super) fn new(config: String, tags: Vec<String>, layers: Vec<String>) -> Self {
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        Self {
            config,
            repo_tags: some(tags),
            layers: some(layers),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// Writes manifests and index for the archive whose `manifest.json` is `manifest`; with `compress`, layers that are not
/// compressed are. Blocks.
pub(super) fn index(
    daemon: &Daemon,
    scope: &Scope,
    files: &Files,
    manifest: &[u8],
    compress: bool,
) -> Result<Descriptor> {
    let images: Vec<Saved> =
        serde_json::from_slice(manifest).map_err(|error| Error::invalid("manifest.json").caused_by(error))?;
    let mut manifests = Vec::new();
    for image in images {
        let config = find(files, &image.config, DOCKER_CONFIG)?;
        let bytes = daemon
            .content
            .read(scope, &config.digest()?, document::MAX_CONFIG)?;
        let platform = document::parse_config(&config.digest, &bytes)?.platform;
        let layers = image
            .layers
            .iter()
            .map(|name| layer(daemon, scope, files, name, compress))
            .collect::<Result<_>>()?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: DOCKER_MANIFEST,
            config,
            layers,
        };
        let written = write(daemon, scope, DOCKER_MANIFEST, &manifest)?;
        let tags = image.repo_tags.unwrap_or_default();
        let entry = Descriptor { platform, ..written };
        if tags.is_empty() {
            manifests.push(entry);
            continue;
        }
        for tag in tags {
            let name = complete(&tag);
            let short = name.rsplit(':').next().unwrap_or_default().to_owned();
            let annotations = [(IMAGE_NAME.to_owned(), name), (REF_NAME.to_owned(), short)];
            manifests.push(Descriptor {
                annotations: Some(annotations.into()),
                ..entry.clone()
            });
        }
    }
    write(
        daemon,
        scope,
        OCI_INDEX,
        &Index {
            schema_version: 2,
            media_type: OCI_INDEX,
            manifests,
        },
    )
}

fn write(daemon: &Daemon, scope: &Scope, media_type: &str, document: &impl Serialize) -> Result<Descriptor> {
    let bytes = serde_json::to_vec(document)
        .map_err(|error| Error::unknown(format!("encode {media_type}"), error))?;
    let digest: Digest = daemon.content.write(scope, &bytes, Labels::new())?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: bytes.len() as i64,
        ..Descriptor::default()
    })
}

fn find(files: &Files, name: &str, media_type: &str) -> Result<Descriptor> {
    let name = clean(name.as_bytes());
    // One link is what the format knows.
    let target = files.links.get(&name).unwrap_or(&name);
    let (digest, size) = files.blobs.get(target).ok_or_else(|| {
        Error::invalid(format!(
            "manifest.json names {name:?}, which is not in the archive"
        ))
    })?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: size.cast_signed(),
        ..Descriptor::default()
    })
}

/// A layer, with the media type that its first bytes call for.
fn layer(daemon: &Daemon, scope: &Scope, files: &Files, name: &str, compress: bool) -> Result<Descriptor> {
    let found = find(files, name, DOCKER_LAYER)?;
    let mut magic = [0; 4];
    let reader = daemon.content.reader(scope, &found.digest()?)?;
    let count = reader.read_at(&mut magic, 0)?;
    let media_type = match &magic[..count] {
        [0x1f, 0x8b, ..] => DOCKER_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => DOCKER_LAYER_ZSTD,
        _ if compress => return compressed(daemon, scope, &reader, &found.digest),
        _ => DOCKER_LAYER,
    };
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        ..found
    })
}

/// The label that says which layer a blob is when it is not compressed.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// How much of a layer is read at once.
const CHUNK: usize = 256 << 10;

/// The layer `digest`, which `reader` reads, compressed: the same bytes each time, so that a second import finds it.
fn compressed(daemon: &Daemon, scope: &Scope, reader: &Reader, digest: &str) -> Result<Descriptor> {
    let reference = format!("compress-blob-{}", digest.replace(':', "-"));
    let failed = |error| Error::io(format!("compress layer {digest}"), error);
    let mut writer = daemon.content.writer(scope, &reference, 0, None)?;
    // What a run before this one left is not known to be the beginning of this one's.
    writer.truncate(0)?;
    let mut encoder = GzEncoder::new(Ingest(writer), Compression::default());
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let count = reader.read_at(&mut chunk, offset)?;
        if count == 0 {
            break;
        }
        encoder.write_all(&chunk[..count]).map_err(failed)?;
        offset += count as u64;
    }
    let Ingest(writer) = encoder.finish().map_err(failed)?;
    let (size, wanted) = (writer.status().offset, writer.digest());
    let labels = Labels::from([(UNCOMPRESSED.to_owned(), digest.to_owned())]);
    match writer.commit(None, None, labels) {
        // It is held by the lease all the same.
        Err(error) if !error.is_already_exists() => return Err(error),
        _ => {}
    }
    Ok(Descriptor {
        media_type: DOCKER_LAYER_GZIP.to_owned(),
        digest: wanted.to_string(),
        size: size.cast_signed(),
        ..Descriptor::default()
    })
}

/// An ingest that is written to as any stream.
struct Ingest(Writer);

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `busybox:1` is `docker.io/library/busybox:1`: a first component that cannot be a host belongs to Docker Hub.
fn complete(tag: &str) -> String {
    let host = tag.split_once('/').map(|(host, _)| host);
    match host {
        Some(host) if host.contains(['.', ':']) || host == "localhost" => tag.to_owned(),
        Some(_) => format!("docker.io/{tag}"),
        None => format!("docker.io/library/{tag}"),
    }
}

/// The name by which Docker shows an image: without the registry and the directory that go without saying, and with a tag.
///
/// # Errors
///
/// `InvalidArgument` for a name that is no reference to an image.
pub(super) fn familiar(name: &str) -> Result<String> {
    let reference: Reference = complete(name).parse()?;
    let full = reference.to_string();
    let short = full
        .strip_prefix("docker.io/library/")
        .filter(|rest| !rest.contains('/'))
        .or_else(|| full.strip_prefix("docker.io/"))
        .unwrap_or(&full);
    let tagged = reference.digest().is_some() || full.ends_with(&format!(":{}", reference.object()));
    Ok(match tagged {
        true => short.to_owned(),
        false => format!("{short}:latest"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_as_docker_tells_them() {
        for (full, short) in [
            ("docker.io/library/busybox:1", "busybox:1"),
            ("docker.io/library/busybox", "busybox:latest"),
            ("docker.io/team/app:v", "team/app:v"),
            ("busybox", "busybox:latest"),
            ("host:5000/latest", "host:5000/latest:latest"),
            ("host/a/b:v", "host/a/b:v"),
        ] {
            assert_eq!(familiar(full).unwrap(), short);
        }
        let digest = format!("host/a@sha256:{}", "0".repeat(64));
        assert_eq!(familiar(&digest).unwrap(), digest);
        assert!(familiar("host/UPPER").is_err());
    }

    #[test]
    fn short_names_are_completed() {
        for (short, full) in [
            ("busybox:1", "docker.io/library/busybox:1"),
            ("team/app:v", "docker.io/team/app:v"),
            ("localhost/app:v", "localhost/app:v"),
            ("127.0.0.1:5000/app:v", "127.0.0.1:5000/app:v"),
            ("example.org/app:v", "example.org/app:v"),
        ] {
            assert_eq!(complete(short), full);
        }
    }
}
