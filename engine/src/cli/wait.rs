//! `wharf wait`: waits for containers to end and prints their exit codes.

use clap::Args;

use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::multiple::for_each;
use crate::api::client::segment;
use crate::api::types::WaitResponse;

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf wait job                     prints 0 when it went well\n  \
    test \"$(wharf wait job)\" = 0       in a script"
)]
pub(crate) struct Wait {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Wait {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        for_each(&self.containers, async |name| {
            let answer: WaitResponse = client
                .post(format!("/containers/{}/wait", segment(name)))
                .json()
                .await?;
            match answer.error {
                Some(error) if !error.message.is_empty() => Err(Failure::new(format!(
                    "Error response from daemon: {}",
                    error.message
                ))),
                _ => Ok(Some(answer.status_code.to_string())),
            }
        })
        .await
    }
}
