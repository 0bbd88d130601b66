//! `wharf attach`: joins the streams of a running container.

use clap::Args;

use super::container_options::AttachStreams;
use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::session::{Session, SessionOptions, Settings};
use crate::api::client::segment;
use crate::api::types::ContainerInspect;

/// Attach to the streams of a running container
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf attach shell                              and Ctrl-P Ctrl-Q to leave it running\n  \
    wharf attach --no-stdin --sig-proxy=false web   only look; Ctrl-C ends the looking")]
pub(crate) struct Attach {
    /// Do not attach to stdin
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    session: SessionOptions,
    /// Name or id
    container: String,
}

impl Attach {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        let inspect: ContainerInspect = client
            .get(format!("/containers/{}/json", segment(&self.container)))
            .json()
            .await?;
        if !inspect.state.running {
            return Err(
                Failure::new("Error: a container that does not run cannot be attached to")
                    .hint(format!("`wharf start -a {}` starts it", self.container)),
            );
        }
        if inspect.state.paused {
            return Err(Failure::new("Error: a paused container cannot be attached to"));
        }
        let settings = Settings {
            container: &self.container,
            streams: AttachStreams {
                stdin: !self.no_stdin && inspect.config.open_stdin,
                stdout: true,
                stderr: true,
            },
            terminal: inspect.config.tty,
            sig_proxy: self.session.sig_proxy,
            detach_keys: self.session.detach_keys(),
            until: "not-running",
        };
        Session::open(&client, settings).await?.finish().await
    }
}
