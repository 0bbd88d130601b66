//! Leftovers: what a snapshotter keeps that no row names.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use super::{
    super::{Kind, Stack, place::Place},
    Store, named,
};
use crate::{
    error::Result,
    metadata::{Key, Read as _, SNAPSHOTS},
};

impl Store {
    /// Looks, once, at what a snapshotter keeps of earlier daemons: no number is used twice, and leftovers go.
    pub(super) fn sweep(&self, name: &str) -> Result<()> {
        let waits =
            |set: &Mutex<BTreeSet<String>>| set.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        if !waits(&self.unswept) {
            return Ok(());
        }
        let kept = self.driver(name)?.numbers()?;
        self.next
            .fetch_max(kept.last().copied().unwrap_or(0) + 1, Ordering::Relaxed);
        self.cleanup(name)?;
        self.restore(name)?;
        self.unswept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        Ok(())
    }

    /// Gives those snapshots a place again that lost it with the power: rows are carried to the disk by the next durable
    /// commit, places are not.
    fn restore(&self, name: &str) -> Result<()> {
        let driver = self.driver(name)?;
        for (key, row) in self
            .metadata
            .read(|txn| txn.scan(SNAPSHOTS, &Key::prefix(&[])?))?
        {
            let [namespace, of, key] = key.parts()?[..] else {
                continue;
            };
            if of != name || row.kind() == Kind::Committed {
                continue;
            }
            let place = Place {
                namespace,
                name,
                driver,
            };
            let restored = self
                .metadata
                .read(|txn| place.chain(txn, &row.parent))
                .and_then(|parents| {
                    driver.restore(Stack {
                        number: row.number,
                        parents: &parents,
                        kind: row.kind(),
                        namespace,
                        labels: &row.labels,
                    })
                });
            // One that cannot be given a place keeps no other from its own.
            if let Err(error) = restored {
                tracing::error!(key, %error, "make a snapshot again");
            }
        }
        Ok(())
    }

    /// Removes the files of removed snapshots and of interrupted calls, in all namespaces.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an unknown snapshotter; `Unknown` from the disk.
    pub fn cleanup(&self, snapshotter: &str) -> Result<()> {
        let name = named(snapshotter);
        let driver = self.driver(name)?;
        // In this order: a number that is finished between the steps is seen in one of them at least.
        let kept = driver.numbers()?;
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut used = BTreeSet::new();
        for (key, row) in self
            .metadata
            .read(|txn| txn.scan(SNAPSHOTS, &Key::prefix(&[])?))?
        {
            if matches!(key.parts()?[..], [_, of, _] if of == name) {
                used.insert(row.number);
            }
        }
        // Children before their parents, which were made before them. What cannot be removed keeps nothing else from it.
        let mut outcome = Ok(());
        for number in kept
            .iter()
            .rev()
            .filter(|number| !used.contains(number) && !making.contains(number))
        {
            outcome = outcome.and(driver.remove(*number));
        }
        outcome
    }
}
