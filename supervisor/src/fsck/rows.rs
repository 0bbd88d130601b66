//! Removing rows that stand for nothing.

use super::report::{Fault, Row};
use crate::{
    error::Result,
    metadata::{CONTENT, CONTENT_USERS, Commit, Key, Read as _, SNAPSHOT_CHILDREN, SNAPSHOTS, Store},
};

/// Removes the rows of all faults that have one, in one transaction. Durable.
///
/// # Errors
///
/// `Unknown` from the metadata; then nothing is removed.
pub(super) fn remove(store: &Store, faults: &[Fault]) -> Result<()> {
    store.write(Commit::Durable, |txn| {
        for row in faults.iter().filter_map(|fault| fault.row.as_ref()) {
            match row {
                Row::Blob(namespace, digest) => {
                    txn.delete(CONTENT, &Key::new(&[namespace, digest])?)?;
                    txn.delete(CONTENT_USERS, &Key::new(&[digest, namespace])?)?;
                }
                Row::Snapshot(namespace, snapshotter, key) => {
                    let at = Key::new(&[namespace, snapshotter, key])?;
                    if let Some(row) = txn.get(SNAPSHOTS, &at)?
                        && !row.parent.is_empty()
                    {
                        txn.delete(
                            SNAPSHOT_CHILDREN,
                            &Key::new(&[namespace, snapshotter, &row.parent, key])?,
                        )?;
                    }
                    txn.delete(SNAPSHOTS, &at)?;
                }
            }
        }
        Ok(())
    })
}
