//! Snapshots by namespace.

use std::{collections::BTreeMap, sync::Arc};

use super::{Info, Mount, Snapshotter, Usage};
use crate::{
    error::{Error, Result},
    identifier::Labels,
    metadata,
    namespace::Scope,
};

/// The snapshots of all namespaces. The snapshotter `""` is the default one.
pub struct Store {
    metadata: Arc<metadata::Store>,
    snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
}

impl Store {
    /// A store over the given snapshotters.
    pub fn new(metadata: Arc<metadata::Store>, snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>) -> Self {
        Self {
            metadata,
            snapshotters,
        }
    }

    /// See [`Snapshotter::prepare`]; adds the snapshot to the scope's lease.
    ///
    /// # Errors
    ///
    /// As there; `NotFound` for an unknown snapshotter (as for all calls).
    pub fn prepare(
        &self,
        _scope: &Scope,
        _snapshotter: &str,
        key: &str,
        _parent: &str,
        _labels: Labels,
    ) -> Result<Vec<Mount>> {
        Err(Error::unimplemented(format!("snapshot {key}")))
    }

    /// See [`Snapshotter::view`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn view(
        &self,
        _scope: &Scope,
        _snapshotter: &str,
        key: &str,
        _parent: &str,
        _labels: Labels,
    ) -> Result<Vec<Mount>> {
        Err(Error::unimplemented(format!("snapshot {key}")))
    }

    /// See [`Snapshotter::mounts`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn mounts(&self, _scope: &Scope, _snapshotter: &str, key: &str) -> Result<Vec<Mount>> {
        Err(Error::unimplemented(format!("snapshot {key}")))
    }

    /// See [`Snapshotter::commit`]. `labels` replace those of the active snapshot.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn commit(
        &self,
        _scope: &Scope,
        _snapshotter: &str,
        name: &str,
        _key: &str,
        _labels: Labels,
    ) -> Result<()> {
        Err(Error::unimplemented(format!("snapshot {name}")))
    }

    /// See [`Snapshotter::remove`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn remove(&self, _scope: &Scope, _snapshotter: &str, key: &str) -> Result<()> {
        Err(Error::unimplemented(format!("snapshot {key}")))
    }

    /// See [`Snapshotter::stat`]; with the labels of the namespace.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn stat(&self, _scope: &Scope, _snapshotter: &str, key: &str) -> Result<Info> {
        Err(Error::unimplemented(format!("snapshot {key}")))
    }

    /// Sets (non-empty value) and removes (empty value) the given labels, and keeps the others.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidArgument` for a label that is too long.
    pub fn label(&self, _scope: &Scope, _snapshotter: &str, key: &str, _labels: &Labels) -> Result<Info> {
        Err(Error::unimplemented(format!("snapshot {key}")))
    }

    /// All snapshots of the namespace.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn list(&self, _scope: &Scope, _snapshotter: &str) -> Result<Vec<Info>> {
        Err(Error::unimplemented("snapshots"))
    }

    /// See [`Snapshotter::usage`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn usage(&self, _scope: &Scope, _snapshotter: &str, key: &str) -> Result<Usage> {
        Err(Error::unimplemented(format!("snapshot {key}")))
    }

    /// See [`Snapshotter::cleanup`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn cleanup(&self, _snapshotter: &str) -> Result<()> {
        Err(Error::unimplemented("snapshot cleanup"))
    }
}
