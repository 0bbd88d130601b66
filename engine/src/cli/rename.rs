//! `wharf rename`: gives a container another name.

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use crate::api::client::segment;

/// Give a container another name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharf rename web web-old")]
pub(crate) struct Rename {
    /// Its name or id
    container: String,
    /// Its new name
    name: String,
}

impl Rename {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        let call = client.post(format!("/containers/{}/rename", segment(&self.container)));
        call.query("name", &self.name).done().await?;
        Ok(0)
    }
}
