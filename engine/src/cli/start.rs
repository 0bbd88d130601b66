//! `wharf start`: starts containers that were created or have ended.

use clap::Args;

use super::attached::DetachKeys;
use super::container_options::AttachStreams;
use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::multiple::for_each;
use super::session::{Session, Settings};
use crate::api::client::{Client, segment};
use crate::api::types::ContainerInspect;

/// Start containers that were created or have ended
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf start web db    in the background\n  wharf start -ai job   and stay with it"
)]
pub(crate) struct Start {
    /// Attach to output, forward signals, and exit with the container's code
    #[arg(short, long)]
    attach: bool,
    /// Attach to stdin too
    #[arg(short, long)]
    interactive: bool,
    /// The keys that detach from a terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Start {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        if !self.attach && !self.interactive {
            return for_each(&self.containers, async |name| {
                start(&client, name).await?;
                Ok(Some(name.to_owned()))
            })
            .await;
        }
        let [container] = self.containers.as_slice() else {
            return Err(Failure::new(
                "Error: only one container can be started and attached to at once",
            ));
        };
        let inspect: ContainerInspect = client
            .get(format!("/containers/{}/json", segment(container)))
            .json()
            .await?;
        let settings = Settings {
            container,
            streams: AttachStreams {
                stdin: self.interactive && inspect.config.open_stdin,
                stdout: true,
                stderr: true,
            },
            terminal: inspect.config.tty,
            sig_proxy: true,
            detach_keys: self.detach_keys.clone().unwrap_or_default(),
            until: if inspect.host_config.auto_remove {
                "removed"
            } else {
                "next-exit"
            },
        };
        let session = Session::open(&client, settings).await?;
        start(&client, container).await.map_err(Failure::of_start)?;
        session.finish().await
    }
}

async fn start(client: &Client, container: &str) -> Result<(), Failure> {
    Ok(client
        .post(format!("/containers/{}/start", segment(container)))
        .done()
        .await?)
}
