//! Removing a container and everything that belongs to it.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::hook;
use crate::process::{reap, wait_exit};
use crate::{Container, Error, Signal, Status};

/// How long processes may take to die after `SIGKILL`.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

impl Container {
    /// Removes the container: its control group and its state. With `force` a live one is killed first.
    ///
    /// Blocks until the processes are gone, for a bounded time. The first process is reaped if it is a child of
    /// the caller and `force` killed it. Failures of `poststop` hooks are warnings. A container that somebody else
    /// has removed is removed.
    ///
    /// # Errors
    ///
    /// The container is not stopped and `force` is off, or a step fails. The state stays until everything else is gone.
    pub fn delete(&self, force: bool) -> Result<(), Error> {
        let Some(_removal) = self.directory.lock_removal()? else {
            return Ok(());
        };
        let status = self.status()?;
        if status != Status::Stopped {
            // A created container has run nothing of the user's (as runc).
            if !force && status != Status::Created {
                return Err(self.wrong("delete", status));
            }
            self.end()?;
        }
        if !self.has_own_pids() && self.cgroup.is_any() {
            // The end of the first process did not end the others.
            self.cgroup.kill(Signal::KILL.number())?;
        }
        if let Some(group) = &self.record.intel_rdt {
            group.remove()?;
        }
        self.cgroup.remove()?;
        let hooks = self.hooks()?;
        self.directory.remove()?;
        let state = self.record.state(0, Status::Stopped);
        // Each one runs, whatever becomes of the others: they clean up.
        for (index, hook) in hooks.poststop.iter().enumerate() {
            if let Err(problem) = hook::run_one("poststop", index, hook, &state) {
                let path = hook.path.display();
                self.warn(format!("error running poststop hook #{index}: {path}: {problem}"));
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Error> {
        match self.kill(Signal::KILL) {
            Ok(()) | Err(Error::WrongStatus { .. }) => {}
            Err(error) => return Err(error),
        }
        let Some(pidfd) = &self.pidfd else {
            return Ok(());
        };
        if !wait_exit(pidfd.as_fd(), PATIENCE)? {
            return Err(Error::io(
                format!("wait for the end of container {}", self.id),
                std::io::ErrorKind::TimedOut,
            ));
        }
        reap(pidfd.as_fd())
    }

    pub(crate) fn warn(&self, warning: String) {
        let mut warnings = self
            .warnings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        warnings.push(warning);
    }
}
