//! The old daemon after it gave up its stores: one thread that holds the sockets and waits for what becomes of the
//! successor.

use std::{
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use wharf_proto::containerd::types::Envelope;

use super::{
    STANDBY_FLAG, Sockets,
    channel::{Channel, Message},
    control::Accepted,
    events, own_arguments,
    successor::Predecessor,
};
use crate::{
    error::{Error, Result},
    notify, sys,
};

/// The descriptors that a stand-by was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    successor: RawFd,
    requester: Option<RawFd>,
    events: RawFd,
    sockets: std::collections::BTreeMap<String, RawFd>,
}

/// What became of a hand-over.
#[derive(Debug)]
pub enum Outcome {
    /// The successor serves.
    Replaced,
    /// It does not, and never will: this process goes on, with what it gave up.
    Resume(Predecessor),
}

/// The old daemon, waiting.
#[derive(Debug)]
pub struct Standby {
    successor: Channel,
    requester: Option<Channel>,
    events: OwnedFd,
    sockets: Sockets,
}

impl Standby {
    /// Gives up everything that this process has open but `sockets` and the connection to the successor: executes itself
    /// anew, and returns only if it cannot.
    ///
    /// # Errors
    ///
    /// `Unknown`: the executable cannot be executed. The process should end then, which gives up the stores as well.
    pub fn become_one(accepted: Accepted, unheard: &[Envelope], sockets: &Sockets) -> Result<()> {
        let failed = |error| Error::io("stand by for the new daemon", error);
        let events = events::encode(unheard)?;
        let number = |fd: std::os::fd::BorrowedFd<'_>| {
            fcntl_setfd(fd, FdFlags::empty())
                .map(|()| fd.as_raw_fd())
                .map_err(|error| failed(error.into()))
        };
        let left = Left {
            successor: number(accepted.successor.as_fd())?,
            requester: accepted
                .requester
                .as_ref()
                .map(|requester| number(requester.as_fd()))
                .transpose()?,
            events: number(events.as_fd())?,
            sockets: sockets
                .iter()
                .map(|(name, socket)| Ok((name.clone(), number(socket.as_fd())?)))
                .collect::<Result<_>>()?,
        };
        let left = serde_json::to_string(&left).map_err(|error| Error::unknown("encode", error))?;
        // Not by its path: another file may be there by now.
        let error = Command::new("/proc/self/exe")
            .args(own_arguments())
            .arg(format!("{STANDBY_FLAG}{left}"))
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .exec();
        Err(failed(error))
    }

    /// Takes up the descriptors that the flag's `value` names. To be called first thing, once.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: these are not what this program left itself.
    pub fn of_flag(value: &str) -> Result<Self> {
        let left: Left =
            serde_json::from_str(value).map_err(|error| Error::invalid("--standby").caused_by(error))?;
        let mut numbers: Vec<_> = left.sockets.values().copied().collect();
        numbers.extend([left.successor, left.events]);
        numbers.extend(left.requester);
        let taken = sys::inherited(&numbers)
            .map_err(|error| Error::invalid("--standby: inherited descriptors").caused_by(error))?;
        let mut taken = taken.into_iter();
        let mut next = || {
            taken
                .next()
                .ok_or_else(|| Error::invalid("--standby: a descriptor is missing"))
        };
        let mut sockets = Sockets::new();
        for name in left.sockets.into_keys() {
            sockets.insert(name, next()?);
        }
        Ok(Self {
            sockets,
            successor: Channel::new(next()?),
            events: next()?,
            requester: left.requester.map(|_| next().map(Channel::new)).transpose()?,
        })
    }

    /// Tells the successor that the stores are free, and waits for as long as it lives until it serves.
    ///
    /// # Errors
    ///
    /// `Unknown`: systemd cannot be told.
    pub fn wait(self) -> Result<Outcome> {
        let word = self
            .successor
            .send(&Message::Yours, &[self.events.as_fd()])
            .and_then(|()| self.successor.receive(None));
        let reason = match word {
            Ok((Message::Serving { pid }, _)) => {
                notify::send(&format!("MAINPID={pid}\nREADY=1"), &[])?;
                if let Some(requester) = &self.requester {
                    // It serves whether or not anybody waits to hear so.
                    if let Err(error) = requester.send(&Message::Upgraded { pid }, &[]) {
                        tracing::debug!(%error, "upgrade not told");
                    }
                }
                return Ok(Outcome::Replaced);
            }
            Ok((Message::Refused { reason }, _)) => reason,
            Ok((other, _)) => format!("it said {other:?}"),
            Err(error) => error.to_string(),
        };
        tracing::error!(reason, "the new daemon does not serve: going on");
        if let Some(requester) = &self.requester {
            requester.refuse(format!("the running daemon goes on: {reason}"));
        }
        drop(self.successor);
        // The successor may be a child, and so are others that the daemon left behind when it stepped back.
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        Ok(Outcome::Resume(Predecessor::stepped_back(
            self.sockets,
            self.events,
        )))
    }
}
