//! The rows of one snapshotter in one namespace.

use super::{Info, Kind, Snapshotter};
use crate::{
    error::{Error, Result},
    metadata::{Key, Read, SNAPSHOT_CHILDREN, SNAPSHOTS, Snapshot, WriteTxn},
};

/// The longest chain of parents. overlayfs takes 500 lower directories, if the mount's options fit.
const MAX_DEPTH: usize = 500;

/// A snapshotter and a key in the namespace of a call.
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) driver: &'a dyn Snapshotter,
}

impl Place<'_> {
    pub(super) fn key(&self, key: &str) -> Result<Key> {
        if key.is_empty() {
            return Err(Error::invalid("snapshot key must not be empty"));
        }
        Key::new(&[self.namespace, self.name, key])
    }

    pub(super) fn child(&self, parent: &str, key: &str) -> Result<Key> {
        Key::new(&[self.namespace, self.name, parent, key])
    }

    pub(super) fn row(&self, txn: &impl Read, key: &str) -> Result<Snapshot> {
        let unknown = || Error::not_found(format!("snapshot {key} does not exist"));
        if key.is_empty() {
            return Err(unknown());
        }
        txn.get(SNAPSHOTS, &self.key(key)?)?.ok_or_else(unknown)
    }

    /// The numbers of `key` and its ancestors.
    pub(super) fn chain(&self, txn: &impl Read, key: &str) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut next = key.to_owned();
        while !next.is_empty() {
            if numbers.len() == MAX_DEPTH {
                return Err(Error::precondition(format!(
                    "snapshot {key} has more than {MAX_DEPTH} parents"
                )));
            }
            let row = self.row(txn, &next)?;
            numbers.push(row.number);
            next = row.parent;
        }
        Ok(numbers)
    }

    /// The active snapshot `key`, if it can become the committed `name` on `parent` (empty: on what it has).
    pub(super) fn committable(
        &self,
        txn: &impl Read,
        name: &str,
        key: &str,
        parent: &str,
    ) -> Result<Snapshot> {
        if txn.get(SNAPSHOTS, &self.key(name)?)?.is_some() {
            return Err(Error::already_exists(format!("snapshot {name:?}")));
        }
        let row = self.row(txn, key)?;
        if row.kind() != Kind::Active {
            return Err(Error::precondition(format!("snapshot {key} is not active")));
        }
        if parent.is_empty() || row.parent == parent {
            return Ok(row);
        }
        if !row.parent.is_empty() {
            return Err(Error::invalid(format!(
                "cannot change parent of active snapshot {key:?} on commit"
            )));
        }
        self.require_committed(txn, parent)?;
        Ok(row)
    }

    pub(super) fn put(&self, txn: &mut WriteTxn, key: &str, row: &Snapshot) -> Result<()> {
        txn.put(SNAPSHOTS, &self.key(key)?, row)?;
        if !row.parent.is_empty() {
            txn.put(SNAPSHOT_CHILDREN, &self.child(&row.parent, key)?, &())?;
        }
        Ok(())
    }

    pub(super) fn delete(&self, txn: &mut WriteTxn, key: &str, row: &Snapshot) -> Result<()> {
        txn.delete(SNAPSHOTS, &self.key(key)?)?;
        if !row.parent.is_empty() {
            txn.delete(SNAPSHOT_CHILDREN, &self.child(&row.parent, key)?)?;
        }
        Ok(())
    }

    /// Refuses a parent (unless empty: none) that is not there or not committed.
    pub(super) fn require_committed(&self, txn: &impl Read, parent: &str) -> Result<()> {
        if parent.is_empty() {
            return Ok(());
        }
        let row = txn
            .get(SNAPSHOTS, &self.key(parent)?)?
            .ok_or_else(|| Error::not_found(format!("parent snapshot {parent} does not exist")))?;
        if row.kind() == Kind::Committed {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "parent {parent:?} is not committed snapshot"
            )))
        }
    }
}

impl Snapshot {
    /// The kind, decoded.
    pub(super) fn kind(&self) -> Kind {
        Kind::try_from(self.kind).unwrap_or(Kind::Unknown)
    }
}

/// A row as clients see it.
pub(super) fn info(name: &str, row: Snapshot) -> Info {
    Info {
        name: name.to_owned(),
        kind: row.kind(),
        parent: row.parent,
        created_at: row.created_at.unwrap_or_default(),
        updated_at: row.updated_at.unwrap_or_default(),
        labels: row.labels,
    }
}
