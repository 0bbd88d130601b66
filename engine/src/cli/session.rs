//! An attached container from its start to its end: streams, signals, the terminal's size, the exit code.
//!
//! Shared by `run`, `start --attach` and `attach`. Owns the order that loses nothing: streams and the wait are in place
//! before the start, output is complete before the exit code counts. Refuses to decide what a failed start means.

use std::pin::pin;

use clap::Args;

use super::attached::{self, Attached, DetachKeys, Streams};
use super::container_options::AttachStreams;
use super::failure::{Failure, NOT_STARTED, Outcome};
use super::signals::{Event, Signals};
use super::terminal::{self, RawMode};
use crate::api::client::{Answer, Client, ClientError, segment};
use crate::api::types::WaitResponse;

/// What `run` and `attach` let their user choose about it.
#[derive(Debug, Args)]
pub(crate) struct SessionOptions {
    /// Forward signals to the process
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub(crate) sig_proxy: bool,
    /// The keys that detach from a terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
}

impl SessionOptions {
    /// The keys that were asked for, or the usual ones.
    pub(crate) fn detach_keys(&self) -> DetachKeys {
        self.detach_keys.clone().unwrap_or_default()
    }
}

/// What to attach to, and how.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    /// Id or name.
    pub(crate) container: &'a str,
    pub(crate) streams: AttachStreams,
    /// The container has a terminal.
    pub(crate) terminal: bool,
    /// Forward signals.
    pub(crate) sig_proxy: bool,
    pub(crate) detach_keys: DetachKeys,
    /// The condition of the wait: `next-exit`, `removed`, or `not-running`.
    pub(crate) until: &'static str,
}

/// An attached container.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    client: &'a Client,
    container: &'a str,
    terminal: bool,
    attached: Attached,
    signals: Signals,
    wait: Answer<'a>,
    raw: Option<RawMode>,
}

impl<'a> Session<'a> {
    /// Attaches, and registers the wait. Signals are kept from here on, until [`Session::finish`] forwards them.
    pub(crate) async fn open(client: &'a Client, settings: Settings<'a>) -> Result<Self, Failure> {
        let Settings {
            container,
            streams,
            terminal,
            sig_proxy,
            detach_keys,
            until,
        } = settings;
        let raw = terminal && streams.stdin && terminal::stdin_is_terminal();
        let path = segment(container);
        let attach = client
            .post(format!("/containers/{path}/attach"))
            .query("stream", "1")
            .flag("stdin", streams.stdin)
            .flag("stdout", streams.stdout)
            .flag("stderr", streams.stderr)
            .hijack();
        let wait = client
            .post(format!("/containers/{path}/wait"))
            .query("condition", until)
            .send();
        // Each keeps its connection; the start that follows finds a third.
        let (connection, wait, ()) = tokio::try_join!(attach, wait, client.connect())?;
        let signals = Signals::catch(sig_proxy, terminal)
            .map_err(|error| Failure::new(format!("Error: catch signals: {error}")))?;
        let raw = if raw {
            Some(
                RawMode::enter()
                    .map_err(|error| Failure::new(format!("Error: set up the terminal: {error}")))?,
            )
        } else {
            None
        };
        let detach_keys = raw.is_some().then_some(detach_keys);
        let attached = attached::attach(
            connection,
            Streams {
                stdin: streams.stdin,
                terminal,
                detach_keys,
            },
        )?;
        Ok(Self {
            client,
            container,
            terminal,
            attached,
            signals,
            wait,
            raw,
        })
    }

    /// Of a container that has been started: serves it until it ends, or the user detaches. Gives its exit code.
    pub(crate) async fn finish(self) -> Outcome {
        let Self {
            client,
            container,
            terminal,
            attached,
            mut signals,
            wait,
            raw,
        } = self;
        if terminal {
            resize(client, container).await;
        }
        let Attached { output, detached } = attached;
        let mut ended = pin!(async {
            output
                .await
                .map_err(|_| Failure::new("Error: the output thread ended"))??;
            wait.json::<WaitResponse>().await.map_err(|error| match error {
                ClientError::Api { .. } => Failure::from(error),
                _ => Failure::new("Error: the connection to the daemon broke"),
            })
        });
        let answer = loop {
            tokio::select! {
                answer = &mut ended => break answer,
                () = detached.notified() => {
                    drop(raw);
                    super::notice(&format!("\nwharf: detached; `wharf attach {}` returns", short(container)));
                    return Ok(0);
                }
                event = signals.next() => match event {
                    Event::Resized => resize(client, container).await,
                    Event::Forward(signal) => {
                        let kill = client.post(format!("/containers/{}/kill", segment(container)));
                        // The container may have ended meanwhile; then its exit is on its way here.
                        kill.query("signal", signal).done().await.ok();
                    }
                },
            }
        };
        drop(raw);
        let answer = answer.map_err(|failure| {
            let hint = format!(
                "the container may still run: `wharf attach {}` returns to it",
                short(container)
            );
            failure.code_of_client().hint(hint)
        })?;
        match answer.error {
            Some(error) if !error.message.is_empty() => {
                Err(Failure::new(format!("Error response from daemon: {}", error.message)).code(NOT_STARTED))
            }
            _ => Ok(exit_code(answer.status_code)),
        }
    }
}

/// A status as a process can have it.
pub(crate) fn exit_code(status: i64) -> u8 {
    // Only the low byte reaches a parent process, whatever the daemon says.
    u8::try_from(status & 0xff).unwrap_or(u8::MAX)
}

/// An id by its first twelve digits, a name as it is.
fn short(container: &str) -> &str {
    if container.len() == 64 {
        container.get(..12).unwrap_or(container)
    } else {
        container
    }
}

async fn resize(client: &Client, container: &str) {
    if let Some(size) = terminal::size() {
        let call = client.post(format!("/containers/{}/resize", segment(container)));
        // A container that has just ended has no size; everything else shows in the terminal itself.
        call.query("h", size.rows.to_string())
            .query("w", size.columns.to_string())
            .done()
            .await
            .ok();
    }
}
