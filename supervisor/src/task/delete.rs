//! Deleting a task, and what remains to be done when its shim is dead.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use prost_types::Timestamp;
use wharf_proto::containerd::events::TaskExit;
use wharf_proto::containerd::task::v2 as api;

use super::bundle::Bundle;
use super::handle::{Exit, Task};
use super::shim;
use super::ttrpc::CallError;
use super::{Tasks, When, blocking, exit_record};
use crate::error::{Error, Result};

/// The exit status of a task of which nobody knows how it ended, as containerd reports it.
const UNKNOWN_STATUS: u32 = 255;

impl Tasks {
    /// Deletes a task that does not run, with its shim and bundle, and tells how its init process ended.
    ///
    /// Dropping the future does not interrupt the deletion.
    ///
    /// # Errors
    ///
    /// `NotFound`; the shim's own, `Unknown` for one when the task runs.
    pub async fn delete(self: &Arc<Self>, namespace: &str, id: &str) -> Result<Exit> {
        let task = self.get(namespace, id)?;
        let tasks = Arc::clone(self);
        tokio::spawn(async move { tasks.delete_task(&task).await })
            .await
            .map_err(|error| Error::unknown("delete task", error))?
    }

    async fn delete_task(&self, task: &Task) -> Result<Exit> {
        let request = api::DeleteRequest {
            id: task.id.clone(),
            exec_id: String::new(),
        };
        let shim = task.shim();
        let answer = match shim
            .call::<_, api::DeleteResponse>("Delete", &request, None)
            .await
        {
            // The shim may have died on its own or under this call: what it leaves is cleaned up without being asked.
            Err(CallError::Closed) => {
                let lost = task.lost("Delete").await;
                return match task.exit().filter(|_| lost.is_not_found()) {
                    Some(exit) => Ok(exit),
                    None => Err(lost.context("failed to delete task")),
                };
            }
            Err(error) if !shim::is_not_found(&error) => {
                return Err(shim::error(error).context("failed to delete task"));
            }
            answer => answer,
        };
        if !task.retire() {
            // Another call deletes it.
            return Err(Task::not_found(&task.id));
        }
        // Neither needs the other, and the shim is asked first; a daemon that dies here finds what is left of both when it
        // comes back.
        let need_not_wait = shim.leaves_by_itself();
        let mut dismissal = Box::pin(task.dismiss(shim));
        let mut removal = pin!(self.remove_bundle(&task.bundle));
        tokio::select! {
            biased;
            () = &mut dismissal => removal.await,
            () = &mut removal => match need_not_wait {
                true => drop(tokio::spawn(dismissal)),
                false => dismissal.await,
            },
        }
        let exit = answer.map(Exit::from);
        if let Ok(exit) = &exit {
            task.settle(exit.clone());
        }
        self.release(task);
        exit.map_err(|error| shim::error(error).context("failed to delete task"))
    }

    /// Removes a bundle whose task is no more. What cannot be removed now is removed when the id is used again, or when the
    /// daemon starts.
    pub(super) async fn remove_bundle(&self, bundle: &Bundle) {
        // Some calls into memory, as a rule, and a client waits: no other thread is woken for that.
        if bundle.remove_if_small() {
            return;
        }
        let removal = bundle.clone();
        if let Err(error) = blocking(move || removal.remove()).await {
            tracing::error!(bundle = %bundle.path().display(), %error, "bundle not removed");
        }
    }

    /// Cleans up after the shim of `task` died, unless the task is being deleted.
    pub(super) async fn bury_task(&self, task: &Task) {
        if !task.retire() {
            return;
        }
        let remains = Remains {
            namespace: &task.namespace,
            id: &task.id,
            pid: task.pid,
            exit: task.exit(),
            bundle: &task.bundle,
            executable: &task.executable,
        };
        let exit = self.bury(remains, When::Now).await;
        task.settle(exit);
        self.release(task);
    }

    /// Finds out how a task ended whose shim is dead, takes down what is left of it and tells everybody, once.
    pub(super) async fn bury(&self, task: Remains<'_>, when: When) -> Exit {
        let (namespace, id) = (task.namespace, task.id);
        tracing::info!(namespace, container_id = id, "cleaning up after dead shim");
        let records = task.bundle.clone();
        let records =
            blocking(move || Ok((exit_record::init(&records)?, exit_record::execs(&records)?))).await;
        let (record, execs) = records.unwrap_or_else(|error| {
            tracing::warn!(namespace, container_id = id, %error, "exit records not read");
            (None, Vec::new())
        });
        let invocation = self.invocation(namespace, id, task.bundle, task.executable);
        let deleted = invocation.delete().await.map(Exit::from);
        if let Err(error) = &deleted {
            tracing::warn!(namespace, container_id = id, %error, "shim delete failed");
        }
        // An answer without a time is an empty message: it would pass for a success.
        let deleted = deleted.ok().filter(|exit| exit.at.is_some());
        let known = task.exit.or(record).or(deleted);
        let mut exit = known.unwrap_or(Exit {
            pid: task.pid,
            status: UNKNOWN_STATUS,
            at: None,
        });
        exit.at.get_or_insert_with(crate::time::now);
        // A shim that died before it wrote the pid down cannot tell it; the task's creator can.
        exit.pid = task.pid;
        for (exec_id, exit) in execs {
            self.publish_exit(namespace, exit.event(id, &exec_id), when);
        }
        self.publish_exit(namespace, exit.event(id, id), when);
        self.publish_delete(namespace, id, &exit, when);
        self.remove_bundle(task.bundle).await;
        exit
    }
}

/// A task without a shim.
pub(super) struct Remains<'a> {
    pub namespace: &'a str,
    pub id: &'a str,
    /// The init process, as it was when the task was created.
    pub pid: u32,
    /// How it ended, if that was known before the shim died.
    pub exit: Option<Exit>,
    pub bundle: &'a Bundle,
    pub executable: &'a Path,
}

impl Exit {
    /// The event that tells of it.
    pub(super) fn event(&self, container: &str, process: &str) -> TaskExit {
        TaskExit {
            container_id: container.to_owned(),
            id: process.to_owned(),
            pid: self.pid,
            exit_status: self.status,
            exited_at: self.at,
        }
    }
}

impl From<api::DeleteResponse> for Exit {
    fn from(response: api::DeleteResponse) -> Self {
        Exit {
            pid: response.pid,
            status: response.exit_status,
            at: response.exited_at.filter(is_set),
        }
    }
}

/// Whether a time means one: Go writes the year 1 for none.
pub(super) fn is_set(time: &Timestamp) -> bool {
    time.seconds > 0
}
