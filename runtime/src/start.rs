//! Starting a created container: opening its gate.

use std::sync::PoisonError;

use crate::hook;
use crate::init::{self, Message};
use crate::plan::Plan;
use crate::process::{Conversation, Heard, gate, is_alive};
use crate::spec::oci;
use crate::trace::trace;
use crate::{Container, Error, Signal, Status};

impl Container {
    /// Lets the created process execute the user's program. Blocks until it did, or failed to.
    ///
    /// # Errors
    ///
    /// The container is not `created`, a hook fails, or the program cannot be executed. But for the first, the container
    /// is stopped then.
    pub fn start(&self) -> Result<(), Error> {
        let opened = self
            .starting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (pidfd, connection) = match (&self.pidfd, opened) {
            // It may run by now, or have ended.
            (Some(pidfd), Some(connection)) => (pidfd, connection),
            (pidfd, _) => {
                let status = self.status()?;
                let Some(pidfd) = pidfd.as_ref().filter(|_| status == Status::Created) else {
                    return Err(self.wrong("start", status));
                };
                let Some(connection) = gate::open(self.directory.fd())? else {
                    // Somebody else was faster.
                    return Err(self.wrong("start", self.status()?));
                };
                (pidfd, connection)
            }
        };
        let hooks = self.hooks()?;
        if !self.or_stop(self.follow(&Conversation::new(&connection, pidfd), &hooks))? {
            return Err(self.wrong("start", Status::Running));
        }
        gate::remove(self.directory.fd())?;
        let state = self.record.state(self.record.pid, Status::Running);
        self.or_stop(hook::run("poststart", &hooks.poststart, &state))
    }

    /// Hears whether the program is executed: the connection ends with `execve`. False when somebody else starts it.
    fn follow(&self, conversation: &Conversation<'_>, hooks: &oci::Hooks) -> Result<bool, Error> {
        conversation.await_end()?;
        let mut executing = false;
        loop {
            match conversation.listen()? {
                Heard::Message(Message::Executing) => {
                    trace!("init: about to exec");
                    executing = true;
                }
                Heard::Message(Message::Failed(failure)) => {
                    let spec = self.spec()?;
                    let process = spec.oci().process.as_ref();
                    let process = process.map(Plan::process_for_messages).transpose()?;
                    return Err(match &process {
                        Some(process) => init::error(failure, None, process, &[]),
                        None => Error::io("start the program", failure.errno),
                    });
                }
                Heard::Hook(failure, output) => return Err(hook::failed(failure, hooks, output.into())),
                Heard::Closed if executing => return Ok(true),
                // The gate was closed behind another starter: whoever is let in hears something, unless the process dies.
                Heard::Closed if is_alive(conversation.pidfd) => return Ok(false),
                Heard::Closed | Heard::Message(_) | Heard::Console(_) | Heard::Born(..) => {
                    return Err(Error::Ended("being started"));
                }
            }
        }
    }

    /// A container that could not be started completely must not run on.
    fn or_stop<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| match self.kill(Signal::KILL) {
            Ok(()) | Err(Error::WrongStatus { .. }) => error,
            Err(left) => error.with_leftovers(vec![left]),
        })
    }
}
