//! The processes of a task: its own, named by an empty exec id, and those that were added to it.

use super::call::{absent_is_fine, failed};
use super::{CallResult, Client};
use prost_types::Any;
use std::time::SystemTime;
use wharf_proto::containerd::services::tasks::v1::{self as tasks, tasks_client::TasksClient};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status, or 128 + the signal that killed it.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// The stdio of a process: URIs as the shim understands them; empty is nothing.
#[derive(Debug, Clone, Default)]
pub struct StdioUris {
    /// A FIFO.
    pub stdin: String,
    /// A FIFO or a `json-file://` log.
    pub stdout: String,
    /// The same; empty with a terminal.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

impl Client {
    /// Starts a task (`exec` empty) or an exec; returns its pid.
    ///
    /// # Errors
    ///
    /// What the shim or the runtime said.
    pub async fn start_process(&self, id: &str, exec: &str) -> CallResult<u32> {
        let response = TasksClient::new(self.channel.clone())
            .start(tasks::StartRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
            })
            .await
            .map_err(failed("start task", id))?;
        Ok(response.into_inner().pid)
    }

    /// Adds a process to a running task.
    ///
    /// # Errors
    ///
    /// What the shim said.
    pub async fn exec(&self, id: &str, exec: &str, process: Any, stdio: StdioUris) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .exec(tasks::ExecProcessRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                stdin: stdio.stdin,
                stdout: stdio.stdout,
                stderr: stdio.stderr,
                terminal: stdio.terminal,
                spec: Some(process),
            })
            .await
            .map(drop)
            .map_err(failed("exec in task", id))
    }

    /// Waits until a task (`exec` empty) or an exec has ended.
    ///
    /// # Errors
    ///
    /// There is none, or the connection broke; nothing is known about the process then.
    pub async fn wait(&self, id: &str, exec: &str) -> CallResult<Exit> {
        let response = TasksClient::new(self.channel.clone())
            .wait(tasks::WaitRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
            })
            .await
            .map_err(failed("wait for task", id))?
            .into_inner();
        Ok(Exit {
            status: response.exit_status,
            at: time(response.exited_at),
        })
    }

    /// Sends a signal to a task (`exec` empty) or an exec.
    ///
    /// # Errors
    ///
    /// [`crate::supervisor::CallError::is_not_found`] when the process is gone.
    pub async fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .kill(tasks::KillRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                signal,
                all,
            })
            .await
            .map(drop)
            .map_err(failed("kill task", id))
    }

    /// Closes the stdin of a process: once what was written has been read, it sees the end.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub async fn close_stdin(&self, id: &str, exec: &str) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .close_io(tasks::CloseIoRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                stdin: true,
            })
            .await
            .map(drop)
            .map_err(failed("close stdin of", id))
    }

    /// Sets the size of a process's terminal, in characters.
    ///
    /// # Errors
    ///
    /// The process is gone or has no terminal.
    pub async fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .resize_pty(tasks::ResizePtyRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                width,
                height,
            })
            .await
            .map(drop)
            .map_err(failed("resize terminal of", id))
    }

    /// Deletes an exec that has ended; one that is gone is fine.
    ///
    /// # Errors
    ///
    /// It still runs.
    pub async fn delete_exec(&self, id: &str, exec: &str) -> CallResult<()> {
        let deleted = TasksClient::new(self.channel.clone())
            .delete_process(tasks::DeleteProcessRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
            })
            .await
            .map_err(failed("delete exec", exec));
        absent_is_fine(deleted.map(drop))
    }
}

/// The time of a message; one that is missing or cannot be told is the epoch.
pub(super) fn time(stamp: Option<prost_types::Timestamp>) -> SystemTime {
    stamp
        .and_then(|stamp| SystemTime::try_from(stamp).ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
