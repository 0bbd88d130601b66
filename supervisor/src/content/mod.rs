//! Content: immutable blobs by digest, and the ingests that become blobs.
//!
//! ```text
//! <root>/content/blobs/<algorithm>/<hex>      a blob: verified, durable, mode 0444
//! <root>/content/ingest/<id>/data             bytes so far; its length is the offset a client resumes from
//! <root>/content/ingest/<id>/ref              `<namespace>/<reference>`, for people
//! ```
//!
//! A blob becomes visible in a namespace by its row; the file alone means nothing. What a crash leaves at each step of a
//! commit: bytes flushed → an ingest that resumes; file renamed → a verified blob that nobody sees, removed on open
//! unless the commit is tried again; row durable → the blob. Ingested bytes are not flushed before the commit, so an
//! ingest of another boot starts from nothing.
//!
//! All calls block.

mod ingest;
mod lock;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use prost_types::Timestamp;

pub use reader::Reader;
pub use store::Store;
pub use writer::Writer;

use crate::{digest::Digest, identifier::Labels};

/// A blob as a namespace sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When the namespace first saw it.
    pub created_at: Timestamp,
    /// When its labels last changed.
    pub updated_at: Timestamp,
    /// Its labels in this namespace.
    pub labels: Labels,
}

/// The state of an ingest.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The reference that names the ingest in its namespace.
    pub reference: String,
    /// Bytes written so far.
    pub offset: u64,
    /// The announced size, or 0.
    pub total: u64,
    /// The announced digest.
    pub expected: Option<Digest>,
    /// When it began.
    pub started_at: Timestamp,
    /// When bytes were last written.
    pub updated_at: Timestamp,
}
