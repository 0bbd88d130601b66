//! One member of an archive, all of its headers taken together.

use super::{pax::Timestamp, sparse::Segment};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file.
    File,
    /// Another name of a file that came earlier.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
}

/// A member of an archive, as it says of itself: nothing here has been checked against anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is.
    pub(crate) kind: EntryKind,
    /// Its name, without a final NUL.
    pub(crate) name: Vec<u8>,
    /// The target of a hard or symbolic link.
    pub(crate) link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky: no more than `0o7777`.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u64,
    /// Group.
    pub(crate) gid: u64,
    /// When the data last changed.
    pub(crate) modified: Timestamp,
    /// When it was last read, if the archive knows.
    pub(crate) accessed: Option<Timestamp>,
    /// The size of the file in bytes, holes included; 0 for everything but files.
    pub(crate) size: u64,
    /// Major and minor number of a device.
    pub(crate) device: (u64, u64),
    /// Extended attributes by full name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file, which parts the archive holds.
    pub(crate) segments: Option<Vec<Segment>>,
}

/// How `name` is shown in errors: quoted, escaped, cut to what fits a line.
pub(super) fn quoted(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]);
    if name.len() > SHOWN {
        format!("{text:?}…")
    } else {
        format!("{text:?}")
    }
}
