//! Snapshots: layered filesystems, handed out as mounts.
//!
//! ```text
//!  prepare(parent) ──► active ──commit──► committed ◄──parent── active, view, committed …
//!  view(parent)    ──► view                    │
//!                remove ◄──────────────────────┘   (no children)
//! ```
//!
//! [`Store`] owns everything that is a fact: keys, namespaces, kinds, parents, labels, in one row a snapshot, so every
//! call is one transaction. A [`Snapshotter`] owns only the bytes, under numbers that are never used twice: it can be
//! asked which numbers it keeps, and what no row names is removed. So nothing half-made is ever visible, and a crash
//! leaves at most a number to clean up.
//!
//! All calls block. Mounts are descriptions: nobody here mounts anything.

mod btrfs;
mod copy;
mod flush;
mod id_map;
mod load;
mod native;
pub mod overlay;
mod place;
mod proxy;
mod store;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;

pub(crate) use flush::LOST;
pub use load::{Loaded, Proxy, Settings, load};
pub use store::Store;
pub use wharf_proto::containerd::{services::snapshots::v1::Kind, types::Mount};

use crate::{error::Result, identifier::Labels};

/// Bytes that `path` takes on disk with all that is below it. Blocks.
///
/// # Errors
///
/// `Unknown` from the disk.
pub fn disk_usage(path: &std::path::Path) -> Result<u64> {
    usage::of(path)
        .map(|usage| usage.size)
        .map_err(|source| crate::Error::io(format!("measure {}", path.display()), source))
}

/// The name of the default snapshotter.
pub const DEFAULT: &str = "overlayfs";

/// A snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Key of an active snapshot or view, name of a committed one.
    pub name: String,
    /// The parent's name, or empty.
    pub parent: String,
    /// Active, view or committed.
    pub kind: Kind,
    /// When it was made; of a committed one, when it was committed.
    pub created_at: Timestamp,
    /// When its labels last changed.
    pub updated_at: Timestamp,
    /// Its labels.
    pub labels: Labels,
}

/// What a snapshot takes, its parents not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub size: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A snapshot as a snapshotter sees it.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a> {
    /// Its number.
    pub number: u64,
    /// The numbers of its ancestors, parent first, all committed.
    pub parents: &'a [u64],
    /// What it is.
    pub kind: Kind,
    /// The namespace it is in, for an external snapshotter.
    pub namespace: &'a str,
    /// Its labels, for an external snapshotter.
    pub labels: &'a Labels,
}

/// What came of a wish for a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is there.
    Fresh,
    /// An external snapshotter has the committed snapshot already that the label `containerd.io/snapshot.ref` names; the
    /// number now stands for that.
    Existing(Usage),
}

/// What clients are told about a snapshotter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What it can do beyond what all can, in containerd's words.
    pub capabilities: Vec<String>,
    /// Facts, among them `root`, its directory.
    pub exports: BTreeMap<String, String>,
}

/// An implementation: bytes under numbers.
pub trait Snapshotter: Send + Sync {
    /// Makes room for a new snapshot. Waits for no disk flush.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` or `Unknown` from the disk; nothing is left then.
    fn create(&self, stack: Stack<'_>) -> Result<Made>;

    /// Makes a snapshot that is not committed again, as it was when it was new, where power loss took its place: that was
    /// not flushed. Of one that is there nothing changes.
    ///
    /// # Errors
    ///
    /// As [`Snapshotter::create`].
    fn restore(&self, stack: Stack<'_>) -> Result<()>;

    /// Whether a snapshot surely keeps only its own layer, so that it can be filled before its parent is there.
    fn keeps_layers_apart(&self) -> bool;

    /// How to mount an active snapshot or a view.
    ///
    /// # Errors
    ///
    /// `Unavailable` from an external snapshotter.
    fn mounts(&self, stack: Stack<'_>) -> Result<Vec<Mount>>;

    /// Makes an active snapshot durable and says what it takes; `rebased`: it was made on nothing, and its parents are
    /// those of now. Sealing once more what was sealed is no error. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// `Unimplemented` when it cannot be rebased; `ResourceExhausted` or `Unknown` from the disk.
    fn seal(&self, stack: Stack<'_>, rebased: bool) -> Result<Usage>;

    /// What an active snapshot takes now; walks its tree.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    fn usage(&self, stack: Stack<'_>) -> Result<Usage>;

    /// Removes a snapshot; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    fn remove(&self, number: u64) -> Result<()>;

    /// All numbers it keeps, finished or not.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    fn numbers(&self) -> Result<BTreeSet<u64>>;

    /// What clients are told about it.
    fn about(&self) -> About;
}
