//! Transfers: pull, push, import and export as one leased operation with progress, down to unpacked snapshots and image records.
//!
//! ```text
//! registry ─ resolve ─┐                                       ┌─► layers, all at the same time ─► content ─┐
//!                     ├─► graph: index → manifest → config ───┤          each is unpacked when it is here   ├─► snapshots
//! archive ── import ──┘       (documents into content)        └───────────────────────────────────────────┘ bottom first
//!                                                              image records ◄────────────────────────────────────┘
//! ```
//!
//! The invariants:
//!
//! - An image record is written last: whoever sees it finds all of its content and, where asked for, its snapshots.
//! - Everything is made under a lease, the caller's or one of the operation's own that is given back at its end, however
//!   it ends. What was half made is then garbage; an interrupted download stays to be resumed while it is not collected.
//! - Two transfers of one blob or layer at the same time do the work once.
//! - Documents that are both an index and a manifest are refused (CVE-2021-41190).
//! - An archive that is exported has an end only when all of it was written and verified.

mod descriptor;
mod destination;
mod docker_archive;
mod document;
mod export;
mod fetch;
mod graph;
mod import;
mod lock;
mod operation;
mod platform;
mod progress;
mod push;
mod stream;
mod unpack;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

pub(crate) use destination::{Destination, Name};
pub(crate) use export::Selection;
pub(crate) use operation::{export, import, pull, tag};
pub(crate) use platform::Platform;
pub(crate) use progress::Progress;
pub(crate) use push::push;
pub(crate) use stream::{Stream, Streams, read_bytes};
pub(crate) use unpack::Unpack;

/// Layers that are applied at the same time in one instance, each by two threads: as many as there are processors, but no
/// more than these, as memory is bounded by their number.
const APPLYING: std::ops::RangeInclusive<usize> = 2..=8;

/// Blobs that are downloaded, and archives that are read or written, at the same time in one instance. Each holds a thread of the
/// blocking pool while its peer sends, so that no peer may take the pool from the other calls.
const DOWNLOADING: usize = 12;
const IMPORTING: usize = 4;
const EXPORTING: usize = 4;

/// What the transfers of one instance share.
pub(crate) struct Shared {
    /// The open streams of all clients.
    pub(crate) streams: Streams,
    /// Which layers are being applied, by namespace, snapshotter and ChainID.
    locks: lock::Locks,
    applying: Arc<Semaphore>,
    downloading: Arc<Semaphore>,
    importing: Arc<Semaphore>,
    exporting: Arc<Semaphore>,
}

/// Waits for a slot; it is held until the guard is dropped.
async fn slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(|closed| Error::unknown("wait for a slot", closed))
}

impl Default for Shared {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            streams: Streams::default(),
            locks: lock::Locks::default(),
            applying: Arc::new(Semaphore::new(
                processors.clamp(*APPLYING.start(), *APPLYING.end()),
            )),
            downloading: Arc::new(Semaphore::new(DOWNLOADING)),
            importing: Arc::new(Semaphore::new(IMPORTING)),
            exporting: Arc::new(Semaphore::new(EXPORTING)),
        }
    }
}
