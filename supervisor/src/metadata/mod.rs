//! The rows of the supervisor in one redb file, `<root>/metadata.redb`, with a journal beside it.
//!
//! ```text
//! meta              / schema                             → 1
//! meta              / sequence                           → the last transaction in the file
//! meta              / snapshot                           → the last number given to a snapshot
//! meta              / uuid                               → the instance
//! namespaces        / <namespace>                        → namespaces.v1.Namespace
//! images            / <namespace> / <name>               → images.v1.Image          edge: target.digest
//! containers        / <namespace> / <id>                 → containers.v1.Container  edges: snapshotter + snapshot_key, image
//! content           / <namespace> / <digest>             → content.v1.Info          edges: labels containerd.io/gc.ref.*
//! content_users     / <digest> / <namespace>             → (the reverse)
//! ingests           / <namespace> / <ref>                → Ingest
//! snapshots         / <namespace> / <snapshotter> / <key> → Snapshot                edges: parent, labels gc.ref.*
//! snapshot_children / <namespace> / <snapshotter> / <parent> / <key> → (the reverse)
//! mounts            / <namespace> / <name>               → Activation              edges: lease, labels gc.bref.*
//! leases            / <namespace> / <id>                 → leases.v1.Lease
//! lease_resources   / <namespace> / <lease> / <type> / <id> → (all in the key)      edge: the resource
//! ```
//!
//! Keys are their parts joined by NUL, so a prefix of parts is a prefix of bytes; a part that contains NUL is refused.
//! Rows are protobuf messages, mostly the very messages of the API, so what an older version does not know it skips.
//!
//! Two kinds of commit ([`Commit`]): a *durable* one is on disk when it returns; a *lazy* one survives kill -9 (by the
//! journal) but power loss may take it, whole, within a second. Preparing a snapshot is lazy: it is on the path that
//! starts a container, and the container record that is created next is durable and carries it to the disk. A caller may ask
//! for the container record to be lazy, too ([`crate::namespace::COMMIT_HEADER`]): for a container that dies with the boot.

mod file;
mod journal;
mod key;
mod store;
mod table;
mod transaction;

pub use key::Key;
pub use store::{Commit, Store};
pub use table::*;
pub use transaction::{Read, WriteTxn};
