//! Computing a layer: what has to be applied to one tree to get another, as an OCI tar stream.
//!
//! ```text
//! two sets of mounts ──► view (open roots) ──► walk (compare: the changes, sorted) ──► write (tar) ──► the caller's writer
//! ```
//!
//! The stream follows the [layer specification](https://github.com/opencontainers/image-spec/blob/main/layer.md):
//!
//! - What is gone becomes an explicit whiteout. A directory that an overlay made opaque is written by what it hides, one
//!   whiteout each, as the specification recommends; `.wh..wh..opq` is never written.
//! - Every entry is preceded by the directories it lies in. Names of one inode are hard links to the first one; if one of
//!   them changed, all are written.
//! - Holes are written as zeros, sockets are left out.
//! - The same two trees give the same bytes: entries are sorted by name, times are whole seconds, access times and names of
//!   users are left out, whiteouts are of 1970.
//!
//! Of extended attributes those that belong to an image are compared and written: `user.` (but not overlayfs's own) and
//! `security.capability`.
//!
//! The trees may be a running container's, so they are hostile: no name is resolved by more than one component, no link is
//! followed, nothing but regular files is opened, a file that changes its length under our eyes is an error.

mod attributes;
mod compress;
mod header;
#[cfg(test)]
mod tests;
mod view;
mod walk;
mod write;

use std::{io::Write, path::Path};

use rustix::fd::OwnedFd;
use wharf_proto::containerd::types::Mount;

pub(crate) use compress::{Compression, Encoder};
pub(crate) use header::{BLOCK, Body, Header};

use crate::error::Result;

/// Two trees to be compared.
#[derive(Debug)]
struct Trees {
    /// The older one; none: an empty one.
    lower: Option<OwnedFd>,
    /// The newer one.
    upper: OwnedFd,
    /// Of the newer one, a directory that has every name that may have changed: its overlay's upper directory.
    touched: Option<OwnedFd>,
}

/// Writes the layer between `lower` (none: nothing) and `upper` to `output`. `place` is an empty directory for mounts, which
/// nobody else ever sees there. `latest`, in seconds since 1970, is the latest time that an entry gets. Blocks.
///
/// # Errors
///
/// `InvalidArgument` or `Unimplemented` for mounts that cannot be opened; `FailedPrecondition` for a tree that changes
/// meanwhile or that no layer can tell; `Unknown` from reading the trees, and what `output` says.
pub(crate) fn diff(
    lower: &[Mount],
    upper: &[Mount],
    place: &Path,
    latest: Option<i64>,
    output: impl Write,
) -> Result<()> {
    let trees = view::open(lower, upper, place)?;
    let changes = walk::compare(&trees)?;
    write::write(&trees.upper, &changes, latest, output)
}
