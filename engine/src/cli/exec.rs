//! `wharf exec`: runs a further command in a running container.
//!
//! Exit codes as of `run`, but 1 where the daemon refuses. As in Docker, signals are not forwarded: they end this command,
//! not the one in the container, unless it has a terminal, which gets Ctrl-C as a key.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use clap::Args;

use super::attached::{self, DetachKeys, Streams};
use super::endpoint::Globals;
use super::failure::{FAILED, Failure, NOT_STARTED, Outcome, start_exit_code};
use super::option_values as values;
use super::session::exit_code;
use super::signals::Signals;
use super::terminal::{self, RawMode};
use crate::api::client::{Client, ClientError, segment};
use crate::api::types::{ExecConfig, ExecInspect, ExecStart, IdResponse};

/// Run a command in a running container
#[derive(Debug, Args)]
#[command(
    override_usage = "wharf exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    after_help = "Examples:\n  \
        wharf exec -it web sh                    a shell beside the service\n  \
        wharf exec -u nobody -w /tmp web id      as another user\n  \
        wharf exec -i db psql < dump.sql         with input from a file"
)]
pub(crate) struct Exec {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Pass our stdin on
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; a bare NAME passes ours on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// The working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user, and group, inside: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Give the command every capability
    #[arg(long)]
    privileged: bool,
    /// The keys that detach from a terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// The container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"])]
    container_and_command: Vec<String>,
}

impl Exec {
    /// The command and its arguments.
    pub(super) fn command(&self) -> &[String] {
        &self.container_and_command[1..]
    }

    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let stdin = self.interactive && !self.detach;
        if self.tty && stdin && !terminal::stdin_is_terminal() {
            return Err(Failure::new("the input device is not a TTY")
                .hint("leave out -t when stdin is a pipe or a file"));
        }
        let config = self.config(stdin)?;
        let client = globals.connect().await?;
        let container = segment(&self.container_and_command[0]);
        let exec: IdResponse = client
            .post(format!("/containers/{container}/exec"))
            .body(&config)
            .json()
            .await
            .map_err(refused)?;
        let start = ExecStart {
            detach: self.detach,
            tty: self.tty,
            console_size: self.console_size(),
        };
        let call = client
            .post(format!("/exec/{}/start", segment(&exec.id)))
            .body(&start);
        if self.detach {
            call.done().await.map_err(refused)?;
            return Ok(0);
        }
        // Before the process can write to the terminal.
        let raw = if self.tty && stdin {
            Some(
                RawMode::enter()
                    .map_err(|error| Failure::new(format!("Error: set up the terminal: {error}")))?,
            )
        } else {
            None
        };
        let connection = call.hijack().await.map_err(refused)?;
        let detach_keys = raw
            .is_some()
            .then(|| self.detach_keys.clone().unwrap_or_default());
        let mut attached = attached::attach(
            connection,
            Streams {
                stdin,
                terminal: self.tty,
                detach_keys,
            },
        )?;
        let mut signals = Signals::catch(false, self.tty)
            .map_err(|error| Failure::new(format!("Error: catch signals: {error}")))?;
        let mut output = pin!(&mut attached.output);
        let mut sized = pin!(self.first_size(&client, &exec.id));
        let mut has_size = !self.tty;
        let ended = loop {
            tokio::select! {
                ended = &mut output => break ended,
                () = attached.detached.notified() => return Ok(0),
                () = &mut sized, if !has_size => has_size = true,
                _ = signals.next() => {
                    // A process that has just ended has no size; everything else shows in the terminal itself.
                    self.resize(&client, &exec.id).await.ok();
                }
            }
        };
        drop(raw);
        ended.map_err(|_| Failure::new("Error: the output thread ended"))??;
        let inspect: ExecInspect = client
            .get(format!("/exec/{}/json", segment(&exec.id)))
            .json()
            .await?;
        match inspect.exit_code {
            Some(code) => Ok(exit_code(code)),
            None => Err(Failure::new(
                "Error: the connection to the daemon broke while the command was running",
            )),
        }
    }

    fn config(&self, stdin: bool) -> Result<ExecConfig, Failure> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(values::env_file(file)?);
        }
        for variable in &self.env {
            env.extend(values::env(variable)?);
        }
        Ok(ExecConfig {
            user: self.user.clone().unwrap_or_default(),
            privileged: self.privileged,
            tty: self.tty,
            console_size: self.console_size(),
            attach_stdin: stdin,
            attach_stderr: !self.detach,
            attach_stdout: !self.detach,
            detach: self.detach,
            env,
            working_dir: self.workdir.clone().unwrap_or_default(),
            cmd: self.command().to_vec(),
            ..ExecConfig::default()
        })
    }

    fn console_size(&self) -> Option<[u16; 2]> {
        let size = if self.tty { terminal::size() } else { None };
        size.map(|size| [size.rows, size.columns])
    }

    /// Daemons before API 1.42 give a terminal no size at its start, and refuse one until the process runs.
    async fn first_size(&self, client: &Client, exec: &str) {
        for _ in 0..20 {
            if self.resize(client, exec).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn resize(&self, client: &Client, exec: &str) -> Result<(), ClientError> {
        let Some(size) = terminal::size() else {
            return Ok(());
        };
        let call = client.post(format!("/exec/{}/resize", segment(exec)));
        call.query("h", size.rows.to_string())
            .query("w", size.columns.to_string())
            .done()
            .await
    }
}

/// 126 and 127 when the daemon says before the first byte of output that the program cannot be run.
fn refused(error: ClientError) -> Failure {
    let failure = Failure::from(error);
    let code = match start_exit_code(&failure.message) {
        NOT_STARTED => FAILED,
        code => code,
    };
    failure.code(code)
}
