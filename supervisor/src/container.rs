//! Container records: metadata only, no process.

pub use wharf_proto::containerd::services::containers::v1::Container;

use crate::{
    daemon::Daemon,
    error::{Error, Result},
    metadata::{CONTAINERS, Key, Read as _},
    namespace::Scope,
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
        .ok_or_else(|| Error::not_found(format!("container {id:?}")))
}
