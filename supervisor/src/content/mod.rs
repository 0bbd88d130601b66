//! Content: immutable blobs by digest, and the ingests that become blobs.
//!
//! ```text
//! <root>/content/blobs/<algorithm>/<hex>      a blob: verified, durable, mode 0444
//! <root>/content/ingest/<id>/data             bytes so far; its length is the offset a client resumes from
//! ```
//!
//! A blob becomes visible in a namespace by its row; the file alone means nothing. All calls block.

mod store;

use prost_types::Timestamp;

pub use store::{Reader, Store, Writer};

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
