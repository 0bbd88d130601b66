//! Reading an archive of images into the content store: an OCI layout or the output of `docker save`, compressed or not.
//!
//! Entries come in any order, so every file goes into the store as it comes by and what it is shows at the end; what
//! turns out to be of no use is garbage under the operation's lease. A file whose name is a digest must have it.
//! Nothing is extracted: names only tell files apart.

use std::{
    collections::HashMap,
    io::{BufReader, Read},
};

use super::{
    descriptor::{Descriptor, OCI_INDEX},
    docker_archive,
};
use crate::{
    daemon::Daemon,
    digest::Digest,
    error::{Error, Kind, Result},
    identifier::Labels,
    layer::{Archive, Decompressor, Entry, EntryKind},
    namespace::Scope,
};

/// The largest of the documents that say what the other files are, in bytes.
const MAX_DOCUMENT: u64 = 20 << 20;
/// The most files of an archive.
const MAX_FILES: usize = 100_000;

/// The files of an archive, by cleaned name.
#[derive(Default)]
pub(super) struct Files {
    /// What is in the store now: digest and size.
    pub(super) blobs: HashMap<String, (Digest, u64)>,
    /// Symbolic links, which `docker save` puts in place of layers that are there already.
    pub(super) links: HashMap<String, String>,
    documents: HashMap<String, Vec<u8>>,
}

/// Reads the archive in `input` and says which index describes it. With `compress`, layers of Docker's format that are not
/// compressed are; those of an OCI layout are what their manifests say. Blocks.
///
/// # Errors
///
/// `InvalidArgument` for an archive that is malformed or not one of images; `FailedPrecondition` for a file with
/// another digest than its name says; those of the content store.
pub(super) fn read(
    daemon: &Daemon,
    scope: &Scope,
    input: impl Read + Send,
    compress: bool,
) -> Result<Descriptor> {
    let input = Decompressor::of_client(input).map_err(|error| Error::io("read archive", error))?;
    let mut archive = Archive::new(BufReader::with_capacity(256 * 1024, input));
    let mut files = Files::default();
    let run = format!(
        "{:016x}",
        getrandom::u64().map_err(|error| Error::unknown("draw a random number", error))?
    );
    while let Some(entry) = archive.next_entry()? {
        let name = clean(&entry.name);
        if files.blobs.len() + files.links.len() >= MAX_FILES {
            return Err(Error::invalid(format!("archive of more than {MAX_FILES} files")));
        }
        match entry.kind {
            EntryKind::File => {
                file(daemon, scope, &mut files, &run, &name, &entry, &mut archive)
                    .map_err(|error| error.context(format!("entry {name:?}")))?;
            }
            EntryKind::Symlink => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target =
                    clean(format!("{directory}/{}", String::from_utf8_lossy(&entry.link)).as_bytes());
                files.links.insert(name, target);
            }
            _ => {}
        }
    }
    // An archive that was cut behind its last member shows only here.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())
        .map_err(|error| Error::io("read archive", error))?;
    index(daemon, scope, &files, compress)
}

/// `oci-layout` decides; without it, it is Docker's format.
fn index(daemon: &Daemon, scope: &Scope, files: &Files, compress: bool) -> Result<Descriptor> {
    if let Some(layout) = files.documents.get("oci-layout") {
        let layout: serde_json::Value =
            serde_json::from_slice(layout).map_err(|error| Error::invalid("oci-layout").caused_by(error))?;
        let version = layout["imageLayoutVersion"].as_str().unwrap_or_default();
        if version != "1.0.0" {
            return Err(Error::invalid(format!(
                "OCI layout of version {version:?} is not supported"
            )));
        }
        let (digest, size) = files
            .blobs
            .get("index.json")
            .ok_or_else(|| Error::invalid("the OCI layout has no index.json"))?;
        return Ok(Descriptor {
            media_type: OCI_INDEX.into(),
            digest: digest.to_string(),
            size: size.cast_signed(),
            ..Descriptor::default()
        });
    }
    match files.documents.get("manifest.json") {
        Some(manifest) => docker_archive::index(daemon, scope, files, manifest, compress),
        None => Err(Error::invalid(
            "the archive holds neither an OCI layout nor docker-save's manifest.json",
        )),
    }
}

fn file(
    daemon: &Daemon,
    scope: &Scope,
    files: &mut Files,
    run: &str,
    name: &str,
    entry: &Entry,
    archive: &mut Archive<impl std::io::BufRead>,
) -> Result<()> {
    if entry.segments.is_some() {
        return Err(Error::invalid("a sparse file"));
    }
    if matches!(name, "oci-layout" | "manifest.json") {
        if entry.size > MAX_DOCUMENT {
            return Err(Error::new(
                Kind::OutOfRange,
                format!("larger than {MAX_DOCUMENT} bytes"),
            ));
        }
        let mut document = Vec::new();
        each(archive, |data| {
            document.extend_from_slice(data);
            Ok(())
        })?;
        files.documents.insert(name.to_owned(), document);
        return Ok(());
    }
    let expected = named_digest(name)?;
    let reference = format!("import-{run}-{}", files.blobs.len());
    let digest = match daemon
        .content
        .writer(scope, &reference, entry.size, expected.as_ref())
    {
        Ok(mut writer) => {
            let stored = each(archive, |data| writer.append(data)).and_then(|()| {
                let computed = writer.digest();
                match writer.commit(Some(entry.size), expected.as_ref(), Labels::new()) {
                    Err(error) if error.is_already_exists() => Ok(computed),
                    committed => committed,
                }
            });
            match stored {
                Ok(digest) => digest,
                Err(error) => {
                    return match daemon.content.abort(scope, &reference) {
                        Err(second) if !second.is_not_found() => Err(error.context(second)),
                        _ => Err(error),
                    };
                }
            }
        }
        // The data that comes by is skipped: the store has it, verified.
        Err(error) if error.is_already_exists() => expected.ok_or(error)?,
        Err(error) => return Err(error),
    };
    files.blobs.insert(name.to_owned(), (digest, entry.size));
    Ok(())
}

/// Hands all data of the present member to `take`.
fn each(
    archive: &mut Archive<impl std::io::BufRead>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    loop {
        let data = archive.data()?;
        if data.is_empty() {
            return Ok(());
        }
        let count = data.len();
        take(data)?;
        archive.consume(count);
    }
}

/// The digest that the name of a layout's blob promises.
pub(super) fn named_digest(name: &str) -> Result<Option<Digest>> {
    match name.strip_prefix("blobs/").and_then(|rest| rest.split_once('/')) {
        Some((algorithm, hex)) if !hex.contains('/') => format!("{algorithm}:{hex}").parse().map(Some),
        _ => Ok(None),
    }
}

/// The name with `.` and `..` taken out by text: it never meets a file system.
pub(super) fn clean(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut components: Vec<&str> = Vec::new();
    for component in name.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            other => components.push(other),
        }
    }
    components.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_in_a_layout_is_named_by_its_digest() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(named_digest(&format!("blobs/sha256/{hex}")).unwrap().is_some());
        assert!(named_digest("index.json").unwrap().is_none());
        assert!(named_digest("blobs/sha256/short").is_err());
        assert_eq!(clean(b"./a/../b//c"), "b/c");
        assert_eq!(clean(b"../../etc"), "etc");
    }
}
