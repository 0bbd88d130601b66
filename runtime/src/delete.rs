//! Removing a container and everything that belongs to it.

use crate::{Container, Error};

impl Container {
    /// Removes the container: its control group and its state. With `force` a live one is killed first.
    ///
    /// Blocks until the processes are gone, for a bounded time. The first process is reaped if it is a child of
    /// the caller and `force` killed it.
    ///
    /// # Errors
    ///
    /// The container is not stopped and `force` is off, or a step fails.
    pub fn delete(&self, force: bool) -> Result<(), Error> {
        Err(Error::Unsupported(format!("deleting {} ({force})", self.id())))
    }
}
