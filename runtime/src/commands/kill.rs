//! `kill`: a signal for a container's first process.

use anyhow::bail;
use clap::Args;
use wharf_runtime::{Error, Signal, Status};

use super::Environment;
use super::plain::{Word, Words};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Succeed also when the container is stopped (obsolete)
    #[arg(short, long, hide = true)]
    all: bool,
    /// The container's name
    id: String,
    /// The signal's name or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Arguments {
    /// Takes plain ones ([`super::plain`]).
    pub(super) fn plain(words: &mut Words<'_>) -> Option<Self> {
        let (mut all, mut id, mut signal) = (false, None, None);
        while let Some(word) = words.next() {
            match word? {
                Word::Flag("-a" | "--all") => all = true,
                Word::Other(word) if id.is_none() => id = Some(word.to_owned()),
                Word::Other(word) if signal.is_none() => signal = Some(word.to_owned()),
                _ => return None,
            }
        }
        Some(Self {
            all,
            id: id?,
            signal: signal.unwrap_or_else(|| "SIGTERM".to_owned()),
        })
    }
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    // The kernel's signal 0 asks whether there is somebody to signal.
    let signal: Option<Signal> = match arguments.signal.as_str() {
        "0" => None,
        text => Some(text.parse()?),
    };
    let stopped = match signal {
        None => container.state()?.status == Status::Stopped,
        Some(signal) => match container.kill(signal) {
            Err(Error::WrongStatus {
                status: Status::Stopped,
                ..
            }) => true,
            result => {
                result?;
                false
            }
        },
    };
    // Of old `--all` signalled every process; of that only this is left. SIGKILL ends all of them in any case.
    if stopped && !arguments.all {
        bail!("container not running");
    }
    Ok(())
}
