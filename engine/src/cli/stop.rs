//! `wharf stop`: asks containers to end, and kills them when they do not.

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::stopping::Stopping;

/// Stop running containers: by their stop signal, then by SIGKILL
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf stop web\n  wharf stop -t 60 db    give it a minute\n  wharf stop $(wharf ps -q)"
)]
pub(crate) struct Stop {
    #[command(flatten)]
    stopping: Stopping,
}

impl Stop {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        self.stopping.ask(globals, "stop").await
    }
}
