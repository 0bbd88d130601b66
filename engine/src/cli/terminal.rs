//! The terminal that the command line itself runs in: is there one, how large, and raw mode.
//!
//! Invariant: however the process ends, short of SIGKILL, the terminal gets its settings back: the guard restores them
//! on return, the panic hook when the process aborts. Refuses to touch any other file than stdin.

use std::io::{self, stderr, stdin, stdout};
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

pub(crate) fn stdin_is_terminal() -> bool {
    isatty(stdin())
}

pub(crate) fn stderr_is_terminal() -> bool {
    isatty(stderr())
}

/// The size of the terminal behind stdout, or behind stdin if stdout goes elsewhere; `None` when it is unknown.
pub(crate) fn size() -> Option<Size> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// The settings to go back to while raw mode is on. Global, because a panic hook has no other way to them.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode of the terminal behind stdin, for as long as this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Switches the terminal to raw mode: every key, Ctrl-C too, arrives as a byte, and nothing is echoed.
    pub(crate) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                previous(panic);
            }));
        });
        let saved = tcgetattr(stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Now, &raw) {
            restore();
            return Err(error.into());
        }
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Waits for output that is still on its way to the terminal, so that it is not shown under the wrong settings.
fn restore() {
    if let Some(saved) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Nobody is left to act on a failure: the terminal has gone away.
        tcsetattr(stdin(), OptionalActions::Drain, &saved).ok();
    }
}
