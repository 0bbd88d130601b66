//! Which references are being written: at most one writer each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::error::{Error, Result};

/// All references that have a writer.
#[derive(Debug, Clone, Default)]
pub struct Locks(Arc<Mutex<BTreeMap<(String, String), Instant>>>);

/// One reference, locked until dropped.
#[derive(Debug)]
pub struct Lock {
    locks: Locks,
    name: (String, String),
}

impl Locks {
    /// Locks `reference` in `namespace`.
    ///
    /// # Errors
    ///
    /// `Unavailable` when it is locked.
    pub fn lock(&self, namespace: &str, reference: &str) -> Result<Lock> {
        let name = (namespace.to_owned(), reference.to_owned());
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = held.get(&name) {
            let text = format!("ref {namespace}/{reference} locked for {:.1?}", since.elapsed());
            return Err(Error::unavailable(text));
        }
        held.insert(name.clone(), Instant::now());
        drop(held);
        Ok(Lock {
            locks: self.clone(),
            name,
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locks
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
    }
}
