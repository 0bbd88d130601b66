//! Comparing two trees: which names are gone, which are new or other than they were.
//!
//! Same is what has the same type, mode, owner, device, size, target and attributes and, if it is no directory, the same
//! time; where both times are whole seconds, as a layer's are, the bytes decide.

use std::collections::BTreeSet;

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{Trees, attributes, view};
use crate::error::{Error, Kind, Result};

/// The most names that a layer takes; as many as are applied.
const MAX_CHANGES: usize = 4 << 20;
/// How deep directories may lie in each other: each holds descriptors.
const MAX_DEPTH: usize = 256;

/// Device and number of an inode that has several names.
pub(super) type Inode = (u64, u64);

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is gone.
    Removed,
    /// It is new or another.
    Changed(Option<Inode>),
    /// It is the same, but one of several names, which may have to be written for another's sake.
    Linked(Inode),
}

/// All names that changed, with their paths from the root, each directory before what is in it.
pub(super) type Changes = Vec<(Vec<u8>, Change)>;

/// Compares the trees.
pub(super) fn compare(trees: &Trees) -> Result<Changes> {
    let mut walk = Walk {
        changes: Changes::new(),
        path: Vec::new(),
    };
    walk.directory(trees.lower.as_ref(), &trees.upper, trees.touched.as_ref(), 0)?;
    Ok(walk.changes)
}

struct Walk {
    changes: Changes,
    path: Vec<u8>,
}

impl Walk {
    fn failed(&self, step: &str, error: Errno) -> Error {
        Error::io(format!("{step} /{}", String::from_utf8_lossy(&self.path)), error)
    }

    fn push(&mut self, change: Change) -> Result<()> {
        if self.changes.len() == MAX_CHANGES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("more than {MAX_CHANGES} changes"),
            ));
        }
        self.changes.push((self.path.clone(), change));
        Ok(())
    }

    fn directory(
        &mut self,
        lower: Option<&OwnedFd>,
        upper: &OwnedFd,
        touched: Option<&OwnedFd>,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::precondition(format!(
                "directories lie more than {MAX_DEPTH} deep"
            )));
        }
        let mut all = BTreeSet::new();
        match touched {
            Some(touched) => names(touched, &mut all),
            None => {
                names(upper, &mut all).and_then(|()| lower.map_or(Ok(()), |lower| names(lower, &mut all)))
            }
        }
        .map_err(|error| self.failed("list", error))?;
        let length = self.path.len();
        for name in all {
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            self.name(lower, upper, touched, &name, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn name(
        &mut self,
        lower: Option<&OwnedFd>,
        upper: &OwnedFd,
        touched: Option<&OwnedFd>,
        name: &[u8],
        depth: usize,
    ) -> Result<()> {
        let before = match lower {
            Some(lower) => stat(lower, name).map_err(|error| self.failed("stat", error))?,
            None => None,
        };
        let after = stat(upper, name).map_err(|error| self.failed("stat", error))?;
        let socket = |stat: &Stat| kind(stat) == FileType::Socket;
        let Some(after) = after.filter(|after| !socket(after)) else {
            return match before {
                Some(before) if !socket(&before) => self.push(Change::Removed),
                _ => Ok(()),
            };
        };
        // No layer could have brought a socket.
        let before = before.filter(|before| !socket(before));
        let same = match (lower, &before) {
            (Some(lower), Some(before)) => {
                same((lower, before), (upper, &after), name).map_err(|error| self.failed("compare", error))?
            }
            _ => false,
        };
        if kind(&after) != FileType::Directory {
            let inode = (after.st_nlink > 1).then_some((after.st_dev, after.st_ino));
            return match (same, inode) {
                (false, inode) => self.push(Change::Changed(inode)),
                (true, Some(inode)) => self.push(Change::Linked(inode)),
                (true, None) => Ok(()),
            };
        }
        if !same {
            self.push(Change::Changed(None))?;
        }
        let open = |parent| view::open_child(parent, name).map_err(|error| self.failed("open", error));
        let upper = open(upper)?;
        let lower = match (lower, before) {
            (Some(lower), Some(before)) if kind(&before) == FileType::Directory => Some(open(lower)?),
            _ => None,
        };
        let touched = match (touched, &lower) {
            (Some(touched), Some(_)) => {
                let touched = open(touched)?;
                let cut_off = view::is_cut_off(&touched).map_err(|error| self.failed("examine", error))?;
                (!cut_off).then_some(touched)
            }
            _ => None,
        };
        self.directory(lower.as_ref(), &upper, touched.as_ref(), depth + 1)
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn names(directory: &OwnedFd, into: &mut BTreeSet<Vec<u8>>) -> rustix::io::Result<()> {
    for entry in fs::Dir::new(view::again(directory)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            into.insert(name.to_vec());
        }
    }
    Ok(())
}

fn stat(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

fn same(lower: (&OwnedFd, &Stat), upper: (&OwnedFd, &Stat), name: &[u8]) -> rustix::io::Result<bool> {
    let (before, after) = (lower.1, upper.1);
    if (before.st_mode, before.st_uid, before.st_gid) != (after.st_mode, after.st_uid, after.st_gid) {
        return Ok(false);
    }
    match kind(after) {
        FileType::Directory => {}
        FileType::CharacterDevice | FileType::BlockDevice if before.st_rdev != after.st_rdev => {
            return Ok(false);
        }
        file => {
            if before.st_size != after.st_size || before.st_mtime != after.st_mtime {
                return Ok(false);
            }
            if before.st_mtime_nsec != after.st_mtime_nsec {
                return Ok(false);
            }
            // Times of a layer tell no fractions: a change within the second is one of the bytes.
            let vague = after.st_mtime_nsec == 0;
            if vague && file == FileType::Symlink && target(lower.0, name)? != target(upper.0, name)? {
                return Ok(false);
            }
            if vague && file == FileType::RegularFile && !same_bytes(lower, upper, name)? {
                return Ok(false);
            }
        }
    }
    Ok(attributes::of(lower.0, name)? == attributes::of(upper.0, name)?)
}

fn target(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    Ok(fs::readlinkat(directory, name, Vec::new())?.into_bytes())
}

/// Opens the regular file `name`; anything else that has come in its place is an error.
pub(super) fn open_file(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(directory, name, flags, Mode::empty())?;
    match kind(&fs::fstat(&file)?) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(Errno::STALE),
    }
}

fn same_bytes(lower: (&OwnedFd, &Stat), upper: (&OwnedFd, &Stat), name: &[u8]) -> rustix::io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let identity = |stat: &Stat| (stat.st_dev, stat.st_ino);
    if upper.1.st_size == 0 || identity(lower.1) == identity(upper.1) {
        return Ok(true);
    }
    let files = [open_file(lower.0, name)?, open_file(upper.0, name)?];
    let mut buffers = [vec![0; 128 << 10], vec![0; 128 << 10]];
    let mut offset = 0;
    loop {
        let mut lengths = [0; 2];
        for ((file, buffer), length) in files.iter().zip(&mut buffers).zip(&mut lengths) {
            // Short reads are only those at the end: regular files are filled as far as they go.
            *length = file
                .read_at(buffer, offset)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        if lengths[0] != lengths[1] || buffers[0][..lengths[0]] != buffers[1][..lengths[0]] {
            return Ok(false);
        }
        if lengths[0] == 0 {
            return Ok(true);
        }
        offset += lengths[0] as u64;
    }
}

/// The last component of a path from the root, and what is before it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
