//! Images that are files of this host: `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`.
//!
//! Owns the spelling of such sources and their way into the store: the file, or a tar made from the directory, goes to
//! the supervisor's importer. The name it gets is made from what the source is, so that the same source is not imported
//! twice, and a changed one is. Refuses directories with several images unless one is named.

use super::store::{Images, Named};
use crate::error::{Error, Result};
use crate::supervisor::Source;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

const MAX_INDEX: u64 = 4 << 20;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A source that is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalSource {
    /// An OCI image layout in a directory, and the tag in it.
    OciDirectory(PathBuf, Option<String>),
    /// A tar archive in the OCI or Docker layout.
    Archive(PathBuf),
    /// A directory that is the root filesystem itself.
    Rootfs(PathBuf),
}

impl LocalSource {
    /// Reads a source with a transport prefix; `None` when `text` is a name.
    ///
    /// # Errors
    ///
    /// The path is not absolute: the daemon's working directory is not the client's.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let Some((transport, path)) = text.split_once(':') else {
            return Ok(None);
        };
        let source = match transport {
            "oci" => match path.rsplit_once(':') {
                Some((path, tag)) if !tag.contains('/') => {
                    Self::OciDirectory(path.into(), Some(tag.to_owned()))
                }
                _ => Self::OciDirectory(path.into(), None),
            },
            "oci-archive" | "docker-archive" => Self::Archive(path.into()),
            "rootfs" => Self::Rootfs(path.into()),
            _ => return Ok(None),
        };
        if !source.path().is_absolute() {
            // `oci:latest` is a name after all.
            if !path.contains('/') {
                return Ok(None);
            }
            return Err(Error::invalid(format!(
                "{transport}: the path {path:?} is not absolute"
            )));
        }
        Ok(Some(source))
    }

    fn path(&self) -> &Path {
        match self {
            Self::OciDirectory(path, _) | Self::Archive(path) | Self::Rootfs(path) => path,
        }
    }
}

impl Images {
    /// Imports a directory or an archive unless it has been already, and returns its image.
    ///
    /// # Errors
    ///
    /// The source cannot be read, or is refused by the importer.
    pub async fn import(&self, source: &LocalSource, snapshotter: &str) -> Result<Named> {
        let wanted = source.clone();
        let identity = tokio::task::spawn_blocking(move || identify(&wanted))
            .await
            .map_err(|error| Error::system(error.to_string()))??;
        let name = format!("localhost/imported/{}:latest", &identity.key[..32]);
        if self.client().image(&name).await.is_ok() {
            return self.find(&name).await;
        }
        let archive: Box<dyn tokio::io::AsyncRead + Send + Unpin> = match (source, identity.index) {
            (LocalSource::OciDirectory(directory, _), Some(mut index)) => {
                name_manifest(&mut index, &name);
                Box::new(tar_of(directory.clone(), &index))
            }
            _ => {
                let file = tokio::fs::File::open(source.path()).await;
                Box::new(file.map_err(|error| Error::io("open", source.path(), error))?)
            }
        };
        let (progress, mut unseen) = mpsc::channel(16);
        let drain = async { while unseen.recv().await.is_some() {} };
        let transfer = self.client().transfer_image(
            Source::Archive(archive),
            &name,
            self.platform().clone(),
            snapshotter,
            progress,
        );
        tokio::join!(transfer, drain).0?;
        self.find(&name).await
    }
}

struct Identity {
    key: String,
    index: Option<Value>,
}

// A directory is what its index says; an archive is the file it is.
fn identify(source: &LocalSource) -> Result<Identity> {
    let path = source.path();
    match source {
        LocalSource::OciDirectory(_, tag) => {
            let file = path.join("index.json");
            let mut bytes = Vec::new();
            File::open(&file)
                .and_then(|opened| opened.take(MAX_INDEX).read_to_end(&mut bytes))
                .map_err(|error| Error::io("read", &file, error))?;
            let mut index: Value =
                serde_json::from_slice(&bytes).map_err(|error| Error::io("read", &file, error))?;
            choose_manifest(&mut index, tag.as_deref())
                .map_err(|message| Error::invalid(format!("{}: {message}", path.display())))?;
            let key = Sha256::digest(index["manifests"].to_string());
            Ok(Identity {
                key: crate::id::hex(&key),
                index: Some(index),
            })
        }
        LocalSource::Archive(_) | LocalSource::Rootfs(_) => {
            let stat = path.metadata().map_err(|error| Error::io("open", path, error))?;
            if !stat.is_file() {
                return Err(Error::invalid(format!("{} is not a file", path.display())));
            }
            let facts = (
                path,
                stat.dev(),
                stat.ino(),
                stat.size(),
                stat.mtime(),
                stat.mtime_nsec(),
            );
            Ok(Identity {
                key: crate::id::hex(&Sha256::digest(format!("{facts:?}"))),
                index: None,
            })
        }
    }
}

fn choose_manifest(index: &mut Value, tag: Option<&str>) -> std::result::Result<(), String> {
    let manifests = index["manifests"]
        .as_array()
        .ok_or("index.json lists no manifests")?;
    let named = |manifest: &&Value| tag.is_none_or(|tag| manifest["annotations"][REF_NAME] == tag);
    let mut fitting = manifests.iter().filter(named);
    let chosen = match (fitting.next(), fitting.next(), tag) {
        (Some(one), None, _) => one.clone(),
        (None, _, Some(tag)) => return Err(format!("no image is tagged {tag:?}")),
        (None, _, None) => return Err("the layout holds no image".to_owned()),
        (Some(_), Some(_), _) => {
            return Err("the layout holds several images; name one as oci:DIR:TAG".to_owned());
        }
    };
    index["manifests"] = Value::Array(vec![chosen]);
    Ok(())
}

fn name_manifest(index: &mut Value, name: &str) {
    let manifest = &mut index["manifests"][0];
    if !manifest["annotations"].is_object() {
        manifest["annotations"] = Value::Object(serde_json::Map::new());
    }
    manifest["annotations"]["io.containerd.image.name"] = name.into();
}

// The archive is made while it is sent; nothing is kept of it.
fn tar_of(directory: PathBuf, index: &Value) -> tokio::io::DuplexStream {
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let index = index.to_string();
    tokio::task::spawn_blocking(move || {
        let mut out = tokio_util::io::SyncIoBridge::new(writer);
        // A failure ends the archive before its end mark, so the importer refuses it.
        if let Err(error) = write_tar(&mut out, &directory, index.as_bytes()) {
            tracing::warn!(directory = %directory.display(), %error, "OCI layout not sent");
        }
    });
    reader
}

fn write_tar(out: &mut impl Write, directory: &Path, index: &[u8]) -> std::io::Result<()> {
    for (name, bytes) in [
        ("oci-layout", &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
        ("index.json", index),
    ] {
        entry(out, name, bytes.len() as u64)?;
        out.write_all(bytes)?;
        pad(out, bytes.len() as u64)?;
    }
    for algorithm in std::fs::read_dir(directory.join("blobs"))? {
        let algorithm = algorithm?;
        for blob in std::fs::read_dir(algorithm.path())? {
            let blob = blob?;
            if !blob.file_type()?.is_file() {
                continue;
            }
            let file = File::open(blob.path())?;
            let size = file.metadata()?.len();
            let name = format!(
                "blobs/{}/{}",
                algorithm.file_name().to_string_lossy(),
                blob.file_name().to_string_lossy()
            );
            entry(out, &name, size)?;
            let copied = std::io::copy(&mut file.take(size), out)?;
            if copied != size {
                return Err(std::io::Error::other(format!("{name} shrank while it was read")));
            }
            pad(out, size)?;
        }
    }
    out.write_all(&[0; 1024])?;
    out.flush()
}

// A ustar header: name, mode, ids, size, time, checksum, type, magic.
fn entry(out: &mut impl Write, name: &str, size: u64) -> std::io::Result<()> {
    let mut header = [0u8; 512];
    if name.len() > 100 {
        return Err(std::io::Error::other(format!(
            "{name}: the name is longer than 100 bytes"
        )));
    }
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    if size < 1 << 33 {
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        // Sizes beyond eleven octal digits are binary, marked by the top bit.
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
    }
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&header)
}

fn pad(out: &mut impl Write, size: u64) -> std::io::Result<()> {
    let rest = usize::try_from(size % 512).unwrap_or(0);
    if rest > 0 {
        out.write_all(&[0; 512][rest..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn transports_are_told_from_names() {
        let parse = |text| LocalSource::parse(text).unwrap();
        assert_eq!(
            parse("oci:/a/b"),
            Some(LocalSource::OciDirectory("/a/b".into(), None))
        );
        assert_eq!(
            parse("oci:/a:t"),
            Some(LocalSource::OciDirectory("/a".into(), Some("t".to_owned())))
        );
        assert_eq!(parse("rootfs:/"), Some(LocalSource::Rootfs("/".into())));
        assert_eq!(parse("alpine:3"), None);
        assert_eq!(parse("oci:latest"), None);
        assert!(LocalSource::parse("rootfs:./x").is_err());
    }

    #[test]
    fn one_manifest_is_chosen() {
        let index = || {
            json!({ "manifests": [
                { "digest": "a", "annotations": { REF_NAME: "1" } },
                { "digest": "b", "annotations": { REF_NAME: "2" } },
            ]})
        };
        let mut two = index();
        choose_manifest(&mut two, Some("2")).unwrap();
        assert_eq!(two["manifests"][0]["digest"], "b");
        assert!(choose_manifest(&mut index(), None).is_err());
        assert!(choose_manifest(&mut index(), Some("3")).is_err());
        assert!(choose_manifest(&mut json!({}), None).is_err());
    }

    #[test]
    fn the_archive_is_a_tar() {
        let layout = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        std::fs::write(layout.path().join("blobs/sha256/abc"), vec![7u8; 700]).unwrap();
        let mut bytes = Vec::new();
        write_tar(&mut bytes, layout.path(), b"{}").unwrap();
        let archive = layout.path().join("x.tar");
        std::fs::write(&archive, &bytes).unwrap();
        let listed = std::process::Command::new("tar")
            .arg("-tf")
            .arg(&archive)
            .output()
            .unwrap();
        assert!(listed.status.success());
        assert_eq!(
            String::from_utf8_lossy(&listed.stdout),
            "oci-layout\nindex.json\nblobs/sha256/abc\n"
        );
    }
}
