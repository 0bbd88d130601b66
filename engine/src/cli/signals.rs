//! Signals to the command line while it is attached: forwarded to the process, or a change of the terminal's size.
//!
//! Owns which signals are forwarded: those that a user or a service manager sends to a foreground program. Refuses
//! SIGTSTP, SIGCHLD, SIGPIPE and the like, which are about this process itself.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Send this signal to the process.
    Forward(&'static str),
    /// Tell the process's terminal its new size.
    Resized,
}

/// Caught signals, in the order of their arrival. Until this is polled they are kept.
#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<Event>);

impl Signals {
    /// Starts catching: the signals to forward if `forward`, and changes of size if `resize`.
    ///
    /// # Errors
    ///
    /// The system does not take the handlers.
    pub(crate) fn catch(forward: bool, resize: bool) -> io::Result<Self> {
        const FORWARDED: [(SignalKind, &str); 7] = [
            (SignalKind::hangup(), "HUP"),
            (SignalKind::interrupt(), "INT"),
            (SignalKind::quit(), "QUIT"),
            (SignalKind::user_defined1(), "USR1"),
            (SignalKind::user_defined2(), "USR2"),
            (SignalKind::alarm(), "ALRM"),
            (SignalKind::terminate(), "TERM"),
        ];
        let (sender, receiver) = mpsc::channel(16);
        let watch = |kind: SignalKind, event: Event| -> io::Result<()> {
            let mut arrivals = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() && sender.send(event).await.is_ok() {}
            });
            Ok(())
        };
        if forward {
            for (kind, name) in FORWARDED {
                watch(kind, Event::Forward(name))?;
            }
        }
        if resize {
            watch(SignalKind::window_change(), Event::Resized)?;
        }
        Ok(Self(receiver))
    }

    /// The next event. Pending for ever when nothing is caught.
    pub(crate) async fn next(&mut self) -> Event {
        match self.0.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}
