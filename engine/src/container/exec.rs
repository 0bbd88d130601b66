//! Further processes in a running container.

use super::config::spec;
use super::config::user::{self, User};
use super::create::read_accounts;
use super::remove::remove_tree;
use super::stdio::Stdio;
use super::store::Container;
use crate::api::types::ExecConfig;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::rootfs::Rootfs;
use crate::supervisor::{CallResult, Exit, StdioUris};
use std::future::{Future, poll_fn, ready};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use wharf_proto::any;

// A client that makes execs and never starts them must not fill the memory.
const MAX_EXECS: usize = 4096;

/// A process beside the container's own.
#[derive(Debug)]
pub struct Exec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's id.
    pub container_id: String,
    /// What was asked for.
    pub config: ExecConfig,
    /// Its output and input.
    pub stdio: Stdio,
    state: Mutex<ExecState>,
}

/// What an exec does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecState {
    /// Whether it was started, successfully or not.
    pub started: bool,
    /// Whether it runs.
    pub running: bool,
    /// Its pid on the host; 0 when it does not run.
    pub pid: u32,
    /// Its exit status, when it has ended.
    pub exit_code: Option<i64>,
}

impl Exec {
    /// What it does now.
    pub fn state(&self) -> ExecState {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, ExecState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exit of a process that has been asked for.
type PendingExit = Pin<Box<dyn Future<Output = CallResult<Exit>> + Send>>;

impl Engine {
    /// Prepares an exec in a running container and returns its id.
    ///
    /// # Errors
    ///
    /// The container does not run, there is no command, or too many execs wait.
    pub fn create_exec(&self, container: &Container, config: ExecConfig) -> Result<Arc<Exec>> {
        if !container.is_running() {
            return Err(container.not_running());
        }
        if config.cmd.is_empty() {
            return Err(Error::invalid("no exec command specified"));
        }
        super::config::merge_env(&[], &config.env)?;
        let mut execs = container.execs();
        if execs.len() >= MAX_EXECS {
            // Those that ended are kept for a last look at their status only.
            execs.retain(|_, exec| exec.state().exit_code.is_none());
        }
        if execs.len() >= MAX_EXECS {
            return Err(Error::conflict(format!(
                "container {} has {MAX_EXECS} execs",
                container.id
            )));
        }
        let exec = Arc::new(Exec {
            id: crate::id::new()?,
            container_id: container.id.clone(),
            config,
            stdio: Stdio::default(),
            state: Mutex::default(),
        });
        execs.insert(exec.id.clone(), Arc::clone(&exec));
        Ok(exec)
    }

    /// Finds an exec and its container.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find_exec(&self, id: &str) -> Result<(Arc<Container>, Arc<Exec>)> {
        self.containers
            .all()
            .into_iter()
            .find_map(|container| {
                let exec = container.execs().get(id).cloned();
                exec.map(|exec| (container, exec))
            })
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Starts an exec. With `attached`, its output waits for the clients of [`Exec::stdio`]; attach before.
    ///
    /// # Errors
    ///
    /// It was started before, the container does not run, or the process cannot be started.
    pub async fn start_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        attached: bool,
    ) -> Result<()> {
        {
            let mut state = exec.lock();
            if state.started {
                return Err(Error::conflict(format!(
                    "Error: Exec command {} is already running",
                    exec.id
                )));
            }
            state.started = true;
        }
        match self.launch_exec(container, exec, attached).await {
            Ok((pid, exit)) => {
                {
                    let mut state = exec.lock();
                    (state.running, state.pid) = (true, pid);
                }
                self.publish(container, "exec_start", &[("execID", exec.id.clone())]);
                let (engine, container, exec) = (Arc::clone(self), Arc::clone(container), Arc::clone(exec));
                tokio::spawn(async move { engine.exec_ended(&container, &exec, exit).await });
                Ok(())
            }
            Err(error) => {
                let (error, code) = super::start::classify(error);
                exec.lock().exit_code = Some(code);
                self.forget_exec(container, exec).await;
                Err(error)
            }
        }
    }

    fn exec_directory(container: &Container, exec: &Exec) -> PathBuf {
        container.run_directory.join(format!("exec-{}", exec.id))
    }

    async fn launch_exec(
        &self,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        attached: bool,
    ) -> Result<(u32, PendingExit)> {
        if !container.is_running() {
            return Err(container.not_running());
        }
        let config = &exec.config;
        let spec = self.client.container_spec(&container.id).await?;
        let user = self.exec_user(container, config).await?;
        let process = spec::exec_process(&spec, config, user.as_ref(), &self.facts)?;
        let mut stdio = StdioUris {
            terminal: config.tty,
            ..Default::default()
        };
        if attached {
            let directory = Self::exec_directory(container, exec);
            std::fs::create_dir_all(&directory).map_err(|error| Error::io("create", &directory, error))?;
            let fifos = exec
                .stdio
                .begin(&directory, config.tty, config.attach_stdin, true)?;
            let text = |path: PathBuf| path.to_string_lossy().into_owned();
            stdio.stdin = fifos.stdin.map(text).unwrap_or_default();
            stdio.stdout = text(fifos.stdout);
            stdio.stderr = fifos.stderr.map(text).unwrap_or_default();
        }
        let process = prost_types::Any {
            type_url: any::RUNTIME_PROCESS_URL.to_owned(),
            value: process.to_string().into_bytes(),
        };
        self.client.exec(&container.id, &exec.id, process, stdio).await?;
        let exit = self.ask_for_exit(container, exec).await;
        match self.client.start_process(&container.id, &exec.id).await {
            Ok(pid) => Ok((pid, exit)),
            Err(error) => {
                if let Err(error) = self.client.delete_exec(&container.id, &exec.id).await {
                    tracing::warn!(exec_id = exec.id, %error, "exec not deleted");
                }
                Err(exec_failed(&error.to_string()))
            }
        }
    }

    // Asked before the start: a process may end, and its container with it, before a later question would arrive.
    async fn ask_for_exit(&self, container: &Container, exec: &Exec) -> PendingExit {
        let (client, id, exec) = (self.client.clone(), container.id.clone(), exec.id.clone());
        let mut exit: PendingExit = Box::pin(async move { client.wait(&id, &exec).await });
        // The first poll sends the request.
        match poll_fn(|context| Poll::Ready(exit.as_mut().poll(context))).await {
            Poll::Ready(early) => Box::pin(ready(early)),
            Poll::Pending => exit,
        }
    }

    // The container may have changed its account files since it was made.
    async fn exec_user(&self, container: &Container, config: &ExecConfig) -> Result<Option<User>> {
        if config.user.is_empty() {
            return Ok(None);
        }
        let (pid, more) = container.with_record(|record| (record.state.pid, record.host.group_add.clone()));
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let accounts = blocking(move || read_accounts(&Rootfs::open(&root)?)).await?;
        user::resolve(&config.user, &more, &accounts).map(Some)
    }

    async fn exec_ended(&self, container: &Container, exec: &Exec, exit: PendingExit) {
        let code = match exit.await {
            Ok(exit) => i64::from(exit.status),
            Err(error) => {
                tracing::debug!(exec_id = exec.id, %error, "exit of an exec is not known");
                255
            }
        };
        if let Err(error) = self.client.delete_exec(&container.id, &exec.id).await {
            tracing::warn!(exec_id = exec.id, %error, "exec not deleted");
        }
        {
            // Before the output ends: whoever sees the end asks for the status next.
            let mut state = exec.lock();
            (state.running, state.pid, state.exit_code) = (false, 0, Some(code));
        }
        self.forget_exec(container, exec).await;
        self.publish(
            container,
            "exec_die",
            &[("execID", exec.id.clone()), ("exitCode", code.to_string())],
        );
    }

    async fn forget_exec(&self, container: &Container, exec: &Exec) {
        exec.stdio.finish().await;
        if let Err(error) = remove_tree(&Self::exec_directory(container, exec)) {
            tracing::warn!(exec_id = exec.id, %error, "directory of an exec not removed");
        }
    }
}

/// In Docker's words, which clients print as they are: what the shim says, without the steps that led to it.
fn exec_failed(error: &str) -> Error {
    const WORDS: &str = "OCI runtime exec failed";
    Error::system(match error.find(WORDS) {
        Some(at) => error[at..].to_owned(),
        None => format!("{WORDS}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_exec_is_told_in_dockers_words_once() {
        for (error, told) in [
            (
                "start task x: OCI runtime exec failed: exec: \"a\": permission denied",
                "OCI runtime exec failed: exec: \"a\": permission denied",
            ),
            ("task x not found", "OCI runtime exec failed: task x not found"),
        ] {
            assert_eq!(exec_failed(error).to_string(), told);
        }
    }
}
