//! The namespace and the lease of a request: the two headers that every containerd client sends. A third is ours: with
//! `wharf-commit: lazy`, a container's row is not flushed to the disk before the answer, for containers that need not
//! outlive the boot.
//!
//! Refuses a request without a namespace, and names that are not identifiers. The rows of namespaces are also here.

pub use wharf_proto::containerd::services::namespaces::v1::Namespace;

use std::collections::BTreeSet;

use crate::{
    error::{Error, Result},
    identifier::{self, Labels},
    metadata::{
        CONTAINERS, CONTENT, Commit, IMAGES, INGESTS, Key, LEASE_RESOURCES, LEASES, NAMESPACES, Read as _,
        SANDBOXES, SNAPSHOTS, Store, WriteTxn,
    },
};

/// The header that names the namespace of a call.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// The header that names the lease new resources are added to.
pub const LEASE_HEADER: &str = "containerd-lease";
/// The header that says `lazy` when the caller does not need the change to survive power loss.
pub const COMMIT_HEADER: &str = "wharf-commit";

/// In which namespace, and under which lease, an operation acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The namespace, a valid identifier.
    pub namespace: String,
    /// The lease that new resources are added to.
    pub lease: Option<String>,
    /// What the caller needs of a change to a container's row.
    pub commit: Commit,
}

impl Scope {
    /// A scope without a lease.
    #[cfg(test)]
    pub fn new(namespace: impl Into<String>) -> Self {
        Self::in_namespace(namespace)
    }

    /// A durable scope without a lease, for what the daemon does by itself.
    pub fn in_namespace(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            lease: None,
            commit: Commit::Durable,
        }
    }

    /// The same namespace under `lease`.
    #[must_use]
    pub fn with_lease(mut self, lease: impl Into<String>) -> Self {
        self.lease = Some(lease.into());
        self
    }

    /// Reads the scope from the headers of a request.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` without a namespace, `InvalidArgument` when it is not an identifier.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self> {
        let header = |name| {
            request
                .metadata()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .filter(|value| !value.is_empty())
        };
        let namespace = header(NAMESPACE_HEADER)
            .ok_or_else(|| Error::precondition("namespace is required"))?
            .to_owned();
        identifier::validate(&namespace).map_err(|error| error.context("namespace validation"))?;
        Ok(Self {
            namespace,
            lease: header(LEASE_HEADER).map(str::to_owned),
            commit: match header(COMMIT_HEADER) {
                Some("lazy") => Commit::Lazy,
                _ => Commit::Durable,
            },
        })
    }
}

/// Creates the row of a namespace in which something is made for the first time.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn ensure(txn: &mut WriteTxn, namespace: &str) -> Result<()> {
    let key = Key::new(&[namespace])?;
    if txn.get(NAMESPACES, &key)?.is_none() {
        txn.put(
            NAMESPACES,
            &key,
            &Namespace {
                name: namespace.to_owned(),
                ..Namespace::default()
            },
        )?;
    }
    Ok(())
}

/// The namespace `name`; one in which nothing was made yet has no labels. Clients ask for the labels of their namespace
/// before they make the first thing in it, and containerd has always answered them.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn get(store: &Store, name: &str) -> Result<Namespace> {
    let key = Key::new(&[name])?;
    let row: Option<Namespace> = store.read(|txn| txn.get(NAMESPACES, &key))?;
    Ok(row.unwrap_or_else(|| Namespace {
        name: name.to_owned(),
        ..Namespace::default()
    }))
}

/// All namespaces, by name.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn list(store: &Store) -> Result<Vec<Namespace>> {
    let rows = store.read(|txn| txn.scan(NAMESPACES, &Key::prefix(&[])?))?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Creates a namespace. Durable.
///
/// # Errors
///
/// `AlreadyExists`; `InvalidArgument` for a bad name or label.
pub fn create(store: &Store, mut row: Namespace) -> Result<Namespace> {
    identifier::validate(&row.name)?;
    identifier::validate_labels(&row.labels).map_err(|error| error.context("namespace.Labels"))?;
    identifier::drop_empty(&mut row.labels);
    let key = Key::new(&[&row.name])?;
    store.write(Commit::Durable, |txn| {
        if txn.get(NAMESPACES, &key)?.is_some() {
            return Err(Error::already_exists(format!("namespace {:?}", row.name)));
        }
        txn.put(NAMESPACES, &key, &row)
    })?;
    Ok(row)
}

/// Changes the labels of a namespace, which is created if it does not exist. Durable.
///
/// # Errors
///
/// Those of `change`; `InvalidArgument` for a bad name or label.
pub fn update(
    store: &Store,
    name: &str,
    change: impl FnOnce(&mut Labels) -> Result<()>,
) -> Result<Namespace> {
    identifier::validate(name)?;
    let key = Key::new(&[name])?;
    store.write(Commit::Durable, |txn| {
        let mut row = txn.get(NAMESPACES, &key)?.unwrap_or_default();
        name.clone_into(&mut row.name);
        change(&mut row.labels)?;
        identifier::validate_labels(&row.labels).map_err(|error| error.context("namespace.Labels"))?;
        identifier::drop_empty(&mut row.labels);
        txn.put(NAMESPACES, &key, &row)?;
        Ok(row)
    })
}

/// Deletes an empty namespace, and the leases and ingests in it. Durable.
///
/// # Errors
///
/// `NotFound`; `FailedPrecondition` when images, blobs, containers, sandboxes or snapshots are left in it.
pub fn delete(store: &Store, name: &str) -> Result<()> {
    let key = Key::new(&[name])?;
    let inside = Key::prefix(&[name])?;
    store.write(Commit::Durable, |txn| {
        if txn.get(NAMESPACES, &key)?.is_none() {
            return Err(missing(name));
        }
        let mut left = Vec::new();
        for (kind, any) in [
            ("images", txn.any(IMAGES, &inside)?),
            ("blobs", txn.any(CONTENT, &inside)?),
            ("containers", txn.any(CONTAINERS, &inside)?),
            ("sandboxes", txn.any(SANDBOXES, &inside)?),
        ] {
            left.extend(any.then(|| kind.to_owned()));
        }
        let mut snapshotters = BTreeSet::new();
        for (key, _) in txn.scan(SNAPSHOTS, &inside)? {
            snapshotters.extend(key.parts()?.get(1).map(|name| (*name).to_owned()));
        }
        left.extend(
            snapshotters
                .iter()
                .map(|name| format!("snapshots on {name:?} snapshotter")),
        );
        if !left.is_empty() {
            let left = left.join(", ");
            return Err(Error::precondition(format!(
                "namespace {name:?} must be empty, but it still has {left}"
            )));
        }
        txn.delete_all(LEASES, &inside)?;
        txn.delete_all(LEASE_RESOURCES, &inside)?;
        txn.delete_all(INGESTS, &inside)?;
        txn.delete(NAMESPACES, &key)?;
        Ok(())
    })
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("namespace {name:?}"))
}
