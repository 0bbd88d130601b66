//! Making the files of a snapshot durable: by flushing the filesystem, as whoever mounted the snapshot wrote them.
//!
//! The kernel tells of a failed write once (`syncfs(2)`); the next flush succeeds, and what could not be written is lost
//! all the same. So one descriptor is kept, which misses no failure, and after one no snapshot that was there can be
//! committed any more.
//!
//! That is kept in the file `lost` of the snapshotter's directory, written before anybody is told of the failure: the next
//! daemon has a descriptor that missed it. It goes with the last of them. A kill between the kernel's answer and the file leaves nobody told, and nothing
//! known; a disk that does not take the file either leaves it to this daemon's memory, and to the log.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::error::{Error, Result};

/// The file that says which snapshots are lost.
pub(crate) const LOST: &str = "lost";

/// The filesystem of one snapshotter.
#[derive(Debug)]
pub(super) struct Filesystem {
    path: PathBuf,
    /// Locked as long as a flush takes.
    directory: Mutex<File>,
    /// The snapshots that were there when a flush failed. Never locked while the disk is waited for, unless there are some.
    lost: Mutex<BTreeSet<u64>>,
}

impl Filesystem {
    /// The one that the directory `path` is on.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::io(format!("open {}", path.display()), source);
        let directory = File::open(path).map_err(failed)?;
        let lost = read_lost(path)?;
        if lost.is_empty() {
            // Those that it tells of are gone.
            remove_lost(path).map_err(failed)?;
        }
        Ok(Self {
            path: path.to_owned(),
            directory: Mutex::new(directory),
            lost: Mutex::new(lost),
        })
    }

    /// Takes note that the snapshot `number` is gone, or made anew: what was lost under that number is nobody's.
    pub(super) fn forget(&self, number: u64) {
        let mut lost = self.lost();
        if lost.remove(&number) {
            self.note(&lost);
        }
    }

    /// Writes down which snapshots are lost.
    fn note(&self, lost: &BTreeSet<u64>) {
        if let Err(error) = write_lost(&self.path, lost) {
            tracing::error!(path = %self.path.display(), %error, "snapshots that are lost are not noted");
        }
    }

    /// Flushes it for the snapshot `number`; `numbers` tells which there are. Blocks, one at a time.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` or `Unknown` from the disk; `FailedPrecondition` for a snapshot that an earlier flush failed.
    pub(super) fn flush(&self, number: u64, numbers: impl FnOnce() -> Result<BTreeSet<u64>>) -> Result<()> {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lost().contains(&number) {
            return Err(Error::precondition(
                "files of the snapshot could not be written: remove it, and make it anew",
            ));
        }
        let Err(error) = rustix::fs::syncfs(&*directory) else {
            return Ok(());
        };
        let error = Error::io(format!("flush the filesystem of {}", self.path.display()), error);
        let mut lost = self.lost();
        lost.insert(number);
        let error = match numbers() {
            Ok(numbers) => {
                lost.extend(numbers);
                error
            }
            // Nobody knows which: all that may be there.
            Err(second) => {
                lost.extend(1..=number);
                error.context(second)
            }
        };
        self.note(&lost);
        Err(error)
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of snapshots that are lost, of those that are there.
fn read_lost(directory: &Path) -> Result<BTreeSet<u64>> {
    let path = directory.join(LOST);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        text => text.map_err(|error| Error::io(format!("read {}", path.display()), error))?,
    };
    let mut there = super::native::numbers(directory)?;
    let lost: std::result::Result<BTreeSet<u64>, _> = text.split_whitespace().map(str::parse).collect();
    match lost {
        Ok(lost) if text.ends_with('\n') => there.retain(|number| lost.contains(number)),
        // What cannot be read was to say something: that all that is there is lost.
        _ => {}
    }
    Ok(there)
}

fn remove_lost(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(LOST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn write_lost(directory: &Path, lost: &BTreeSet<u64>) -> io::Result<()> {
    if lost.is_empty() {
        return remove_lost(directory);
    }
    let temporary = directory.join(format!(".{LOST}"));
    let mut file = File::create(&temporary)?;
    let numbers: Vec<String> = lost.iter().map(u64::to_string).collect();
    writeln!(file, "{}", numbers.join(" "))?;
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
        *filesystem.lost() = [3, 7].into();
        let refused = filesystem.flush(7, || Ok(BTreeSet::new())).unwrap_err();
        assert_eq!(refused.kind(), crate::Kind::FailedPrecondition);
        filesystem.flush(5, || Ok(BTreeSet::new())).unwrap();
        // Made anew, it has nothing of what was lost.
        filesystem.forget(7);
        filesystem.flush(7, || Ok(BTreeSet::new())).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join(LOST)).unwrap(), "3\n");
        filesystem.forget(3);
        assert!(!directory.path().join(LOST).exists());
    }

    #[test]
    fn the_next_daemon_knows_what_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        for number in ["7", "8"] {
            fs::create_dir(directory.path().join(number)).unwrap();
        }
        write_lost(directory.path(), &[6, 7].into()).unwrap();
        let filesystem = Filesystem::open(directory.path()).unwrap();
        assert!(filesystem.flush(7, || Ok(BTreeSet::new())).is_err());
        for number in [6, 8] {
            filesystem.flush(number, || Ok(BTreeSet::new())).unwrap();
        }
        write_lost(directory.path(), &[6].into()).unwrap();
        Filesystem::open(directory.path()).unwrap();
        assert!(!directory.path().join(LOST).exists());
        // A disk that took half of it.
        for text in ["", "7", "x\n"] {
            fs::write(directory.path().join(LOST), text).unwrap();
            let filesystem = Filesystem::open(directory.path()).unwrap();
            assert!(filesystem.flush(8, || Ok(BTreeSet::new())).is_err(), "{text:?}");
            filesystem.flush(9, || Ok(BTreeSet::new())).unwrap();
        }
    }
}
