//! `wharf rm`: removes containers.

use clap::Args;

use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::multiple::for_each;
use crate::api::client::{ClientError, segment};

/// Remove containers with their files and logs
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf rm job\n  wharf rm -f web            also if it runs\n  wharf rm -f $(wharf ps -aq)"
)]
pub(crate) struct Rm {
    /// Kill a running container first
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        for_each(&self.containers, async |name| {
            let call = client.delete(format!("/containers/{}", segment(name)));
            match call
                .flag("force", self.force)
                .flag("v", self.volumes)
                .done()
                .await
            {
                Ok(()) => Ok(Some(name.to_owned())),
                // With --force the container is gone afterwards, which is what was asked for.
                Err(error @ ClientError::Api { status: 404, .. }) if self.force => {
                    super::report(&error.into(), false);
                    Ok(None)
                }
                Err(error @ ClientError::Api { status: 409, .. }) if !self.force => {
                    Err(Failure::from(error).hint(format!("`wharf rm -f {name}` kills it first")))
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}
