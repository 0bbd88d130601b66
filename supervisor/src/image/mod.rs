//! Image records: a name and the descriptor of its manifest or index. Unpacking is in [`unpack`].

pub mod unpack;

use prost_types::Timestamp;
pub use wharf_proto::containerd::services::images::v1::Image;
use wharf_proto::{
    any,
    containerd::{
        services::images::v1::{ImageCreate, ImageDelete, ImageUpdate},
        types::Descriptor,
    },
};

use crate::{
    daemon::Daemon,
    digest::Digest,
    error::{Error, Result},
    filter::{self, Fields},
    identifier, lease,
    metadata::{Commit, IMAGES, Key, Read as _},
    namespace::{self, Scope},
    time,
};

/// The longest image name, in bytes.
const MAX_NAME: usize = 4096;
/// The label that makes an image collectable: it then needs a lease to stay.
const EXPIRE: &str = "containerd.io/gc.expire";

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
        .ok_or_else(|| missing(name))
}

/// All records of the namespace, by name.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn list(daemon: &Daemon, scope: &Scope) -> Result<Vec<Image>> {
    let prefix = Key::prefix(&[&scope.namespace])?;
    Ok(daemon
        .metadata
        .read(|txn| txn.scan(IMAGES, &prefix))?
        .into_iter()
        .map(|(_, image)| image)
        .collect())
}

/// Creates the record. `epoch` replaces the time of creation, for reproducible results. Durable.
///
/// # Errors
///
/// `AlreadyExists`; `InvalidArgument` for a bad name, target or label.
pub fn create(daemon: &Daemon, scope: &Scope, mut image: Image, epoch: Option<Timestamp>) -> Result<Image> {
    check(&mut image)?;
    let key = Key::new(&[&scope.namespace, &image.name])?;
    let now = epoch.unwrap_or_else(time::now);
    (image.created_at, image.updated_at) = (Some(now), Some(now));
    daemon.metadata.write(Commit::Durable, |txn| {
        if txn.get(IMAGES, &key)?.is_some() {
            return Err(Error::already_exists(format!("image {:?}", image.name)));
        }
        namespace::ensure(txn, &scope.namespace)?;
        if image.labels.contains_key(EXPIRE) {
            lease::hold(txn, scope, lease::IMAGES, &image.name)?;
        }
        txn.put(IMAGES, &key, &image)
    })?;
    let event = ImageCreate {
        name: image.name.clone(),
        labels: image.labels.clone(),
    };
    daemon
        .events
        .publish(&scope.namespace, "/images/create", any::pack(&event));
    Ok(image)
}

/// Changes the record of `name` by `change`. Durable.
///
/// # Errors
///
/// `NotFound`; those of `change`; `InvalidArgument` for a bad target or label.
pub fn update(
    daemon: &Daemon,
    scope: &Scope,
    name: &str,
    epoch: Option<Timestamp>,
    change: impl FnOnce(&mut Image) -> Result<()>,
) -> Result<Image> {
    let key = Key::new(&[&scope.namespace, name])?;
    let image = daemon.metadata.write(Commit::Durable, |txn| {
        let before = txn.get(IMAGES, &key)?.ok_or_else(|| missing(name))?;
        let mut image = before.clone();
        change(&mut image)?;
        image.name = before.name;
        check(&mut image)?;
        image.created_at = before.created_at;
        image.updated_at = Some(epoch.unwrap_or_else(time::now));
        if image.labels.contains_key(EXPIRE) {
            lease::hold(txn, scope, lease::IMAGES, name)?;
        }
        txn.put(IMAGES, &key, &image)?;
        Ok(image)
    })?;
    let event = ImageUpdate {
        name: image.name.clone(),
        labels: image.labels.clone(),
    };
    daemon
        .events
        .publish(&scope.namespace, "/images/update", any::pack(&event));
    Ok(image)
}

/// Creates the record, or points an existing one at the new target with the new labels. Durable.
///
/// # Errors
///
/// `InvalidArgument` for a bad name, target or label.
pub fn put(daemon: &Daemon, scope: &Scope, image: Image) -> Result<Image> {
    loop {
        match create(daemon, scope, image.clone(), None) {
            Err(error) if error.is_already_exists() => {}
            other => return other,
        }
        let updated = update(daemon, scope, &image.name, None, |present| {
            present.target.clone_from(&image.target);
            present.labels.clone_from(&image.labels);
            Ok(())
        });
        match updated {
            // Deleted between the two: it can be created now.
            Err(error) if error.is_not_found() => {}
            other => return other,
        }
    }
}

/// Deletes the record, if it still points at `target` where that is given. Its content is not touched. Durable.
///
/// # Errors
///
/// `NotFound`, also when it points elsewhere.
pub fn delete(daemon: &Daemon, scope: &Scope, name: &str, target: Option<&Descriptor>) -> Result<()> {
    let key = Key::new(&[&scope.namespace, name])?;
    daemon.metadata.write(Commit::Durable, |txn| {
        let image = txn.get(IMAGES, &key)?.ok_or_else(|| missing(name))?;
        let present = image.target.unwrap_or_default().digest;
        if let Some(target) = target.filter(|target| !target.digest.is_empty() && target.digest != present) {
            return Err(Error::not_found(format!(
                "image {name:?} has target {present}, not {}",
                target.digest
            )));
        }
        lease::drop_hold(txn, scope, lease::IMAGES, name)?;
        txn.delete(IMAGES, &key)?;
        Ok(())
    })?;
    let event = ImageDelete {
        name: name.to_owned(),
    };
    daemon
        .events
        .publish(&scope.namespace, "/images/delete", any::pack(&event));
    Ok(())
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("image {name:?}"))
}

fn check(image: &mut Image) -> Result<()> {
    if image.name.is_empty() {
        return Err(Error::invalid("image name must not be empty"));
    }
    if image.name.len() > MAX_NAME {
        return Err(Error::invalid(format!(
            "image name is longer than {MAX_NAME} bytes"
        )));
    }
    identifier::validate_labels(&image.labels).map_err(|error| error.context("image.Labels"))?;
    identifier::drop_empty(&mut image.labels);
    let target = image.target.get_or_insert_default();
    if let Err(error) = target.digest.parse::<Digest>() {
        return Err(error.context(format!("target.Digest {:?} invalid", target.digest)));
    }
    if target.size <= 0 {
        return Err(Error::invalid("target.Size must be greater than zero"));
    }
    if target.media_type.is_empty() {
        return Err(Error::invalid("target.MediaType must be set"));
    }
    Ok(())
}

impl Fields for Image {
    fn field(&self, path: &[&str]) -> Option<String> {
        let target = self.target.as_ref();
        let value = match path {
            ["name"] => self.name.clone(),
            ["target", "digest"] => target?.digest.clone(),
            ["target", "mediatype"] => target?.media_type.clone(),
            ["labels", rest @ ..] => return filter::label(&self.labels, rest),
            ["annotations", rest @ ..] => return filter::label(&target?.annotations, rest),
            _ => return None,
        };
        (!value.is_empty()).then_some(value)
    }
}
