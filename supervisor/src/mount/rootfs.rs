//! The activation of a task's root filesystem: under the container's id, kept by the container.

use std::sync::Arc;

use super::{Mount, Plan};
use crate::{
    daemon::Daemon,
    error::{Error, Result},
    identifier::Labels,
    namespace::Scope,
};

/// The label that makes a container keep something.
const KEPT_BY_CONTAINER: &str = "containerd.io/gc.bref.container";

/// What a runtime is given for `mounts`; those that are not for it are made first. An activation that is there already is
/// of a task that was not deleted, and used again.
///
/// # Errors
///
/// As [`super::Mounts::activate`].
pub async fn activate(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    id: &str,
    mounts: Vec<Mount>,
) -> Result<Vec<Mount>> {
    if !Plan::concerns(&mounts) {
        return Ok(mounts);
    }
    let (scope, id) = (scope.clone(), id.to_owned());
    daemon
        .blocking(move |daemon| {
            let plan = Plan::of(mounts, false)
                .ok_or_else(|| Error::unimplemented("nothing of these mounts is made here"))?;
            let labels = Labels::from([(KEPT_BY_CONTAINER.to_owned(), id.clone())]);
            match daemon.mounts.activate(&scope, &id, plan, labels) {
                Err(error) if error.kind() == crate::Kind::AlreadyExists => daemon.mounts.info(&scope, &id),
                other => other,
            }
        })
        .await
        .map(|info| info.system)
}

/// Takes down what was made for the task `id`, if anything was. What stays is garbage once the container is deleted.
pub async fn deactivate(daemon: &Arc<Daemon>, scope: &Scope, id: &str) {
    if !daemon.mounts.is_used() {
        return;
    }
    let (scope, name) = (scope.clone(), id.to_owned());
    match daemon
        .blocking(move |daemon| daemon.mounts.deactivate(&scope, &name))
        .await
    {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(container_id = id, %error, "mounts of the root filesystem");
        }
        _ => {}
    }
}
