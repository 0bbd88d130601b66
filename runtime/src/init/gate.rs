//! Waiting at the start gate.
//!
//! The first process of a pid namespace is spared by the kernel from every signal that it has no handler for, but for
//! those that cannot be handled. A created container is to end all the same when it is told to: until it is started its process
//! hears its signals itself.

use crate::sys::process::{self, ALL_SIGNALS, NO_SIGNALS};
use crate::sys::{Errno, Fd, fs, socket};

/// The size of the kernel's `struct signalfd_siginfo`, which begins with the signal's number.
const RECORD_BYTES: usize = 128;

/// What a shell adds to a signal's number for an exit status.
const KILLED: i32 = 128;

/// From here on signals are heard by [`wait`]; nothing for a process that the kernel does not spare.
pub(super) fn hear_signals() -> Result<Option<Fd>, Errno> {
    if process::own_pid() != 1 {
        return Ok(None);
    }
    // Blocked ones are kept for the descriptor, also those that would be ignored.
    process::block_signals(ALL_SIGNALS)?;
    process::signal_descriptor(ALL_SIGNALS).map(Some)
}

/// Waits for the starter; answers the connection. A signal that ends processes ends this one.
pub(super) fn wait(gate: Fd, signals: Option<Fd>) -> Result<Fd, Errno> {
    let Some(signals) = signals else {
        return socket::accept(gate);
    };
    loop {
        let (signalled, opened) = process::wait_either(signals, gate)?;
        if signalled {
            let signal = read(signals)?;
            if ends(signal) {
                process::exit(KILLED + signal);
            }
        } else if opened {
            break;
        }
    }
    signals.close();
    process::block_signals(NO_SIGNALS)?;
    socket::accept(gate)
}

fn read(signals: Fd) -> Result<i32, Errno> {
    let mut record = [0u8; RECORD_BYTES];
    fs::read(signals, &mut record)?;
    let [a, b, c, d, ..] = record;
    Ok(i32::from_ne_bytes([a, b, c, d]))
}

/// Whether the default action of a signal is to end the process (`signal(7)`).
fn ends(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGSTOP
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
    )
}
