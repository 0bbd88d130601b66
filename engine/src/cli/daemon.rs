//! `wharf daemon`: the daemon itself, in the foreground.

use clap::Args;

use super::endpoint::Globals;
use super::failure::{Failure, Outcome};

/// Run the daemon
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Leave the terminal's session, as commands want it that start a daemon
    #[arg(long, hide = true)]
    background: bool,
}

impl Daemon {
    pub(crate) fn run(&self, globals: &Globals) -> Outcome {
        if self.background {
            rustix::process::setsid().map_err(|error| Failure::new(format!("Error: setsid: {error}")))?;
        }
        Err(Failure::new(format!(
            "Error: the daemon is not part of this build ({})",
            globals.state()?.display()
        )))
    }
}
