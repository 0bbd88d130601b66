//! The records of sandboxes.

use prost_types::Any;
pub use wharf_proto::containerd::types::Sandbox;

use crate::{
    daemon::Daemon,
    error::{Error, Result},
    filter::{self, Fields},
    identifier,
    metadata::{Commit, Key, Read as _, SANDBOXES},
    namespace::{self, Scope},
    time,
};

/// The record of `id`. Blocks.
///
/// # Errors
///
/// `NotFound`.
pub fn get(daemon: &Daemon, scope: &Scope, id: &str) -> Result<Sandbox> {
    let key = Key::new(&[&scope.namespace, id])?;
    daemon
        .metadata
        .read(|txn| txn.get(SANDBOXES, &key))?
        .ok_or_else(|| missing(id))
}

/// All records of the namespace, by id. Blocks.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn list(daemon: &Daemon, scope: &Scope) -> Result<Vec<Sandbox>> {
    let prefix = Key::prefix(&[&scope.namespace])?;
    let rows = daemon.metadata.read(|txn| txn.scan(SANDBOXES, &prefix))?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Creates the record. Blocks; durable.
///
/// # Errors
///
/// `AlreadyExists`; `InvalidArgument` for a bad id or label.
pub fn create(daemon: &Daemon, scope: &Scope, mut sandbox: Sandbox) -> Result<Sandbox> {
    check(&mut sandbox)?;
    let key = Key::new(&[&scope.namespace, &sandbox.sandbox_id])?;
    let now = Some(time::now());
    (sandbox.created_at, sandbox.updated_at) = (now, now);
    daemon.metadata.write(scope.commit, |txn| {
        if txn.get(SANDBOXES, &key)?.is_some() {
            return Err(Error::already_exists(format!("sandbox {:?}", sandbox.sandbox_id)));
        }
        namespace::ensure(txn, &scope.namespace)?;
        txn.put(SANDBOXES, &key, &sandbox)
    })?;
    Ok(sandbox)
}

/// Changes those fields of the record that `paths` name: `labels`, `extensions`, one of either (`labels.KEY`), `spec`,
/// `runtime`; all of these when there are none. Blocks; durable.
///
/// # Errors
///
/// `NotFound`; `InvalidArgument` for other fields, for another runtime name without naming it, and for a bad label.
pub fn update(daemon: &Daemon, scope: &Scope, new: &Sandbox, paths: &[String]) -> Result<Sandbox> {
    let key = Key::new(&[&scope.namespace, &new.sandbox_id])?;
    daemon.metadata.write(Commit::Durable, |txn| {
        let mut sandbox = txn
            .get(SANDBOXES, &key)?
            .ok_or_else(|| missing(&new.sandbox_id))?;
        mask(&mut sandbox, new, paths)?;
        check(&mut sandbox)?;
        sandbox.updated_at = Some(time::now());
        txn.put(SANDBOXES, &key, &sandbox)?;
        Ok(sandbox)
    })
}

/// Deletes the record; a sandbox that runs is not touched. Blocks; durable.
///
/// # Errors
///
/// `NotFound`.
pub fn delete(daemon: &Daemon, scope: &Scope, id: &str) -> Result<()> {
    let key = Key::new(&[&scope.namespace, id])?;
    daemon
        .metadata
        .write(scope.commit, |txn| match txn.delete(SANDBOXES, &key)? {
            true => Ok(()),
            false => Err(missing(id)),
        })
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("sandbox {id:?}"))
}

fn check(sandbox: &mut Sandbox) -> Result<()> {
    identifier::validate(&sandbox.sandbox_id).map_err(|error| error.context("invalid sandbox ID"))?;
    if sandbox.extensions.contains_key("") {
        return Err(Error::invalid("sandbox.Extension keys must not be zero-length"));
    }
    identifier::validate_labels(&sandbox.labels).map_err(|error| error.context("sandbox.Labels"))?;
    identifier::drop_empty(&mut sandbox.labels);
    Ok(())
}

fn mask(sandbox: &mut Sandbox, new: &Sandbox, paths: &[String]) -> Result<()> {
    if paths.is_empty() {
        let name = |sandbox: &Sandbox| sandbox.runtime.clone().unwrap_or_default().name;
        if name(sandbox) != name(new) {
            return Err(Error::invalid("sandbox.Runtime.Name field is immutable"));
        }
        return ["labels", "extensions", "spec", "runtime"]
            .iter()
            .try_for_each(|path| field(sandbox, new, path));
    }
    paths.iter().try_for_each(|path| field(sandbox, new, path))
}

fn field(sandbox: &mut Sandbox, new: &Sandbox, path: &str) -> Result<()> {
    if let Some(key) = path.strip_prefix("labels.") {
        match new.labels.get(key) {
            Some(value) => drop(sandbox.labels.insert(key.to_owned(), value.clone())),
            None => drop(sandbox.labels.remove(key)),
        }
        return Ok(());
    }
    if let Some(key) = path.strip_prefix("extensions.") {
        match new.extensions.get(key).cloned() {
            Some(value) => drop::<Option<Any>>(sandbox.extensions.insert(key.to_owned(), value)),
            None => drop(sandbox.extensions.remove(key)),
        }
        return Ok(());
    }
    match path {
        "labels" => sandbox.labels.clone_from(&new.labels),
        "extensions" => sandbox.extensions.clone_from(&new.extensions),
        "runtime" => sandbox.runtime.clone_from(&new.runtime),
        "spec" => sandbox.spec.clone_from(&new.spec),
        _ => {
            return Err(Error::invalid(format!(
                "cannot update {path:?} field on sandbox {:?}",
                new.sandbox_id
            )));
        }
    }
    Ok(())
}

impl Fields for Sandbox {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.sandbox_id.clone()),
            ["labels", rest @ ..] => filter::label(&self.labels, rest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use wharf_proto::containerd::types::sandbox::Runtime;

    use super::*;

    fn sandbox(label: &str, runtime: &str) -> Sandbox {
        Sandbox {
            sandbox_id: "s".into(),
            labels: [("a".to_owned(), label.to_owned())].into(),
            runtime: Some(Runtime {
                name: runtime.into(),
                options: None,
            }),
            extensions: [("e".to_owned(), Any::default())].into(),
            ..Sandbox::default()
        }
    }

    #[test]
    fn a_mask_changes_what_it_names() {
        let new = sandbox("2", "r");
        let masked = |paths: &[&str], new: &Sandbox| {
            let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            let mut old = Sandbox {
                extensions: [("old".to_owned(), Any::default())].into(),
                ..sandbox("1", "r")
            };
            mask(&mut old, new, &paths).map(|()| old)
        };
        let changed = masked(&["labels.a"], &new).unwrap();
        assert_eq!((changed.labels["a"].as_str(), changed.extensions.len()), ("2", 1));
        assert!(masked(&["extensions.old"], &new).unwrap().extensions.is_empty());
        assert_eq!(masked(&[], &new).unwrap(), new);
        assert!(masked(&[], &sandbox("2", "other")).is_err());
        assert_eq!(
            masked(&["runtime"], &sandbox("2", "other"))
                .unwrap()
                .runtime
                .unwrap()
                .name,
            "other"
        );
        for bad in ["created_at", "sandboxer", "sandbox_id", ""] {
            assert!(masked(&[bad], &new).is_err(), "{bad:?}");
        }
    }
}
