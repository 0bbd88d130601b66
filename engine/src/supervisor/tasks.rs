//! Tasks: the life of a container that has processes. What is done to one process of it is in [`super::processes`].

use super::call::{absent_is_fine, failed};
use super::processes::time;
use super::{CallResult, Client, Exit, Mount, StdioUris, TaskStatus};
use prost_types::Any;
use wharf_proto::containerd::services::tasks::v1::{self as tasks, tasks_client::TasksClient};

/// What a task's process does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskState {
    /// The pid on the host.
    pub pid: u32,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// How it ended, when it has.
    pub exit: Option<Exit>,
}

impl Client {
    /// Creates a container's task: its process exists and waits at the start gate. Returns the pid.
    ///
    /// # Errors
    ///
    /// What the shim or the runtime said.
    pub async fn create_task(
        &self,
        id: &str,
        rootfs: Vec<Mount>,
        stdio: StdioUris,
        options: Option<Any>,
    ) -> CallResult<u32> {
        let response = TasksClient::new(self.channel.clone())
            .create(tasks::CreateTaskRequest {
                container_id: id.to_owned(),
                rootfs,
                stdin: stdio.stdin,
                stdout: stdio.stdout,
                stderr: stdio.stderr,
                terminal: stdio.terminal,
                options,
                ..Default::default()
            })
            .await
            .map_err(failed("create task", id))?;
        Ok(response.into_inner().pid)
    }

    /// What a task's process does now; `None` when there is no task.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn task(&self, id: &str) -> CallResult<Option<TaskState>> {
        let got = TasksClient::new(self.channel.clone())
            .get(tasks::GetRequest {
                container_id: id.to_owned(),
                exec_id: String::new(),
            })
            .await
            .map_err(failed("get task", id));
        let process = match got {
            Ok(response) => response.into_inner().process,
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        Ok(process.map(|process| TaskState {
            pid: process.pid,
            status: process.status(),
            exit: (process.status() == TaskStatus::Stopped).then(|| Exit {
                status: process.exit_status,
                at: time(process.exited_at),
            }),
        }))
    }

    /// The pids of a task on the host.
    ///
    /// # Errors
    ///
    /// What the shim said.
    pub async fn pids(&self, id: &str) -> CallResult<Vec<u32>> {
        let response = TasksClient::new(self.channel.clone())
            .list_pids(tasks::ListPidsRequest {
                container_id: id.to_owned(),
            })
            .await
            .map_err(failed("processes of task", id))?;
        Ok(response
            .into_inner()
            .processes
            .iter()
            .map(|process| process.pid)
            .collect())
    }

    /// Freezes a task.
    ///
    /// # Errors
    ///
    /// What the runtime said.
    pub async fn pause(&self, id: &str) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .pause(tasks::PauseTaskRequest {
                container_id: id.to_owned(),
            })
            .await
            .map(drop)
            .map_err(failed("pause task", id))
    }

    /// Thaws a task.
    ///
    /// # Errors
    ///
    /// What the runtime said.
    pub async fn resume(&self, id: &str) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .resume(tasks::ResumeTaskRequest {
                container_id: id.to_owned(),
            })
            .await
            .map(drop)
            .map_err(failed("resume task", id))
    }

    /// Deletes a task that has ended, or was never started; one that is gone is fine.
    ///
    /// # Errors
    ///
    /// It still runs.
    pub async fn delete_task(&self, id: &str) -> CallResult<()> {
        let deleted = TasksClient::new(self.channel.clone())
            .delete(tasks::DeleteTaskRequest {
                container_id: id.to_owned(),
            })
            .await
            .map_err(failed("delete task", id));
        absent_is_fine(deleted.map(drop))
    }
}
