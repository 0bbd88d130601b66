//! Containers that are to run, or not to, whatever became of their tasks: containerd's restart labels.
//!
//! A client that wants that of a container says so in its labels, and the task is brought to what they say at the start
//! of the daemon and every ten seconds:
//!
//! | label, after `containerd.io/restart.` | |
//! |---|---|
//! | `status` | `running` or `stopped`: what the task is to be |
//! | `policy` | when one that does not run is started: [`Policy`] |
//! | `count` | how often it was; written here |
//! | `explicitly-stopped` | `true`, by the client: `unless-stopped` leaves it alone |
//! | `loguri` | where the output goes, a URI as of any task; by default nowhere |
//!
//! A container without the label `status` is not touched. Nor is one whose task is paused, or created and not yet started:
//! its client is about to. Refuses nothing: what is wrong with a label is logged, and the container left as it is.

mod change;
mod policy;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;
use wharf_proto::containerd::v1::types::Status;

pub use policy::{Policy, interval};

use crate::{
    container::{self, Container},
    daemon::Daemon,
    error::Result,
    identifier::Labels,
    namespace::{self, Scope},
};

/// The time between two looks, unless it is configured.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How many containers are brought to what they are to be side by side.
const PARALLEL: usize = 16;

const STATUS: &str = "containerd.io/restart.status";
const COUNT: &str = "containerd.io/restart.count";
const LOG_URI: &str = "containerd.io/restart.loguri";

/// Looks after the containers for ever.
pub async fn watch(daemon: Arc<Daemon>, interval: Duration) {
    let watch = Watch {
        daemon,
        changing: Arc::default(),
        places: Arc::new(Semaphore::new(PARALLEL)),
    };
    loop {
        if let Err(error) = watch.look().await {
            tracing::error!(%error, "look for containers to restart");
        }
        tokio::time::sleep(interval).await;
    }
}

/// A container's namespace and id.
type Name = (String, String);

struct Watch {
    daemon: Arc<Daemon>,
    /// What is being changed: one that takes long is not begun again, and holds up nobody.
    changing: Arc<Mutex<BTreeSet<Name>>>,
    places: Arc<Semaphore>,
}

/// What is to be done about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Start { count: u64 },
    Stop,
}

impl Watch {
    async fn look(&self) -> Result<()> {
        let named = self.daemon.blocking(|daemon| {
            let mut named = Vec::new();
            for namespace in namespace::list(&daemon.metadata)? {
                let scope = Scope::in_namespace(namespace.name);
                let containers = container::list(daemon, &scope)?;
                let marked = containers
                    .into_iter()
                    .filter(|container| container.labels.contains_key(STATUS));
                named.extend(marked.map(|container| (scope.clone(), container)));
            }
            Ok(named)
        });
        for (scope, container) in named.await? {
            let (state, exit_status) = self.state(&scope, &container.id).await;
            if let Some(change) = due(&container.labels, state, exit_status) {
                self.begin(scope, container, change);
            }
        }
        Ok(())
    }

    /// How the task is and ended; `Unknown` without one, and when its shim does not say.
    async fn state(&self, scope: &Scope, id: &str) -> (Status, u32) {
        let Ok(task) = self.daemon.tasks.get(&scope.namespace, id) else {
            return (Status::Unknown, 0);
        };
        match task.state("").await {
            Ok(state) => (state.status(), state.exit_status),
            Err(error) => {
                tracing::debug!(container_id = id, %error, "state of a container to restart");
                (Status::Unknown, 0)
            }
        }
    }

    fn begin(&self, scope: Scope, container: Container, change: Change) {
        let name = (scope.namespace.clone(), container.id.clone());
        if !self.changing().insert(name.clone()) {
            return;
        }
        let (daemon, places) = (Arc::clone(&self.daemon), Arc::clone(&self.places));
        let changing = Arc::clone(&self.changing);
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire().await;
            let changed = match change {
                Change::Start { count } => change::start(&daemon, &scope, &container, count).await,
                Change::Stop => change::stop(&daemon, &scope, &container.id).await,
            };
            let (namespace, container_id) = (&name.0, &name.1);
            match changed {
                Ok(()) => tracing::info!(
                    namespace,
                    container_id,
                    ?change,
                    "container brought to what it is to be"
                ),
                Err(error) => {
                    tracing::error!(namespace, container_id, ?change, %error, "container not brought to what it is to be");
                }
            }
            changing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&name);
        });
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, BTreeSet<Name>> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the labels ask for, of a task in this state.
fn due(labels: &Labels, state: Status, exit_status: u32) -> Option<Change> {
    match (labels.get(STATUS)?.as_str(), state) {
        ("running", Status::Running | Status::Paused | Status::Pausing | Status::Created) => None,
        ("running", Status::Stopped | Status::Unknown) => {
            let policy = match Policy::of(labels) {
                Ok(policy) => policy,
                Err(error) => {
                    tracing::error!(%error, "restart policy");
                    return None;
                }
            };
            let count = labels
                .get(COUNT)
                .and_then(|count| count.parse().ok())
                .unwrap_or(0);
            policy
                .wants(exit_status, count, labels)
                .then_some(Change::Start { count: count + 1 })
        }
        ("stopped", Status::Running | Status::Paused | Status::Pausing | Status::Created) => {
            Some(Change::Stop)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> Labels {
        let label =
            |(key, value): &(&str, &str)| (format!("containerd.io/restart.{key}"), (*value).to_owned());
        of.iter().map(label).collect()
    }

    #[test]
    fn what_is_due_follows_from_labels_and_state() {
        let start = |count| Some(Change::Start { count });
        let running = ("status", "running");
        for (of, state, exit_status, change) in [
            (&[][..], Status::Stopped, 1, None),
            (&[running], Status::Running, 0, None),
            (&[running], Status::Paused, 0, None),
            (&[running], Status::Created, 0, None),
            (&[running], Status::Stopped, 0, start(1)),
            (&[running], Status::Unknown, 0, start(1)),
            (&[running, ("count", "4")], Status::Stopped, 0, start(5)),
            (&[running, ("policy", "no")], Status::Stopped, 1, None),
            (&[running, ("policy", "nonsense")], Status::Stopped, 1, None),
            (&[running, ("policy", "on-failure")], Status::Stopped, 0, None),
            (&[running, ("policy", "on-failure")], Status::Stopped, 3, start(1)),
            (
                &[running, ("policy", "on-failure:2"), ("count", "1")],
                Status::Stopped,
                3,
                start(2),
            ),
            (
                &[running, ("policy", "on-failure:2"), ("count", "2")],
                Status::Stopped,
                3,
                None,
            ),
            (
                &[running, ("policy", "unless-stopped")],
                Status::Stopped,
                3,
                start(1),
            ),
            (
                &[
                    running,
                    ("policy", "unless-stopped"),
                    ("explicitly-stopped", "true"),
                ],
                Status::Stopped,
                3,
                None,
            ),
            (&[("status", "stopped")], Status::Running, 0, Some(Change::Stop)),
            (&[("status", "stopped")], Status::Stopped, 0, None),
            (&[("status", "stopped")], Status::Unknown, 0, None),
            (&[("status", "dancing")], Status::Running, 0, None),
        ] {
            assert_eq!(
                due(&labels(of), state, exit_status),
                change,
                "{of:?} {state:?} {exit_status}"
            );
        }
    }
}
