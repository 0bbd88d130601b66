//! `wharf top`: the processes of a container.

use std::io::Write as _;

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::table::align;
use crate::api::client::segment;
use crate::api::types::TopResponse;

/// Show the processes of a running container
#[derive(Debug, Args)]
#[command(
    override_usage = "wharf top CONTAINER [PS OPTIONS]",
    after_help = "Examples:\n  wharf top web\n  wharf top web -o pid,rss,args    with options of ps"
)]
pub(crate) struct Top {
    /// The container, then options of ps
    #[arg(required = true, trailing_var_arg = true, value_names = ["CONTAINER", "PS OPTIONS"])]
    container_and_options: Vec<String>,
}

impl Top {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        let (container, options) = self.container_and_options.split_at(1);
        let options = (!options.is_empty()).then(|| options.join(" "));
        let call = client.get(format!("/containers/{}/top", segment(&container[0])));
        let top: TopResponse = call.maybe("ps_args", options).json().await?;
        let lines: Vec<String> = std::iter::once(&top.titles)
            .chain(&top.processes)
            .map(|cells| cells.join("\t"))
            .collect();
        std::io::stdout().write_all(align(&lines).as_bytes())?;
        Ok(0)
    }
}
