//! Container records: metadata only, no process.

pub use wharf_proto::containerd::services::containers::v1::Container;
use wharf_proto::{
    any,
    containerd::events::{ContainerCreate, ContainerDelete, ContainerUpdate, container_create},
};

use crate::{
    daemon::Daemon,
    error::{Error, Result},
    filter::{self, Fields},
    identifier,
    metadata::{CONTAINERS, Commit, Key, Read as _},
    namespace::{self, Scope},
    time,
};

/// The record of `id`.
///
/// # Errors
///
/// `NotFound`.
pub fn get(daemon: &Daemon, scope: &Scope, id: &str) -> Result<Container> {
    let key = Key::new(&[&scope.namespace, id])?;
    daemon
        .metadata
        .read(|txn| txn.get(CONTAINERS, &key))?
        .ok_or_else(|| missing(scope, id))
}

/// All records of the namespace, by id.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn list(daemon: &Daemon, scope: &Scope) -> Result<Vec<Container>> {
    let prefix = Key::prefix(&[&scope.namespace])?;
    Ok(daemon
        .metadata
        .read(|txn| txn.scan(CONTAINERS, &prefix))?
        .into_iter()
        .map(|(_, row)| row)
        .collect())
}

/// Creates the record. Durable, and with it the snapshots that were prepared before.
///
/// # Errors
///
/// `AlreadyExists`; `InvalidArgument` for a bad id or label, or when runtime or spec are missing.
pub fn create(daemon: &Daemon, scope: &Scope, mut container: Container) -> Result<Container> {
    check(&mut container).map_err(|error| error.context("create container failed validation"))?;
    let key = Key::new(&[&scope.namespace, &container.id])?;
    let now = Some(time::now());
    (container.created_at, container.updated_at) = (now, now);
    daemon.metadata.write(scope.commit, |txn| {
        if txn.get(CONTAINERS, &key)?.is_some() {
            return Err(Error::already_exists(format!("container {:?}", container.id)));
        }
        namespace::ensure(txn, &scope.namespace)?;
        txn.put(CONTAINERS, &key, &container)
    })?;
    let runtime = container.runtime.clone().unwrap_or_default();
    let event = ContainerCreate {
        id: container.id.clone(),
        image: container.image.clone(),
        runtime: Some(container_create::Runtime {
            name: runtime.name,
            options: runtime.options,
        }),
    };
    daemon
        .events
        .publish(&scope.namespace, "/containers/create", any::pack(&event));
    Ok(container)
}

/// Changes the record of `id` by `change`. Durable.
///
/// # Errors
///
/// `NotFound`; those of `change`; `InvalidArgument` for what [`create`] refuses.
pub fn update(
    daemon: &Daemon,
    scope: &Scope,
    id: &str,
    change: impl FnOnce(&mut Container) -> Result<()>,
) -> Result<Container> {
    let key = Key::new(&[&scope.namespace, id])?;
    let container = daemon.metadata.write(Commit::Durable, |txn| {
        let before = txn.get(CONTAINERS, &key)?.ok_or_else(|| missing(scope, id))?;
        let mut container = before.clone();
        change(&mut container)?;
        container.id = before.id;
        check(&mut container).map_err(|error| error.context("update failed validation"))?;
        container.created_at = before.created_at;
        container.updated_at = Some(time::now());
        txn.put(CONTAINERS, &key, &container)?;
        Ok(container)
    })?;
    let event = ContainerUpdate {
        id: container.id.clone(),
        image: container.image.clone(),
        labels: container.labels.clone(),
        snapshot_key: container.snapshot_key.clone(),
    };
    daemon
        .events
        .publish(&scope.namespace, "/containers/update", any::pack(&event));
    Ok(container)
}

/// Deletes the record; its snapshot stays. Durable.
///
/// # Errors
///
/// `NotFound`.
pub fn delete(daemon: &Daemon, scope: &Scope, id: &str) -> Result<()> {
    let key = Key::new(&[&scope.namespace, id])?;
    daemon
        .metadata
        .write(scope.commit, |txn| match txn.delete(CONTAINERS, &key)? {
            true => Ok(()),
            false => Err(missing(scope, id)),
        })?;
    let event = ContainerDelete { id: id.to_owned() };
    daemon
        .events
        .publish(&scope.namespace, "/containers/delete", any::pack(&event));
    Ok(())
}

fn missing(scope: &Scope, id: &str) -> Error {
    Error::not_found(format!("container {id:?} in namespace {:?}", scope.namespace))
}

fn check(container: &mut Container) -> Result<()> {
    identifier::validate(&container.id).map_err(|error| error.context("container.ID"))?;
    if container.extensions.contains_key("") {
        return Err(Error::invalid("container.Extension keys must not be zero-length"));
    }
    identifier::validate_labels(&container.labels).map_err(|error| error.context("containers.Labels"))?;
    identifier::drop_empty(&mut container.labels);
    if container
        .runtime
        .as_ref()
        .is_none_or(|runtime| runtime.name.is_empty())
    {
        return Err(Error::invalid("container.Runtime.Name must be set"));
    }
    if container.spec.is_none() {
        return Err(Error::invalid("container.Spec must be set"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(Error::invalid(
            "container.Snapshotter must be set if container.SnapshotKey is set",
        ));
    }
    Ok(())
}

impl Fields for Container {
    fn field(&self, path: &[&str]) -> Option<String> {
        let value = match path {
            ["id"] => self.id.clone(),
            ["runtime", "name"] => self.runtime.as_ref()?.name.clone(),
            ["image"] => self.image.clone(),
            ["sandbox"] => self.sandbox.clone(),
            ["labels", rest @ ..] => return filter::label(&self.labels, rest),
            _ => return None,
        };
        (!value.is_empty()).then_some(value)
    }
}
