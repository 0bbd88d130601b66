//! A container's mounts while they are made: by a thread of their own, as most of what precedes a container does not need them.
//!
//! An overlay takes a quarter of a millisecond, about as long as it takes to read the configuration and to plan. The thread has
//! a working directory of its own. Who gives a [`Mounting`] up waits for it all the same: what was mounted can then be undone.

use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use wharf_proto::containerd::types::Mount;

use crate::rootfs::mount_all;
use crate::status::{Code, Refusal};
use crate::sys;

/// The thread's; it needs paths and options, mostly.
const STACK: usize = 128 << 10;

/// Mounts that are being made, or none.
#[derive(Debug, Default)]
pub struct Mounting(Option<JoinHandle<Result<(), Refusal>>>);

impl Mounting {
    /// Begins to make `mounts` at `rootfs`.
    ///
    /// # Errors
    ///
    /// There is no thread for it. Nothing is mounted.
    pub fn begin(mounts: Vec<Mount>, rootfs: PathBuf) -> io::Result<Mounting> {
        if mounts.is_empty() {
            return Ok(Mounting(None));
        }
        let thread = thread::Builder::new().name("mount".into()).stack_size(STACK);
        let mount = move || {
            sys::leave_directory().map_err(|error| Refusal::system("take a working directory", error))?;
            mount_all(&mounts, &rootfs)
        };
        thread.spawn(mount).map(|thread| Mounting(Some(thread)))
    }

    /// Waits until they are made.
    ///
    /// # Errors
    ///
    /// One is refused or fails; none is left then.
    pub fn wait(mut self) -> Result<(), Refusal> {
        self.join()
    }

    fn join(&mut self) -> Result<(), Refusal> {
        let Some(thread) = self.0.take() else {
            return Ok(());
        };
        let panicked = |_| Err(Refusal::new(Code::Unknown, "the mounting thread panicked"));
        thread.join().unwrap_or_else(panicked)
    }
}

impl Drop for Mounting {
    fn drop(&mut self) {
        // Whoever gives it up has another failure to tell of, and undoes the mounts.
        drop(self.join());
    }
}
