//! The metadata's file: made whole or not at all, and read as it is on the disk.
//!
//! Pages that could not be written stay in the page cache as if they had been (`fsync(2)`): a second flush succeeds and
//! writes nothing. So a file is opened by flushing it and forgetting what the cache holds; what is read then is what the
//! disk has. Refuses to be locked: the root's lock is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use redb::{Builder, Database, StorageBackend};

use super::transaction::failed;
use crate::error::{Error, Result};

/// redb's page cache; the rows of thousands of images fit.
const CACHE_BYTES: usize = 4 << 20;

/// A file as redb sees it.
#[derive(Debug)]
struct Backend(File);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// Opens the file at `path`, or makes it. Blocks, recovers after a crash.
///
/// # Errors
///
/// `ResourceExhausted` or `Unknown` from the disk; `Unknown` when the file is not one of redb's.
pub(super) fn open(path: &Path) -> Result<Database> {
    if !path.exists() {
        make(path)?;
    }
    let failed = |source| Error::io(format!("open {}", path.display()), source);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    file.sync_all().map_err(failed)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|error| failed(error.into()))?;
    database(file, path)
}

/// Makes an empty file under another name, and gives it its own when it is complete and durable.
fn make(path: &Path) -> Result<()> {
    let new = path.with_extension("redb.new");
    let failed = |source| Error::io(format!("create {}", path.display()), source);
    // Specs of containers carry secrets in their environment: nobody else reads the file.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    let handle = file.try_clone().map_err(failed)?;
    drop(database(file, &new)?);
    handle.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    File::open(path.parent().unwrap_or(path))
        .and_then(|directory| directory.sync_all())
        .map_err(failed)
}

fn database(file: File, path: &Path) -> Result<Database> {
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(Backend(file))
        .map_err(|error| failed("open")(error).context(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_making_was_cut_short_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.redb");
        fs::write(path.with_extension("redb.new"), [0; 4096]).unwrap();
        drop(open(&path).unwrap());
        drop(open(&path).unwrap());
        assert!(!path.with_extension("redb.new").exists());
    }
}
