//! Starting a created container: opening its gate.

use crate::{Container, Error};

impl Container {
    /// Lets the created process execute the user's program. Blocks until it did, or failed to.
    ///
    /// # Errors
    ///
    /// The container is not `created`, a hook fails, or the program cannot be executed.
    pub fn start(&self) -> Result<(), Error> {
        Err(Error::Unsupported(format!("starting {}", self.id())))
    }
}
