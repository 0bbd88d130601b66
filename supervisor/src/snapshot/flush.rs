//! Making the files of a snapshot durable: by flushing the filesystem, as whoever mounted the snapshot wrote them.
//!
//! The kernel tells of a failed write once (`syncfs(2)`); the next flush succeeds, and what could not be written is lost
//! all the same. So one descriptor is kept, which misses no failure, and after one no snapshot that was there can be
//! committed any more.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::error::{Error, Result};

/// The filesystem of one snapshotter.
#[derive(Debug)]
pub(super) struct Filesystem {
    path: PathBuf,
    flush: Mutex<Flush>,
}

#[derive(Debug)]
struct Flush {
    directory: File,
    /// The snapshots that were there when a flush failed have numbers up to this one.
    lost: u64,
}

impl Filesystem {
    /// The one that the directory `path` is on.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let directory =
            File::open(path).map_err(|source| Error::io(format!("open {}", path.display()), source))?;
        Ok(Self {
            path: path.to_owned(),
            flush: Mutex::new(Flush { directory, lost: 0 }),
        })
    }

    /// Flushes it for the snapshot `number`; `numbers` tells which there are. Blocks, one at a time.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` or `Unknown` from the disk; `FailedPrecondition` for a snapshot that an earlier flush failed.
    pub(super) fn flush(&self, number: u64, numbers: impl FnOnce() -> Result<BTreeSet<u64>>) -> Result<()> {
        let mut flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= flush.lost {
            return Err(Error::precondition(
                "files of the snapshot could not be written: remove it, and make it anew",
            ));
        }
        let Err(error) = rustix::fs::syncfs(&flush.directory) else {
            return Ok(());
        };
        let error = Error::io(format!("flush the filesystem of {}", self.path.display()), error);
        flush.lost = number;
        match numbers() {
            Ok(numbers) => {
                flush.lost = numbers.last().map_or(number, |last| number.max(*last));
                Err(error)
            }
            Err(second) => {
                flush.lost = u64::MAX;
                Err(error.context(second))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_at_a_failure_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let filesystem = Filesystem::open(directory.path()).unwrap();
        filesystem.flush(1, || Ok(BTreeSet::new())).unwrap();
        filesystem.flush.lock().unwrap().lost = 7;
        let refused = filesystem.flush(7, || Ok(BTreeSet::new())).unwrap_err();
        assert_eq!(refused.kind(), crate::Kind::FailedPrecondition);
        filesystem.flush(8, || Ok(BTreeSet::new())).unwrap();
    }
}
