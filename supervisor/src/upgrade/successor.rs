//! The new daemon's side of a hand-over, and that of a person who asks for one.

use std::{os::fd::OwnedFd, path::Path, time::Duration};

use wharf_proto::containerd::types::Envelope;

use super::{
    PROTOCOL, Sockets, address,
    channel::{Channel, Message},
    events,
};
use crate::{
    Config,
    error::{Error, Kind, Result},
};

/// How long the running daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to give up its stores: it gives calls in progress five seconds.
const STEP_BACK: Duration = Duration::from_secs(60);
/// How long an upgrade may take for who asked for it.
const UPGRADE: Duration = Duration::from_secs(300);

/// What is left of the daemon before this one.
#[derive(Debug, Default)]
pub struct Predecessor {
    sockets: Sockets,
    events: Option<OwnedFd>,
    /// Where it waits to hear that it is not needed any more.
    waiting: Option<Channel>,
    /// Whether there was one.
    taken_over: bool,
}

impl Predecessor {
    /// What a daemon gave up for a successor that died.
    pub(super) fn stepped_back(sockets: Sockets, events: OwnedFd) -> Self {
        Self {
            sockets,
            events: Some(events),
            waiting: None,
            taken_over: true,
        }
    }

    /// Sockets that somebody else keeps for the daemon.
    pub fn of_sockets(sockets: Sockets) -> Self {
        Self {
            sockets,
            ..Self::default()
        }
    }

    /// Whether this daemon goes on for another, whose clients are about to come back.
    pub fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Its listening sockets, once.
    pub fn sockets(&mut self) -> Sockets {
        std::mem::take(&mut self.sockets)
    }

    /// The events that nobody has heard from it, once.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: they cannot be read.
    pub fn events(&mut self) -> Result<Vec<Envelope>> {
        self.events.take().map_or_else(|| Ok(Vec::new()), events::decode)
    }

    /// Tells it that this process serves. If it is gone, so much the better.
    pub fn dismiss(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            let pid = std::process::id();
            if let Err(error) = waiting.send(&Message::Serving { pid }, &[]) {
                tracing::debug!(%error, "the daemon before this one ended by itself");
            }
        }
    }
}

/// Has the daemon that runs on the same state step back. Blocks until it has; without one, what is left is nothing.
///
/// # Errors
///
/// `FailedPrecondition`: it refuses, or its root is another one. It goes on then.
pub fn take_over(config: &Config) -> Result<Predecessor> {
    let Some(running) = Channel::connect(&address(&config.state))? else {
        return Ok(Predecessor::default());
    };
    match converse(&running, config) {
        Ok((sockets, events)) => Ok(Predecessor {
            sockets,
            events,
            waiting: Some(running),
            taken_over: true,
        }),
        Err(error) if error.kind() == Kind::Unavailable => {
            tracing::warn!("the running daemon died before it offered anything");
            Ok(Predecessor::default())
        }
        Err(error) => Err(error.context("take over from the running daemon")),
    }
}

fn converse(running: &Channel, config: &Config) -> Result<(Sockets, Option<OwnedFd>)> {
    running.send(&Message::TakeOver { protocol: PROTOCOL }, &[])?;
    let sockets = match running.receive(Some(ANSWER))? {
        (Message::Offer { root, sockets }, descriptors) => {
            check(&root, &config.root, sockets.len(), descriptors.len())
                .inspect_err(|error| running.refuse(error.to_string()))?;
            sockets.into_iter().zip(descriptors).collect()
        }
        (other, _) => return Err(unexpected(other)),
    };
    // From here on it may die: what it offered is here.
    let yours = running
        .send(&Message::Accept, &[])
        .and_then(|()| running.receive(Some(STEP_BACK)));
    match yours {
        Ok((Message::Yours, events)) => Ok((sockets, events.into_iter().next())),
        Ok((other, _)) => Err(unexpected(other)),
        Err(error) if error.kind() == Kind::Unavailable => {
            tracing::warn!("the running daemon died while it stepped back");
            Ok((sockets, None))
        }
        Err(error) => Err(error),
    }
}

fn check(theirs: &Path, ours: &Path, names: usize, descriptors: usize) -> Result<()> {
    if theirs != ours {
        return Err(Error::precondition(format!(
            "the daemon on this state directory has the root {}, not {}",
            theirs.display(),
            ours.display()
        )));
    }
    if names != descriptors {
        return Err(Error::precondition(format!(
            "{names} sockets were named and {descriptors} came"
        )));
    }
    Ok(())
}

fn unexpected(message: Message) -> Error {
    Error::precondition(match message {
        Message::Refused { reason } => reason,
        other => format!("it said {other:?}"),
    })
}

/// Asks the daemon that runs on the directory `state` to start the executable that is installed now and to hand over to
/// it; returns the new process's id. Blocks.
///
/// # Errors
///
/// `Unavailable`: no daemon runs. `FailedPrecondition`: it goes on, and why.
pub fn request_upgrade(state: &Path) -> Result<u32> {
    let running = Channel::connect(&address(state))?
        .ok_or_else(|| Error::unavailable(format!("no daemon runs on {}", state.display())))?;
    running.send(&Message::Upgrade, &[])?;
    match running.receive(Some(UPGRADE))?.0 {
        Message::Upgraded { pid } => Ok(pid),
        other => Err(unexpected(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Control;
    use super::*;
    use std::os::fd::AsFd as _;

    fn config(directory: &Path) -> Config {
        Config {
            root: directory.join("root"),
            state: directory.to_owned(),
            ..Config::default()
        }
    }

    fn offered(directory: &Path) -> tokio::sync::mpsc::Receiver<super::super::control::Accepted> {
        let sockets = Sockets::from([("unix:/s".to_owned(), tempfile::tempfile().unwrap().into())]);
        Control::bind(directory)
            .unwrap()
            .serve(&directory.join("root"), std::sync::Arc::new(sockets))
            .unwrap()
    }

    #[test]
    fn without_a_daemon_there_is_nothing_to_take_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut none = take_over(&config(directory.path())).unwrap();
        assert!(!none.is_taken_over() && none.sockets().is_empty());
        let error = request_upgrade(directory.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
    }

    #[test]
    fn sockets_and_events_go_over_and_the_old_one_hears_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut accepted = offered(directory.path());
        let config = config(directory.path());
        let successor = std::thread::spawn(move || {
            let mut before = take_over(&config).unwrap();
            let names: Vec<_> = before.sockets().into_keys().collect();
            let events = before.events().unwrap();
            before.dismiss();
            (names, events.len())
        });
        let accepted = accepted.blocking_recv().unwrap();
        let events = events::encode(&[Envelope::default()]).unwrap();
        accepted
            .successor
            .send(&Message::Yours, &[events.as_fd()])
            .unwrap();
        let pid = std::process::id();
        assert_eq!(
            accepted.successor.receive(None).unwrap().0,
            Message::Serving { pid }
        );
        assert_eq!(successor.join().unwrap(), (vec!["unix:/s".to_owned()], 1));
    }

    #[test]
    fn another_root_is_refused_and_the_next_one_is_offered_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut accepted = offered(directory.path());
        let mut other = config(directory.path());
        other.root = "/elsewhere".into();
        let error = take_over(&other).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains("/elsewhere"), "{error}");
        // The refusal is read by another thread: for a moment the first conversation may still be going on.
        let config = config(directory.path());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut before = loop {
            let taken = std::thread::scope(|scope| {
                let successor = scope.spawn(|| take_over(&config));
                while !successor.is_finished() {
                    // The old daemon dies when its offer was accepted.
                    drop(accepted.try_recv());
                    std::thread::yield_now();
                }
                successor.join().unwrap()
            });
            match taken {
                Ok(before) => break before,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
        };
        assert_eq!(before.sockets().len(), 1);
        assert!(before.events().unwrap().is_empty());
    }
}
