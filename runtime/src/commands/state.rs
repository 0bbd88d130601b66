//! `state`: what a container is, as JSON.

use std::io::Write as _;

use anyhow::Context as _;
use clap::Args;

use super::Environment;
use super::plain::Words;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The container's name
    id: String,
}

impl Arguments {
    /// Takes plain ones ([`super::plain`]).
    pub(super) fn plain(words: &mut Words<'_>) -> Option<Self> {
        Some(Self { id: words.only()? })
    }
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let mut state = environment.load(&arguments.id)?.state()?;
    // The owner is a matter of the list; readers of a state expect it empty.
    state.owner.clear();
    let text = serde_json::to_string_pretty(&state).context("write the state")?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}
