//! `wharf kill`: sends a signal to containers.

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::multiple::for_each;
use crate::api::client::segment;

/// Send a signal to running containers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf kill web           end it at once\n  wharf kill -s HUP web    let it read its configuration again"
)]
pub(crate) struct Kill {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Kill {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        for_each(&self.containers, async |name| {
            let call = client.post(format!("/containers/{}/kill", segment(name)));
            call.query("signal", &self.signal).done().await?;
            Ok(Some(name.to_owned()))
        })
        .await
    }
}
