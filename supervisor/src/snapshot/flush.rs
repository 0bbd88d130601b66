//! Making the files of a snapshot durable: by flushing the filesystem, as whoever mounted the snapshot wrote them.
//!
//! The kernel tells of a failed write once (`syncfs(2)`); the next flush succeeds, and what could not be written is lost
//! all the same. So one descriptor is kept, which misses no failure, and after one no snapshot that was there can be
//! committed any more.
//!
//! That is kept in the file `lost` of the snapshotter's directory, written before anybody is told of the failure: the next
//! daemon has a descriptor that missed it. A kill between the kernel's answer and the file leaves nobody told, and nothing
//! known; a disk that does not take the file either leaves it to this daemon's memory, and to the log.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::error::{Error, Result};

/// The file that says which snapshots are lost.
pub(crate) const LOST: &str = "lost";

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
            flush: Mutex::new(Flush {
                directory,
                lost: read_lost(path)?,
            }),
            path: path.to_owned(),
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
        let error = match numbers() {
            Ok(numbers) => {
                flush.lost = numbers.last().map_or(number, |last| number.max(*last));
                error
            }
            Err(second) => {
                flush.lost = u64::MAX;
                error.context(second)
            }
        };
        if let Err(second) = write_lost(&self.path, flush.lost) {
            tracing::error!(path = %self.path.display(), error = %second, "snapshots that are lost are not noted");
        }
        Err(error)
    }
}

/// The number up to which snapshots are lost; 0 when none are.
fn read_lost(directory: &Path) -> Result<u64> {
    let path = directory.join(LOST);
    match fs::read_to_string(&path) {
        // What cannot be read was to say something: that all that is there is lost. What is made from now on is not.
        Ok(text) => match text.trim().parse() {
            Ok(lost) if lost != u64::MAX => Ok(lost),
            _ => Ok(super::native::numbers(directory)?.last().copied().unwrap_or(0)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io(format!("read {}", path.display()), error)),
    }
}

fn write_lost(directory: &Path, lost: u64) -> io::Result<()> {
    let temporary = directory.join(format!(".{LOST}"));
    let mut file = File::create(&temporary)?;
    writeln!(file, "{lost}")?;
    // Nothing of it is of use to a daemon of this boot: but another boot's is told the same.
    let flushed = file.sync_all();
    fs::rename(&temporary, directory.join(LOST))?;
    File::open(directory)?.sync_all()?;
    flushed
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

    #[test]
    fn the_next_daemon_knows_what_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        write_lost(directory.path(), 7).unwrap();
        let filesystem = Filesystem::open(directory.path()).unwrap();
        assert!(filesystem.flush(7, || Ok(BTreeSet::new())).is_err());
        filesystem.flush(8, || Ok(BTreeSet::new())).unwrap();
        // A disk that took half of it.
        fs::write(directory.path().join(LOST), "").unwrap();
        fs::create_dir(directory.path().join("8")).unwrap();
        let filesystem = Filesystem::open(directory.path()).unwrap();
        assert!(filesystem.flush(8, || Ok(BTreeSet::new())).is_err());
        filesystem.flush(9, || Ok(BTreeSet::new())).unwrap();
    }
}
