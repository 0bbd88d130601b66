//! Starting a created container: opening its gate.

use std::os::fd::AsFd;

use crate::hook::{self, Place};
use crate::init::{Message, describe};
use crate::plan::Plan;
use crate::process::{Conversation, Heard, gate};
use crate::{Container, Error, Signal, Status};

impl Container {
    /// Lets the created process execute the user's program. Blocks until it did, or failed to.
    ///
    /// # Errors
    ///
    /// The container is not `created`, a hook fails, or the program cannot be executed. But for the first, the container
    /// is stopped then.
    pub fn start(&self) -> Result<(), Error> {
        let status = self.status()?;
        let Some(pidfd) = self.pidfd.as_ref().filter(|_| status == Status::Created) else {
            return Err(self.wrong("start", status));
        };
        let hooks = self.hooks()?;
        let state = |status| self.record.state(self.record.pid, status);
        let inside = Place::Container(pidfd.as_fd(), hook::namespaces(self.record.namespaces));
        self.or_stop(hook::run(
            "startContainer",
            &hooks.start_container,
            &state(Status::Created),
            inside,
        ))?;
        let Some(connection) = gate::open(self.directory.fd())? else {
            // Somebody else was faster.
            return Err(self.wrong("start", self.status()?));
        };
        self.or_stop(self.follow(&Conversation::new(&connection, pidfd)))?;
        gate::remove(self.directory.fd())?;
        self.or_stop(hook::run(
            "poststart",
            &hooks.poststart,
            &state(Status::Running),
            Place::Runtime,
        ))
    }

    /// Hears whether the program is executed: the connection ends with `execve`.
    fn follow(&self, conversation: &Conversation<'_>) -> Result<(), Error> {
        conversation.await_end()?;
        let mut executing = false;
        loop {
            match conversation.listen()? {
                Heard::Message(Message::Executing) => executing = true,
                Heard::Message(Message::Failed(failure)) => {
                    let spec = self.spec()?;
                    let process = spec.oci().process.as_ref();
                    let process = process.map(Plan::process_for_messages).transpose()?;
                    return Err(Error::Step {
                        description: match &process {
                            Some(process) => describe(failure, None, process, &[]),
                            None => failure.errno.to_string(),
                        },
                        errno: failure.errno,
                    });
                }
                Heard::Closed if executing => return Ok(()),
                Heard::Closed | Heard::Message(_) | Heard::Console(_) => {
                    return Err(Error::Ended("being started"));
                }
            }
        }
    }

    /// A container that could not be started completely must not run on.
    fn or_stop(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.map_err(|error| match self.kill(Signal::KILL) {
            Ok(()) | Err(Error::WrongStatus { .. }) => error,
            Err(left) => error.with_leftovers(vec![left]),
        })
    }
}
