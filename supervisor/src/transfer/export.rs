//! Writing images of the content store as one archive: an OCI layout that is also what `docker load` reads.
//!
//! Everything is planned first ([`plan`]), so that what is missing is known before a byte is written. The members are in
//! the order of their names, without times and owners: the same images give the same bytes. Each blob is verified on its
//! way, and a blob that is not what its descriptor says ends the export.
//!
//! Refuses targets that are neither indexes nor manifests, and content that is not in the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
};

use serde::Serialize;

use super::{
    descriptor::{Descriptor, IMAGE_NAME, Kind, OCI_INDEX, REF_NAME},
    docker_archive, document,
    document::Document,
    graph,
    platform::Platform,
};
use crate::{
    daemon::Daemon,
    digest::{Digest, Hasher},
    error::{Error, Result},
    image::Image,
    layer::diff::{BLOCK, Body, Header},
    namespace::Scope,
    registry::MAX_MANIFEST,
};

/// How much of a blob is read at once.
const CHUNK: usize = 256 << 10;
/// The label that tells of a registry that has the blob.
const DISTRIBUTION: &str = "containerd.io/distribution.source.";

/// What of the images is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Platforms of an index whose images are wanted; empty for this host's. The best one is Docker's.
    pub(crate) platforms: Vec<Platform>,
    /// Whether everything is wanted, whatever its platform.
    pub(crate) all_platforms: bool,
    /// Whether Docker's `manifest.json` is left out.
    pub(crate) skip_docker_manifest: bool,
    /// Whether layers that may not be distributed are left out.
    pub(crate) skip_non_distributable: bool,
}

/// A member of the archive.
enum Member {
    Directory,
    /// A document that was made for this archive, with its mode.
    Document(Vec<u8>, u32),
    Blob(Digest, u64),
}

/// The members of an archive, by name: directories end with a slash.
pub(super) struct Plan(BTreeMap<String, Member>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

/// An image for `manifest.json`.
struct Loadable {
    manifest: Descriptor,
    names: Vec<String>,
}

/// Says what the archive of `images` has. Blocks.
///
/// # Errors
///
/// `NotFound` when a part of an image is not in the store or no image is for a wanted platform; `InvalidArgument` for a
/// target that is no image, a document that is refused, and a name that Docker could not read.
pub(super) fn plan(daemon: &Daemon, scope: &Scope, images: &[Image], selection: &Selection) -> Result<Plan> {
    let mut planner = Planner {
        daemon,
        scope,
        selection,
        members: BTreeMap::new(),
        seen: BTreeSet::new(),
    };
    let mut entries = Vec::with_capacity(images.len());
    let mut loadable: Vec<Loadable> = Vec::new();
    for image in images {
        let target = Descriptor::from(image.target.clone().unwrap_or_default());
        let main = planner
            .image(&target)
            .map_err(|error| error.context(format!("export {}", image.name)))?;
        if let Some(manifest) = main {
            match loadable
                .iter_mut()
                .find(|known| known.manifest.digest == manifest.digest)
            {
                Some(known) => known.names.push(image.name.clone()),
                None => loadable.push(Loadable {
                    manifest,
                    names: vec![image.name.clone()],
                }),
            }
        }
        entries.push(named(daemon, scope, target, &image.name)?);
    }
    let manifests = if selection.skip_docker_manifest {
        Vec::new()
    } else {
        loadable
            .iter()
            .map(|image| docker_entry(daemon, scope, image))
            .collect::<Result<_>>()?
    };
    let mut members = planner.members;
    let layout = Layout {
        image_layout_version: "1.0.0",
    };
    members.insert("oci-layout".into(), Member::Document(encode(&layout)?, 0o444));
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX,
        manifests: &entries,
    };
    members.insert("index.json".into(), Member::Document(encode(&index)?, 0o644));
    if !manifests.is_empty() {
        members.insert(
            "manifest.json".into(),
            Member::Document(encode(&manifests)?, 0o644),
        );
    }
    Ok(Plan(members))
}

struct Planner<'a> {
    daemon: &'a Daemon,
    scope: &'a Scope,
    selection: &'a Selection,
    members: BTreeMap<String, Member>,
    /// Documents whose children are members already.
    seen: BTreeSet<String>,
}

impl Planner<'_> {
    /// Adds what is wanted of an image; answers the manifest that stands for it where there can be one only.
    fn image(&mut self, target: &Descriptor) -> Result<Option<Descriptor>> {
        match target.kind() {
            Kind::Manifest => {
                self.everything(target)?;
                Ok(Some(target.clone()))
            }
            Kind::Index => {
                let Document::Index(entries) = self.document(target)? else {
                    return Ok(None);
                };
                let rank = |entry: &Descriptor| rank(&self.selection.platforms, entry.platform.as_ref());
                let best = entries.iter().filter(|entry| rank(entry).is_some());
                let best = best.min_by_key(|entry| rank(entry)).cloned();
                let wanted: Vec<Descriptor> = entries
                    .into_iter()
                    .filter(|entry| self.selection.all_platforms || rank(entry).is_some())
                    .collect();
                for entry in &wanted {
                    self.everything(entry)?;
                }
                match best {
                    None => Err(Error::not_found("no manifest found for platform")),
                    // Docker knows images only.
                    Some(best) => Ok((best.kind() == Kind::Manifest).then_some(best)),
                }
            }
            _ => Err(Error::invalid(format!(
                "only manifests may be exported, not {:?}",
                target.media_type
            ))),
        }
    }

    /// Adds `root` and all that it names.
    fn everything(&mut self, root: &Descriptor) -> Result<()> {
        let mut pending = vec![(root.clone(), 0)];
        while let Some((descriptor, depth)) = pending.pop() {
            if depth > graph::MAX_DEPTH || self.seen.len() > graph::MAX_IMAGES {
                return Err(Error::invalid(format!(
                    "{}: too many indexes or images",
                    root.digest
                )));
            }
            match descriptor.kind() {
                Kind::Index | Kind::Manifest if !self.seen.insert(descriptor.digest.clone()) => {}
                Kind::Index | Kind::Manifest => match self.document(&descriptor)? {
                    Document::Index(entries) => {
                        pending.extend(entries.into_iter().map(|entry| (entry, depth + 1)));
                    }
                    Document::Manifest { config, layers } => {
                        for blob in std::iter::once(config).chain(layers) {
                            self.blob(&blob)?;
                        }
                    }
                },
                _ => self.blob(&descriptor)?,
            }
        }
        Ok(())
    }

    /// Adds an index or manifest, and reads it.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Document> {
        self.blob(descriptor)?;
        let bytes = self
            .daemon
            .content
            .read(self.scope, &descriptor.digest()?, MAX_MANIFEST)?;
        document::parse(descriptor, &bytes)
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<()> {
        if self.selection.skip_non_distributable && is_non_distributable(&descriptor.media_type) {
            return Ok(());
        }
        let (digest, size) = (descriptor.digest()?, descriptor.size()?);
        let present = self.daemon.content.info(self.scope, &digest)?.size;
        if present != size {
            return Err(Error::precondition(format!(
                "{digest}: {present} bytes, its descriptor says {size}"
            )));
        }
        let directory = format!("blobs/{}/", digest.algorithm().as_str());
        let name = format!("{directory}{}", digest.hex());
        self.members.insert("blobs/".into(), Member::Directory);
        self.members.insert(directory, Member::Directory);
        self.members.insert(name, Member::Blob(digest, size));
        Ok(())
    }
}

/// The place of `platform` in the order of preference; `None`: it is none of those that are wanted.
fn rank(wanted: &[Platform], platform: Option<&Platform>) -> Option<usize> {
    let host = [Platform::host()];
    let wanted = if wanted.is_empty() { &host } else { wanted };
    match platform {
        // An image that does not say runs anywhere, if nothing better does.
        None => Some(wanted.len()),
        Some(platform) => wanted.iter().position(|wanted| wanted.is_same(platform)),
    }
}

fn is_non_distributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// The entry of `index.json` for the image `name`.
fn named(daemon: &Daemon, scope: &Scope, target: Descriptor, name: &str) -> Result<Descriptor> {
    let info = daemon.content.info(scope, &target.digest()?)?;
    let mut annotations = target.annotations.unwrap_or_default();
    annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
    annotations.insert(REF_NAME.to_owned(), object(name).to_owned());
    let sources = info.labels.into_iter();
    annotations.extend(sources.filter(|(key, _)| key.starts_with(DISTRIBUTION)));
    Ok(Descriptor {
        annotations: Some(annotations),
        ..target
    })
}

/// What the layout calls the image: its tag, or the whole name when it has none.
fn object(name: &str) -> &str {
    let path = name.split_once('/').map_or("", |(_, path)| path);
    match path.find([':', '@']) {
        Some(at) if path[at..].starts_with(':') && path.len() > at + 1 => &path[at + 1..],
        _ => name,
    }
}

fn docker_entry(daemon: &Daemon, scope: &Scope, image: &Loadable) -> Result<docker_archive::Loadable> {
    let bytes = daemon
        .content
        .read(scope, &image.manifest.digest()?, MAX_MANIFEST)?;
    let Document::Manifest { config, layers } = document::parse(&image.manifest, &bytes)? else {
        return Err(Error::invalid(format!(
            "{}: not a manifest",
            image.manifest.digest
        )));
    };
    let path = |blob: &Descriptor| {
        let digest = blob.digest()?;
        Ok(format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex()))
    };
    let names = image.names.iter().map(|name| docker_archive::familiar(name));
    Ok(docker_archive::Loadable::new(
        path(&config)?,
        names.collect::<Result<_>>()?,
        layers.iter().map(path).collect::<Result<_>>()?,
    ))
}

fn encode(document: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| Error::unknown("encode a document", error))
}

/// Writes the archive. Blocks.
///
/// # Errors
///
/// `NotFound` for content that was deleted meanwhile; `FailedPrecondition` for a blob with another digest than its name;
/// those of `output`. What was written until then is no archive: its end is missing.
pub(super) fn write(daemon: &Daemon, scope: &Scope, plan: &Plan, mut output: impl Write) -> Result<()> {
    let failed = |error| Error::io("write the archive", error);
    let mut buffer = vec![0; CHUNK];
    for (name, member) in &plan.0 {
        let (mode, body) = match member {
            Member::Directory => (0o755, Body::Directory),
            Member::Document(bytes, mode) => (*mode, Body::File(bytes.len() as u64)),
            Member::Blob(_, size) => (0o444, Body::File(*size)),
        };
        let header = Header {
            name: name.as_bytes(),
            mode,
            uid: 0,
            gid: 0,
            time: 0,
            body,
            attributes: &[],
        };
        let header = header
            .encode()
            .ok_or_else(|| Error::invalid(format!("{name}: no name for an archive")))?;
        output.write_all(&header).map_err(failed)?;
        let size = match member {
            Member::Directory => 0,
            Member::Document(bytes, _) => {
                output.write_all(bytes).map_err(failed)?;
                bytes.len() as u64
            }
            Member::Blob(digest, size) => {
                let mut reader = daemon.content.reader(scope, digest)?;
                let mut hasher = Hasher::new(digest.algorithm());
                let mut left = *size;
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                    let count = reader
                        .read(&mut buffer[..most])
                        .map_err(|error| Error::io(format!("read {digest}"), error))?;
                    if count == 0 {
                        return Err(Error::precondition(format!("{digest} is cut")));
                    }
                    hasher.update(&buffer[..count]);
                    output.write_all(&buffer[..count]).map_err(failed)?;
                    left -= count as u64;
                }
                let read = hasher.finish();
                if read != *digest {
                    return Err(Error::precondition(format!("{digest}: its bytes are {read}")));
                }
                *size
            }
        };
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let zeros = [0; BLOCK];
        output
            .write_all(&zeros[..usize::try_from(padding).unwrap_or(0)])
            .map_err(failed)?;
    }
    output.write_all(&[0; 2 * BLOCK]).map_err(failed)?;
    output.flush().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_calls_an_image_by_its_tag() {
        for (name, expected) in [
            ("docker.io/library/busybox:1.36", "1.36"),
            ("host:5000/app", "host:5000/app"),
            ("host:5000/app:v", "v"),
            ("host/app@sha256:00", "host/app@sha256:00"),
            ("host/app:v@sha256:00", "v@sha256:00"),
            ("short:1", "short:1"),
        ] {
            assert_eq!(object(name), expected);
        }
    }

    #[test]
    fn the_first_wanted_platform_is_docker_s() {
        let platform = |architecture: &str| Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: String::new(),
        };
        let wanted = [platform("arm64"), platform("amd64")];
        assert_eq!(rank(&wanted, Some(&platform("x86_64"))), Some(1));
        assert_eq!(rank(&wanted, Some(&platform("aarch64"))), Some(0));
        assert_eq!(rank(&wanted, Some(&platform("riscv64"))), None);
        assert_eq!(rank(&wanted, None), Some(2));
        assert_eq!(rank(&[], Some(&Platform::host())), Some(0));
    }

    #[test]
    fn layers_that_may_not_be_distributed_are_known() {
        assert!(is_non_distributable(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        ));
        assert!(is_non_distributable(
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        ));
        assert!(!is_non_distributable(
            "application/vnd.oci.image.layer.v1.tar+gzip"
        ));
    }
}
