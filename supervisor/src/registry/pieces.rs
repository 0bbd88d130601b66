//! Who may ask for data: slots of one operation, of one registry, and for pieces that are fetched before their turn.
//!
//! Only the request that a blob is written from waits for slots, and before it is sent; pieces ahead of it are fetched where
//! slots happen to be free. So nobody who holds a slot waits for another one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// A blob is fetched in pieces when there are at least so many.
const WORTH: u64 = 3;
/// A request that found no free slot for others beside it asks for so many pieces, so that it costs little to look again.
const ALONE: u64 = 16;

/// How the blobs of one operation are fetched.
#[derive(Clone)]
pub(crate) struct Pieces {
    /// Bytes of a piece; 0 never divides a blob.
    pub(crate) size: u64,
    /// Requests for data of the operation.
    pub(crate) operation: Arc<Semaphore>,
    /// Requests for data to the registry.
    pub(crate) host: Arc<Semaphore>,
    /// Pieces that are held in memory before those in front of them are written; of the whole instance.
    pub(crate) ahead: Arc<Semaphore>,
}

/// The right to ask, until dropped.
pub(crate) struct Slots {
    _held: Vec<OwnedSemaphorePermit>,
}

impl Pieces {
    /// Waits for the right to fetch a blob.
    ///
    /// # Errors
    ///
    /// `Unknown`, never in practice: the semaphores are not closed.
    pub(crate) async fn blob(&self) -> Result<Slots> {
        let mut held = Vec::new();
        for slots in [&self.operation, &self.host] {
            let slot = Arc::clone(slots).acquire_owned().await;
            held.push(slot.map_err(|closed| Error::unknown("wait for a slot", closed))?);
        }
        Ok(Slots { _held: held })
    }

    /// The right to fetch a piece before its turn, if there is one.
    pub(crate) fn ahead(&self) -> Option<Slots> {
        let held = [&self.operation, &self.host, &self.ahead]
            .into_iter()
            .map(|slots| Arc::clone(slots).try_acquire_owned().ok());
        Some(Slots {
            _held: held.collect::<Option<_>>()?,
        })
    }

    /// How much to ask for when `left` bytes are left, and the right to fetch more beside it.
    pub(super) fn first(&self, left: u64) -> (u64, Option<Slots>) {
        if self.size == 0 || left < self.size.saturating_mul(WORTH) {
            return (left, None);
        }
        match self.ahead() {
            Some(slots) => (self.size, Some(slots)),
            None => (left.min(self.size * ALONE), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_blobs_are_divided_and_only_where_slots_are_free() {
        let slots = |count| Arc::new(Semaphore::new(count));
        let pieces = Pieces {
            size: 100,
            operation: slots(2),
            host: slots(5),
            ahead: slots(1),
        };
        assert_eq!(pieces.first(299).0, 299);
        let (first, held) = pieces.first(300);
        assert_eq!(first, 100);
        assert!(held.is_some());
        assert!(pieces.ahead().is_none());
        assert_eq!(pieces.host.available_permits(), 4, "a refusal keeps nothing");
        assert_eq!(pieces.first(300).0, 300);
        assert_eq!(pieces.first(10_000).0, 1600);
        drop(held);
        assert!(pieces.ahead().is_some());
        assert_eq!(Pieces { size: 0, ..pieces }.first(10_000).0, 10_000);
    }
}
