//! `wharf restart`: stops containers and starts them again.

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::multiple::for_each;
use crate::api::client::segment;

/// Stop containers and start them again
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf restart web\n  wharf restart -t 60 db    give it a minute to stop"
)]
pub(crate) struct Restart {
    /// Seconds to wait before SIGKILL; -1 waits for ever [default: the container's, or 10]
    #[arg(
        short = 't',
        long = "timeout",
        alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,
    /// The signal to stop with
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Restart {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        for_each(&self.containers, async |name| {
            client
                .post(format!("/containers/{}/restart", segment(name)))
                .maybe("t", self.timeout.map(|seconds| seconds.to_string()))
                .maybe("signal", self.signal.as_deref())
                .done()
                .await?;
            Ok(Some(name.to_owned()))
        })
        .await
    }
}
