//! Snapshots: layered filesystems, handed out as mounts.
//!
//! ```text
//!  prepare(parent) ──► active ──commit──► committed ◄──parent── …
//!  view(parent)    ──► view                    │
//!                remove ◄──────────────────────┘   (no children)
//! ```
//!
//! A [`Snapshotter`] keeps snapshots under global names; [`Store`] gives each namespace its own keys and labels on top
//! of any of them. All calls block. Mounts are descriptions: nobody here mounts anything.

pub mod overlay;
mod store;

use prost_types::Timestamp;

pub use store::Store;
pub use wharf_proto::containerd::{services::snapshots::v1::Kind, types::Mount};

use crate::{error::Result, identifier::Labels};

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
    /// When it was prepared or viewed.
    pub created_at: Timestamp,
    /// When it was last changed.
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

/// An implementation that keeps snapshots under global names.
pub trait Snapshotter: Send + Sync {
    /// Makes a writable snapshot on `parent` (empty: on nothing) and says how to mount it. Waits for no disk flush.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` for `key`; `NotFound` for `parent`; `InvalidArgument` when `parent` is not committed.
    fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>>;

    /// Makes a read-only snapshot on `parent` and says how to mount it.
    ///
    /// # Errors
    ///
    /// As [`Snapshotter::prepare`].
    fn view(&self, key: &str, parent: &str) -> Result<Vec<Mount>>;

    /// How to mount the active snapshot or view `key`.
    ///
    /// # Errors
    ///
    /// `NotFound`; `FailedPrecondition` for a committed one.
    fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// Turns the active snapshot `key` into the committed `name`, durably.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` for `name`; `NotFound`; `FailedPrecondition` when `key` is not active.
    fn commit(&self, name: &str, key: &str) -> Result<()>;

    /// Removes a snapshot without children.
    ///
    /// # Errors
    ///
    /// `NotFound`; `FailedPrecondition` when it has children.
    fn remove(&self, key: &str) -> Result<()>;

    /// What `key` is (without labels).
    ///
    /// # Errors
    ///
    /// `NotFound`.
    fn stat(&self, key: &str) -> Result<Info>;

    /// All snapshots (without labels), by name.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    fn walk(&self) -> Result<Vec<Info>>;

    /// What `key` takes on disk; walks the tree of an active one.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    fn usage(&self, key: &str) -> Result<Usage>;

    /// Frees what removed snapshots and interrupted calls left.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    fn cleanup(&self) -> Result<()>;
}
