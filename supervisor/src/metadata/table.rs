//! The tables and the rows that are not messages of the API.

use std::{collections::BTreeMap, marker::PhantomData};

use prost_types::Timestamp;
use redb::TableDefinition;
use wharf_proto::containerd::services::{containers, content, images, leases, namespaces};

/// A table of rows `R` under [`Key`](super::Key)s.
pub struct Table<R> {
    pub(super) definition: TableDefinition<'static, &'static [u8], &'static [u8]>,
    row: PhantomData<fn() -> R>,
}

impl<R> Table<R> {
    const fn new(name: &'static str) -> Self {
        Self {
            definition: TableDefinition::new(name),
            row: PhantomData,
        }
    }
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Table<R> {}

/// `schema` and `sequence`.
pub const META: Table<Meta> = Table::new("meta");
/// Namespaces and their labels.
pub const NAMESPACES: Table<namespaces::v1::Namespace> = Table::new("namespaces");
/// Image names and their targets.
pub const IMAGES: Table<images::v1::Image> = Table::new("images");
/// Container records.
pub const CONTAINERS: Table<containers::v1::Container> = Table::new("containers");
/// Which blobs a namespace sees, and their labels there.
pub const CONTENT: Table<content::v1::Info> = Table::new("content");
/// Ingests in progress.
pub const INGESTS: Table<Ingest> = Table::new("ingests");
/// Which snapshots a namespace sees, and their labels there.
pub const SNAPSHOTS: Table<Snapshot> = Table::new("snapshots");
/// The overlay snapshotter's own rows, by name.
pub const OVERLAY: Table<Overlay> = Table::new("overlay");
/// Leases.
pub const LEASES: Table<leases::v1::Lease> = Table::new("leases");
/// The resources of leases; all is in the key.
pub const LEASE_RESOURCES: Table<()> = Table::new("lease_resources");

/// A single fact about the store.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Meta {
    /// A number: schema version, last durable transaction, next snapshot.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// A text: the instance's UUID.
    #[prost(string, tag = "2")]
    pub text: String,
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
}

/// A snapshot as a namespace sees it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    /// The name in the snapshotter: `<namespace>/<number>/<key>`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The parent's key in the same namespace, or empty.
    #[prost(string, tag = "2")]
    pub parent: String,
    /// Labels in this namespace.
    #[prost(btree_map = "string, string", tag = "3")]
    pub labels: BTreeMap<String, String>,
    /// When it was prepared or viewed; a commit keeps it.
    #[prost(message, optional, tag = "4")]
    pub created_at: Option<Timestamp>,
    /// When labels or kind last changed.
    #[prost(message, optional, tag = "5")]
    pub updated_at: Option<Timestamp>,
}

/// A snapshot as the overlay snapshotter knows it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Overlay {
    /// The directory below `snapshots/overlay`.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The parent's name, or empty.
    #[prost(string, tag = "2")]
    pub parent: String,
    /// [`crate::snapshot::Kind`] as the API numbers it.
    #[prost(int32, tag = "3")]
    pub kind: i32,
    /// Bytes on disk, of a committed snapshot.
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// Inodes, of a committed snapshot.
    #[prost(uint64, tag = "5")]
    pub inodes: u64,
    /// When it was prepared or viewed.
    #[prost(message, optional, tag = "6")]
    pub created_at: Option<Timestamp>,
    /// When it was last changed.
    #[prost(message, optional, tag = "7")]
    pub updated_at: Option<Timestamp>,
}
