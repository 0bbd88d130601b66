//! Checkpoints as content: the directory that a shim fills, as an archive in the content store; and back.
//!
//! An archive may come from anywhere. It is unpacked as a layer is, below a directory that only root enters, and what is in
//! it is criu's images alone: the container itself is made from its own record.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use wharf_proto::containerd::types::{Descriptor, Mount};

use crate::content::{self, Reader};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::identifier::Labels;
use crate::layer::{self, Limits};
use crate::namespace::Scope;

/// The media type of criu's images.
pub const IMAGES: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
/// The media type of a container's spec, beside them.
const CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";

/// A directory for criu's images that is gone with the value.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// An empty directory below `parent`, which is made if it is missing. Blocks.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system.
    pub fn new(parent: &Path) -> Result<Self> {
        let random = getrandom::u64().map_err(|error| Error::unknown("draw a random number", error))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| Error::io(format!("create {}", parent.display()), error))?;
        // The process is named, so that what it leaves when it is killed is known as such.
        let path = parent.join(format!("{}-{random:016x}", std::process::id()));
        make(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::error!(path = %self.0.display(), %error, "directory of a checkpoint not removed");
        }
    }
}

/// Removes the directories below `parent` whose daemon is no more. Blocks.
///
/// # Errors
///
/// `Unknown` from the file system.
pub fn sweep(parent: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("clear {}", parent.display()), error);
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn make(path: &Path) -> Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::io(format!("create {}", path.display()), error))
}

/// Writes what is in `directory`, and the container's `spec`, to the content store; their descriptors. Blocks.
///
/// # Errors
///
/// Those of the content store.
pub fn store(daemon: &Daemon, scope: &Scope, directory: &Path, spec: &[u8]) -> Result<Vec<Descriptor>> {
    let tree = Mount {
        r#type: "bind".into(),
        source: directory.to_string_lossy().into_owned(),
        options: vec!["rbind".into(), "ro".into()],
        ..Mount::default()
    };
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let reference = format!("checkpoint-{name}");
    let mut blob = Blob {
        writer: daemon.content.writer(scope, &reference, 0, None)?,
        failure: None,
    };
    let written = layer::diff::diff(&[], &[tree], &daemon.mount_place, None, &mut blob);
    let Blob { writer, failure } = blob;
    let stored = match failure {
        Some(failure) => Err(failure),
        None => written,
    }
    .and_then(|()| {
        let (digest, size) = (writer.digest(), writer.status().offset);
        match writer.commit(None, None, Labels::new()) {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok((digest, size)),
        }
    });
    let (digest, size) = match stored {
        Ok(stored) => stored,
        Err(error) => {
            return Err(match daemon.content.abort(scope, &reference) {
                Err(second) if !second.is_not_found() => error.context(second),
                _ => error,
            });
        }
    };
    let config = daemon.content.write(scope, spec, Labels::new())?;
    let descriptor = |media_type: &str, digest: String, size: u64| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: size.cast_signed(),
        ..Descriptor::default()
    };
    Ok(vec![
        descriptor(IMAGES, digest.to_string(), size),
        descriptor(CONFIG, config.to_string(), spec.len() as u64),
    ])
}

/// Unpacks the archive in `blob` into the new directory `into`. Blocks.
///
/// # Errors
///
/// `InvalidArgument` for an archive that is malformed or refused; `Unknown` from the file system.
pub fn unpack(blob: Reader, into: &Path) -> Result<()> {
    make(into)?;
    let target =
        fs::File::open(into).map_err(|error| Error::io(format!("open {}", into.display()), error))?;
    let size = blob.size();
    layer::apply(
        blob,
        size,
        layer::Target::Complete(target.into()),
        Limits::default(),
    )
    .map(drop)
    .map_err(|error| error.context("unpack the checkpoint"))
}

/// The content store as a writer, which keeps the store's own error.
struct Blob {
    writer: content::Writer,
    failure: Option<Error>,
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.writer.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let text = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(text))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_daemon_left_is_swept_and_no_more() {
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path().join("checkpoints");
        sweep(&parent).unwrap();
        let live = Directory::new(&parent).unwrap();
        let dead = parent.join("4194305-0");
        fs::create_dir_all(dead.join("full")).unwrap();
        sweep(&parent).unwrap();
        assert!(live.path().exists() && !dead.exists());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }
}
