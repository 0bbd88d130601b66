//! The watch over one task: its exit, and the life of its shim.
//!
//! A `Wait` stays open at the shim, so an exit is known as soon as the shim answers, whatever becomes of its event. A
//! connection that ends is made again if the shim still listens; else the shim is dead and its task is buried.

use std::sync::Arc;
use std::time::Duration;

use wharf_proto::containerd::task::v2 as api;
use wharf_proto::containerd::v1::types::Status;

use super::delete::is_set;
use super::handle::{Exit, Task};
use super::shim::{self, Shim};
use super::ttrpc::CallError;
use super::{Tasks, When};

/// How long the shim's own event may lag behind its answer to `Wait` before the daemon publishes the exit itself.
const EVENT_GRACE: Duration = Duration::from_secs(2);

/// How often a shim that refuses `Wait` is asked for its state instead.
const POLL: Duration = Duration::from_secs(1);

/// The longest pause between attempts to reach a shim that neither answers nor is dead.
const RETRY: Duration = Duration::from_secs(10);

/// Watches `task` until nothing is left of it.
pub async fn watch(tasks: Arc<Tasks>, task: Arc<Task>) {
    loop {
        let shim = task.shim();
        tokio::select! {
            biased;
            () = task.gone() => return,
            () = shim.closed() => {}
            // Completes only when nothing is left to observe; the connection still is.
            () = observe(&tasks, &task, &shim) => {
                tokio::select! {
                    () = task.gone() => return,
                    () = shim.closed() => {}
                }
            }
        }
        if task.is_retired() {
            return;
        }
        match reconnect(&task).await {
            Some(shim) => {
                tracing::warn!(
                    namespace = task.namespace,
                    container_id = task.id,
                    "reattached to shim"
                );
                task.reattach(shim);
            }
            None => {
                tasks.bury_task(&task).await;
                return;
            }
        }
    }
}

/// Waits for the exit, makes it known, and sees to it that its event is out.
async fn observe(tasks: &Tasks, task: &Task, shim: &Shim) {
    let exit = match task.exit() {
        Some(exit) => exit,
        None => match ask(task, shim).await {
            Some(exit) => exit,
            None => return,
        },
    };
    task.settle(exit.clone());
    let told = tokio::time::timeout(EVENT_GRACE, tasks.ledger.wait(&task.end())).await;
    if told.is_err() && !task.is_retired() {
        tasks.publish_exit(&task.namespace, exit.event(&task.id, &task.id), When::Now);
    }
}

/// Waits until the init process has ended; `None` when the connection ends first.
async fn ask(task: &Task, shim: &Shim) -> Option<Exit> {
    let request = api::WaitRequest {
        id: task.id.clone(),
        exec_id: String::new(),
    };
    loop {
        match shim.call::<_, api::WaitResponse>("Wait", &request, None).await {
            Ok(answer) => {
                return Some(Exit {
                    pid: task.pid,
                    status: answer.exit_status,
                    at: answer.exited_at.filter(is_set),
                });
            }
            Err(CallError::Closed) => return None,
            Err(error) => {
                tracing::warn!(namespace = task.namespace, container_id = task.id, %error, "shim refuses to wait");
            }
        }
        match shim.state(&task.id, "").await {
            Ok(state) if state.status == Status::Stopped as i32 => return Some(of_state(&state)),
            Err(CallError::Closed) => return None,
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// How the init process ended, from the state of a stopped task.
pub fn of_state(state: &api::StateResponse) -> Exit {
    Exit {
        pid: state.pid,
        status: state.exit_status,
        at: state.exited_at.filter(is_set),
    }
}

/// Tries to reach the shim again; `None` when it is dead, or knows nothing of the task.
///
/// A shim that listens and does not answer is stuck, not dead: its container runs, so it is asked again and again.
async fn reconnect(task: &Task) -> Option<Shim> {
    let bundle = task.bundle.clone();
    let bootstrap = match super::blocking(move || bundle.bootstrap()).await {
        Ok(Some(bootstrap)) => bootstrap,
        Ok(None) => return None,
        Err(error) => {
            tracing::error!(namespace = task.namespace, container_id = task.id, %error, "shim cannot be found again");
            return None;
        }
    };
    let mut pause = Duration::from_millis(100);
    loop {
        match Shim::connect(&bootstrap).await {
            Ok(Ok(shim)) => match shim.state(&task.id, "").await {
                Ok(_) => return Some(shim),
                Err(error) if shim::is_not_found(&error) => {
                    task.dismiss(Arc::new(shim)).await;
                    return None;
                }
                Err(CallError::Closed) => {}
                Err(error) => {
                    tracing::warn!(namespace = task.namespace, container_id = task.id, %error, "shim does not answer");
                }
            },
            Ok(Err(error)) if error.nobody_listens() => return None,
            Ok(Err(error)) => {
                tracing::warn!(namespace = task.namespace, container_id = task.id, %error, "shim cannot be reached");
            }
            Err(error) => {
                tracing::error!(namespace = task.namespace, container_id = task.id, %error, "shim cannot be found again");
                return None;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY);
    }
}
