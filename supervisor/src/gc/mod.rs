//! Garbage collection: what no root reaches is removed, by mark and sweep over the rows of metadata.
//!
//! Roots, in each namespace: images (unless they have an expiry label), containers, leases that have not expired, and
//! whatever has the label `containerd.io/gc.root`. Edges: see [`graph`]. A resource that is made under a lease is held from
//! the same transaction on, so it cannot be swept before somebody refers to it.
//!
//! A collection follows deletions, and what ends by itself ([`is_due`]).
//!
//! Marking and sweeping are one transaction, so nothing can come between them; files go after the commit, and what a crash
//! leaves of them is removed on open. Refuses nothing and keeps in doubt: an edge that cannot be read stops the collection.

mod graph;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use wharf_proto::{
    any,
    containerd::events::{ContentDelete, SnapshotRemove},
};

use crate::{
    daemon::Daemon,
    digest::Digest,
    error::Result,
    identifier::Labels,
    lease,
    metadata::{
        CONTENT, CONTENT_USERS, Commit, IMAGES, INGESTS, Key, LEASE_RESOURCES, LEASES, MOUNTS, Read as _,
        SNAPSHOT_CHILDREN, SNAPSHOTS, WriteTxn,
    },
};

use graph::{Graph, Node};

/// What a collection removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// Blobs, by namespace.
    pub content: BTreeSet<(String, Digest)>,
    /// Snapshots, by namespace, snapshotter and key.
    pub snapshots: BTreeSet<(String, String, String)>,
    /// Images that had expired.
    pub images: u64,
    /// Leases that had expired.
    pub leases: u64,
    /// Activations of mounts.
    pub mounts: u64,
}

impl Removed {
    /// Whether it is not worth a line in the log.
    pub fn is_little(&self) -> bool {
        self.content.is_empty() && self.snapshots.is_empty() && self.mounts == 0
    }
}

/// Removes all garbage. Blocks; writers wait for the marking, which takes some milliseconds for thousands of rows.
///
/// # Errors
///
/// `Unknown` from the metadata or the disk; nothing half done is visible.
pub fn collect(daemon: &Daemon) -> Result<Removed> {
    let now = jiff::Timestamp::now();
    let ended = daemon.ended_leases().clone();
    let removed = daemon.metadata.write(Commit::Durable, |txn| {
        let mut removed = Removed {
            leases: expire_leases(txn, now, &ended)?,
            ..Removed::default()
        };
        let reached = Graph::read(txn, now)?.reach();
        for node in Graph::all(txn)? {
            if !reached.contains(&node) {
                sweep(txn, node, &mut removed)?;
            }
        }
        Ok(removed)
    })?;
    daemon.ended_leases().retain(|lease| !ended.contains(lease));
    for (namespace, digest) in &removed.content {
        daemon.content.remove_unseen(digest);
        let event = ContentDelete {
            digest: digest.to_string(),
        };
        daemon
            .events
            .publish(namespace, "/content/delete", any::pack(&event));
    }
    let mut snapshotters = BTreeSet::new();
    for (namespace, snapshotter, key) in &removed.snapshots {
        snapshotters.insert(snapshotter);
        let event = SnapshotRemove {
            key: key.clone(),
            snapshotter: snapshotter.clone(),
        };
        daemon
            .events
            .publish(namespace, "/snapshot/remove", any::pack(&event));
    }
    for snapshotter in snapshotters {
        // One that is not loaded any more, or an external one that is away, keeps no other garbage from going; what it keeps
        // is removed when it is used again.
        if let Err(error) = daemon.snapshots.cleanup(snapshotter) {
            tracing::warn!(snapshotter, %error, "remove the files of garbage");
        }
    }
    daemon.mounts.sweep()?;
    daemon.content.sweep()?;
    Ok(removed)
}

/// Whether time alone has made garbage after `since`: of a lease, an image or an ingest that ended by itself. Blocks.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn is_due(daemon: &Daemon, since: jiff::Timestamp) -> Result<bool> {
    let passed = since..=jiff::Timestamp::now();
    let ended = |labels: &Labels| {
        let end = labels.get(lease::EXPIRE).map(|text| lease::parse_expire(text));
        end.is_some_and(|end| end.is_ok_and(|end| passed.contains(&end)))
    };
    let everything = Key::prefix(&[])?;
    daemon.metadata.read(|txn| {
        let leases = txn.scan(LEASES, &everything)?;
        let images = txn.scan(IMAGES, &everything)?;
        let ingests = txn.scan(INGESTS, &everything)?;
        Ok(leases.iter().any(|(_, row)| ended(&row.labels))
            || images.iter().any(|(_, row)| ended(&row.labels))
            || ingests
                .iter()
                .any(|(_, row)| graph::end(row).is_none_or(|end| passed.contains(&end))))
    })
}

/// Deletes the leases whose time is over, and those that `ended`, by namespace and id.
fn expire_leases(
    txn: &mut WriteTxn,
    now: jiff::Timestamp,
    ended: &BTreeSet<(String, String)>,
) -> Result<u64> {
    let mut expired = 0;
    for (key, row) in txn.scan(LEASES, &Key::prefix(&[])?)? {
        let namespace = key.parts()?.first().copied().unwrap_or_default();
        let is_over = match row.labels.get(lease::EXPIRE) {
            _ if ended.contains(&(namespace.to_owned(), row.id.clone())) => true,
            Some(label) => lease::parse_expire(label)? <= now,
            None => false,
        };
        if !is_over {
            continue;
        }
        txn.delete_all(LEASE_RESOURCES, &Key::prefix(&[namespace, &row.id])?)?;
        txn.delete(LEASES, &key)?;
        expired += 1;
    }
    Ok(expired)
}

fn sweep(txn: &mut WriteTxn, node: Node, removed: &mut Removed) -> Result<()> {
    match node {
        Node::Content { namespace, digest } => {
            txn.delete(CONTENT, &Key::new(&[&namespace, &digest])?)?;
            txn.delete(CONTENT_USERS, &Key::new(&[&digest, &namespace])?)?;
            removed.content.insert((namespace, digest.parse()?));
        }
        Node::Snapshot {
            namespace,
            snapshotter,
            key,
        } => {
            let at = Key::new(&[&namespace, &snapshotter, &key])?;
            if let Some(row) = txn.get(SNAPSHOTS, &at)?
                && !row.parent.is_empty()
            {
                txn.delete(
                    SNAPSHOT_CHILDREN,
                    &Key::new(&[&namespace, &snapshotter, &row.parent, &key])?,
                )?;
            }
            txn.delete(SNAPSHOTS, &at)?;
            removed.snapshots.insert((namespace, snapshotter, key));
        }
        Node::Image { namespace, name } => {
            txn.delete(IMAGES, &Key::new(&[&namespace, &name])?)?;
            removed.images += 1;
        }
        Node::Ingest { namespace, reference } => {
            txn.delete(INGESTS, &Key::new(&[&namespace, &reference])?)?;
        }
        Node::Mount { namespace, name } => {
            txn.delete(MOUNTS, &Key::new(&[&namespace, &name])?)?;
            removed.mounts += 1;
        }
        // Made and deleted by clients only.
        Node::Container { .. } => {}
    }
    Ok(())
}
