//! `wharf pause` and `wharf unpause`: freezes all processes of containers, and thaws them.

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::multiple::for_each;
use crate::api::client::segment;

/// Freeze all processes of containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharf pause db")]
pub(crate) struct Pause {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Let frozen containers go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharf unpause db")]
pub(crate) struct Unpause {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Pause {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        each(globals, &self.containers, "pause").await
    }
}

impl Unpause {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        each(globals, &self.containers, "unpause").await
    }
}

async fn each(globals: &Globals, containers: &[String], action: &str) -> Outcome {
    let client = globals.connect().await?;
    for_each(containers, async |name| {
        client
            .post(format!("/containers/{}/{action}", segment(name)))
            .done()
            .await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
