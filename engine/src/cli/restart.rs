//! `wharf restart`: stops containers and starts them again.

use clap::Args;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::stopping::Stopping;

/// Stop containers and start them again
#[derive(Debug, Args)]
#[command(
    mut_arg("signal", |signal| signal.help("The signal to stop with")),
    after_help = "Examples:\n  wharf restart web\n  wharf restart -t 60 db    give it a minute to stop"
)]
pub(crate) struct Restart {
    #[command(flatten)]
    stopping: Stopping,
}

impl Restart {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        self.stopping.ask(globals, "restart").await
    }
}
