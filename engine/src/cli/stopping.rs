//! What `stop` and `restart` share: whom to stop, how, and how long to wait for it.
//!
//! Refuses to know what comes after the stop; the daemon's verb says that.

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::multiple::for_each;
use crate::api::client::segment;

/// Containers to stop, and how.
#[derive(Debug, Args)]
pub(crate) struct Stopping {
    /// Seconds to wait before SIGKILL; -1 waits for ever [default: the container's, or 10]
    #[arg(
        short = 't',
        long = "timeout",
        alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,
    /// The signal to send first
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Stopping {
    /// Asks the daemon to do `verb`, the last part of its path, to each container.
    pub(crate) async fn ask(&self, globals: &Globals, verb: &str) -> Outcome {
        let client = globals.connect().await?;
        for_each(&self.containers, async |name| {
            client
                .post(format!("/containers/{}/{verb}", segment(name)))
                .maybe("t", self.timeout.map(|seconds| seconds.to_string()))
                .maybe("signal", self.signal.as_deref())
                .done()
                .await?;
            Ok(Some(name.to_owned()))
        })
        .await
    }
}
