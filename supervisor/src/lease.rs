//! Leases: they keep resources while an operation is under way.

use crate::{
    daemon::Daemon,
    error::{Error, Result},
    identifier::Labels,
    namespace::Scope,
};

/// A lease as an operation of ours holds it: deleted by [`Held::release`]; forgotten on a crash, it expires.
pub struct Held {
    /// The scope under the lease: what is made in it is kept.
    pub scope: Scope,
}

impl Held {
    /// Creates a lease with a fresh id that expires a day from now. Blocks, durable.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn new(_daemon: &Daemon, scope: &Scope, _labels: Labels) -> Result<Self> {
        Err(Error::unimplemented(format!("lease in {}", scope.namespace)))
    }

    /// Deletes the lease; what only it kept is garbage now. Blocks.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn release(self, _daemon: &Daemon) -> Result<()> {
        Err(Error::unimplemented("lease release"))
    }
}
