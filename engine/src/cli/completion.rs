//! `wharf completion`: scripts that complete the command line in shells.

use std::io::Write as _;

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use super::failure::Outcome;

/// Print a script that completes this command line in a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf completion bash > /etc/bash_completion.d/wharf\n  \
    wharf completion zsh > /usr/local/share/zsh/site-functions/_wharf\n  \
    wharf completion fish > ~/.config/fish/completions/wharf.fish")]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Supported,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(crate) fn run(&self, mut command: Command) -> Outcome {
        let shell = match self.shell {
            Supported::Bash => Shell::Bash,
            Supported::Zsh => Shell::Zsh,
            Supported::Fish => Shell::Fish,
        };
        // Into memory first: the generator takes a closed pipe for a bug.
        let mut script = Vec::new();
        generate(shell, &mut command, "wharf", &mut script);
        let mut out = std::io::stdout().lock();
        out.write_all(&script)?;
        out.flush()?;
        Ok(0)
    }
}
