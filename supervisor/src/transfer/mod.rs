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
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod graph;
mod import;
mod lock;
mod operation;
mod platform;
mod progress;
mod push;
mod settings;
mod stream;
mod unpack;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::{Error, Result},
    registry::Pieces,
};

pub(crate) use destination::{Destination, Name};
pub(crate) use export::Selection;
pub(crate) use operation::{echo, export, import, pull, tag};
pub(crate) use platform::Platform;
pub(crate) use progress::Progress;
pub(crate) use push::push;
pub use settings::Settings;
pub(crate) use stream::{Stream, Streams, read_bytes, write_texts};
pub(crate) use unpack::Unpack;

/// Layers that are applied at the same time in one instance where no setting says: as many as there are processors, but no
/// more than these, as memory is bounded by their number.
const APPLYING: std::ops::RangeInclusive<usize> = 2..=8;

/// Blobs that are downloaded, and archives that are read or written, at the same time in one instance. Each holds a thread of the
/// blocking pool while its peer sends, so that no peer may take the pool from the other calls.
const DOWNLOADING: usize = 12;
const IMPORTING: usize = 4;
const EXPORTING: usize = 4;

/// Bytes of pieces of blobs that are held before those in front of them are written, in one instance.
const AHEAD: u64 = 12 << 20;

/// What the transfers of one instance share.
pub(crate) struct Shared {
    /// The open streams of all clients.
    pub(crate) streams: Streams,
    settings: Settings,
    /// Which layers are being applied, by namespace, snapshotter and ChainID.
    locks: lock::Locks,
    applying: Arc<Semaphore>,
    downloading: Arc<Semaphore>,
    importing: Arc<Semaphore>,
    /// Pieces ahead of those that are written.
    ahead: Arc<Semaphore>,
    /// Requests for data, by registry.
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
    exporting: Arc<Semaphore>,
}

/// Waits for a slot; it is held until the guard is dropped.
async fn slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(|closed| Error::unknown("wait for a slot", closed))
}

impl Shared {
    /// Whether only images that run here are unpacked.
    fn checks_platforms(&self) -> bool {
        self.settings.check_platform_supported
    }

    /// Nothing is under way.
    pub(crate) fn new(settings: &Settings) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let applying = match settings.max_concurrent_unpacks {
            0 => processors.clamp(*APPLYING.start(), *APPLYING.end()),
            set => set,
        };
        let ahead = AHEAD
            .checked_div(settings.concurrent_layer_fetch_buffer)
            .map_or(0, |pieces| usize::try_from(pieces).unwrap_or(usize::MAX));
        Self {
            streams: Streams::default(),
            settings: settings.clone(),
            locks: lock::Locks::default(),
            applying: Arc::new(Semaphore::new(applying)),
            downloading: Arc::new(Semaphore::new(DOWNLOADING)),
            importing: Arc::new(Semaphore::new(IMPORTING)),
            exporting: Arc::new(Semaphore::new(EXPORTING)),
            ahead: Arc::new(Semaphore::new(ahead)),
            hosts: Mutex::default(),
        }
    }

    /// The slots for requests for data to the registry `host`.
    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, slots| slots.strong_count() > 0);
        if let Some(slots) = hosts.get(host).and_then(Weak::upgrade) {
            return slots;
        }
        let slots = Arc::new(Semaphore::new(self.settings.max_requests_per_host));
        hosts.insert(host.to_owned(), Arc::downgrade(&slots));
        slots
    }

    /// How one pull from `host` fetches blobs.
    fn pieces(&self, host: &str) -> Pieces {
        Pieces {
            size: self.settings.concurrent_layer_fetch_buffer,
            operation: Arc::new(Semaphore::new(self.settings.max_concurrent_downloads)),
            host: self.host(host),
            ahead: Arc::clone(&self.ahead),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pulls_from_one_host_share_its_slots() {
        let shared = Shared::new(&Settings {
            max_requests_per_host: 1,
            ..Settings::default()
        });
        let (one, two) = (shared.pieces("a"), shared.pieces("a"));
        let held = one.ahead().expect("a slot is free");
        assert!(two.ahead().is_none());
        assert!(shared.pieces("b").ahead().is_some());
        drop(held);
        assert!(two.ahead().is_some());
        drop((one, two));
        drop(shared.host("c"));
        assert_eq!(shared.hosts.lock().unwrap().len(), 1);
    }
}
