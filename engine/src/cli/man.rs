//! `wharf man`: writes the manual pages, one a verb. Hidden: packages call it, people read the pages.

use std::path::PathBuf;

use clap::{Args, Command};

use super::failure::{Failure, Outcome};

/// Write the manual pages into a directory
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Man {
    /// An existing directory, such as /usr/local/share/man/man1
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(&self, command: Command) -> Outcome {
        clap_mangen::generate_to(command, &self.directory).map_err(|error| {
            Failure::new(format!(
                "Error: write manual pages into {}: {error}",
                self.directory.display()
            ))
        })?;
        Ok(0)
    }
}
