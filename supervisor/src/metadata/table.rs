//! The tables and the rows that are not messages of the API.

use std::{collections::BTreeMap, marker::PhantomData};

use prost_types::Timestamp;
use redb::TableDefinition;
use wharf_proto::containerd::{
    services::{containers, content, images, leases, namespaces},
    types,
};

/// A table of rows `R` under [`Key`](super::Key)s.
pub struct Table<R> {
    pub(super) name: &'static str,
    row: PhantomData<fn() -> R>,
}

/// How every table is stored.
pub(super) type Definition<'name> = TableDefinition<'name, &'static [u8], &'static [u8]>;

impl<R> Table<R> {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            row: PhantomData,
        }
    }

    /// The same table, for who wants the keys alone: rows are not decoded.
    pub fn keys(self) -> Table<()> {
        Table::new(self.name)
    }

    pub(super) fn definition(self) -> Definition<'static> {
        Definition::new(self.name)
    }
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Table<R> {}

/// Facts about the store itself.
pub const META: Table<Meta> = Table::new("meta");
/// Namespaces and their labels.
pub const NAMESPACES: Table<namespaces::v1::Namespace> = Table::new("namespaces");
/// Image names and their targets.
pub const IMAGES: Table<images::v1::Image> = Table::new("images");
/// Container records.
pub const CONTAINERS: Table<containers::v1::Container> = Table::new("containers");
/// The same rows, for who wants to know what they refer to: there are specifications in them, which are most of the file.
pub const CONTAINER_REFERENCES: Table<References> = Table::new("containers");
/// Sandbox records.
pub const SANDBOXES: Table<types::Sandbox> = Table::new("sandboxes");
/// Which blobs a namespace sees, and their labels there.
pub const CONTENT: Table<content::v1::Info> = Table::new("content");
/// Which namespaces see a blob: the reverse of [`CONTENT`].
pub const CONTENT_USERS: Table<()> = Table::new("content_users");
/// Ingests in progress.
pub const INGESTS: Table<Ingest> = Table::new("ingests");
/// Snapshots.
pub const SNAPSHOTS: Table<Snapshot> = Table::new("snapshots");
/// The children of snapshots: the reverse of [`Snapshot::parent`].
pub const SNAPSHOT_CHILDREN: Table<()> = Table::new("snapshot_children");
/// Leases.
pub const LEASES: Table<leases::v1::Lease> = Table::new("leases");
/// The resources of leases; all is in the key.
pub const LEASE_RESOURCES: Table<()> = Table::new("lease_resources");

/// Activations of mounts. Of this boot only: the rows of another one stand for nothing.
pub const MOUNTS: Table<Activation> = Table::new("mounts");

/// A single fact about the store.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Meta {
    /// A number: schema version, sequence number.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// A text: the instance's UUID.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// What a container refers to: the fields of `containers.v1.Container` that say so.
#[derive(Clone, PartialEq, prost::Message)]
pub struct References {
    /// Its labels.
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    /// The snapshotter of its snapshot.
    #[prost(string, tag = "6")]
    pub snapshotter: String,
    /// Its snapshot, or empty.
    #[prost(string, tag = "7")]
    pub snapshot_key: String,
}

/// An ingest in progress. Its bytes and offset are those of its data file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ingest {
    /// The directory below `content/ingest`.
    #[prost(string, tag = "1")]
    pub directory: String,
    /// The size the client announced, or 0.
    #[prost(uint64, tag = "2")]
    pub total: u64,
    /// The digest the client announced, or empty.
    #[prost(string, tag = "3")]
    pub expected: String,
    /// When the ingest began.
    #[prost(message, optional, tag = "4")]
    pub started_at: Option<Timestamp>,
    /// The boot in which its bytes were written: they are not flushed, so another boot does not trust them.
    #[prost(string, tag = "5")]
    pub boot: String,
}

/// Mounts under a name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Activation {
    /// The directory in which they are; never used twice.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// How far it is.
    #[prost(enumeration = "Phase", tag = "2")]
    pub phase: i32,
    /// The boot in which they were made.
    #[prost(string, tag = "3")]
    pub boot: String,
    /// The lease that holds it, or empty.
    #[prost(string, tag = "4")]
    pub lease: String,
    /// What clients are told; no mounts before it is active.
    #[prost(message, optional, tag = "5")]
    pub info: Option<types::ActivationInfo>,
}

/// How far an activation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Phase {
    /// Mounts are being made, by a call that goes on.
    Pending = 0,
    /// All are there.
    Active = 1,
    /// They are being taken down, or were to be.
    Ending = 2,
}

/// A snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    /// The number under which the snapshotter keeps it; never used twice in a root.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The parent's key in the same namespace and snapshotter, or empty.
    #[prost(string, tag = "2")]
    pub parent: String,
    /// `snapshots.v1.Kind`.
    #[prost(int32, tag = "3")]
    pub kind: i32,
    /// Its labels.
    #[prost(btree_map = "string, string", tag = "4")]
    pub labels: BTreeMap<String, String>,
    /// When it was made; of a committed one, when it was committed.
    #[prost(message, optional, tag = "5")]
    pub created_at: Option<Timestamp>,
    /// When its labels last changed.
    #[prost(message, optional, tag = "6")]
    pub updated_at: Option<Timestamp>,
    /// Bytes on disk, of a committed one.
    #[prost(uint64, tag = "7")]
    pub size: u64,
    /// Inodes, of a committed one.
    #[prost(uint64, tag = "8")]
    pub inodes: u64,
}
