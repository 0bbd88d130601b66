//! The rows of the supervisor in one redb file, `<root>/metadata.redb`.
//!
//! ```text
//! meta                                              → text: `schema` = "1", `sequence` = last durable transaction
//! namespaces     / <namespace>                      → namespaces.v1.Namespace
//! images         / <namespace> / <name>             → images.v1.Image          ─ edge: target.digest
//! containers     / <namespace> / <id>               → containers.v1.Container  ─ edge: snapshotter + snapshot_key
//! content        / <namespace> / <digest>           → content.v1.Info          ─ edges: labels gc.ref.*
//! ingests        / <namespace> / <ref>              → Ingest (directory, expected digest)
//! snapshots      / <namespace> / <snapshotter> / <key> → Snapshot (name in the snapshotter, labels) ─ edges: parent, gc.ref.*
//! overlay        / <name>                           → overlay::Row (directory number, parent, kind, usage)
//! leases         / <namespace> / <id>               → leases.v1.Lease
//! lease_resources/ <namespace> / <lease> / <type> / <id> → empty              ─ edge: the resource
//! ```
//!
//! Keys are their parts joined by NUL, so a prefix of parts is a prefix of bytes; a part that contains NUL is refused.
//! Values are protobuf messages, mostly the very messages of the API, so a field that a later version adds is kept out of the
//! way of an older reader.
//!
//! Two kinds of commit ([`Commit`]): a *durable* one is on disk when it returns; a *lazy* one survives kill -9 but power
//! loss may take it, whole, until the next durable commit, which carries all earlier ones with it.

mod key;
mod store;
mod table;

pub use key::Key;
pub use store::{Commit, Read, ReadTxn, Store, WriteTxn};
pub use table::*;
