//! The caller's terminal while a container's terminal is shown on it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{OptionalActions, OutputModes, Termios};

use super::{duplicate, failed, open_controlling_terminal};
use crate::Error;

/// The caller's terminal; its settings come back when this is dropped.
#[derive(Debug)]
pub(super) struct HostTerminal {
    fd: OwnedFd,
    before: Termios,
    console: Option<OwnedFd>,
}

impl HostTerminal {
    /// The first of standard error, output and input that is a terminal, else the controlling terminal.
    pub fn find() -> Result<Self, Error> {
        let own = [
            rustix::stdio::stderr(),
            rustix::stdio::stdout(),
            rustix::stdio::stdin(),
        ];
        let fd = match own.into_iter().find(|stream| rustix::termios::isatty(stream)) {
            Some(stream) => duplicate(stream)?,
            None => open_controlling_terminal()?,
        };
        let before =
            rustix::termios::tcgetattr(&fd).map_err(|errno| failed("read the terminal's settings", errno))?;
        Ok(Self {
            fd,
            before,
            console: None,
        })
    }

    /// Shows the container's terminal: raw mode, and the size passed on.
    pub fn attach(&mut self, console: OwnedFd) -> Result<(), Error> {
        let mut raw = self.before.clone();
        raw.make_raw();
        // Lines end as the caller's terminal ends them; the container's leaves them alone.
        raw.output_modes |= OutputModes::OPOST;
        rustix::termios::tcsetattr(&self.fd, OptionalActions::Now, &raw)
            .map_err(|errno| failed("set the terminal to raw mode", errno))?;
        self.console = Some(console);
        self.resize();
        Ok(())
    }

    /// Gives the container's terminal the size of the caller's. One of them may be gone by now, which is no loss.
    pub fn resize(&self) {
        if let Some(console) = &self.console
            && let Ok(size) = rustix::termios::tcgetwinsize(&self.fd)
        {
            let _ = rustix::termios::tcsetwinsize(console, size);
        }
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        // A terminal that is gone has no settings to lose.
        let _ = rustix::termios::tcsetattr(&self.fd, OptionalActions::Now, &self.before);
    }
}

/// Stops the container's terminal from turning `\n` into `\r\n`: the bytes may go to a file.
pub(super) fn keep_newlines(console: &impl AsFd) -> Result<(), Error> {
    let failed = |errno| failed("set up the container's terminal", errno);
    let mut settings = rustix::termios::tcgetattr(console).map_err(failed)?;
    settings.output_modes -= OutputModes::ONLCR;
    rustix::termios::tcsetattr(console, OptionalActions::Now, &settings).map_err(failed)
}
