//! The system calls, and the only `unsafe` code of the crate.
//!
//! Every function is one system call (or a fixed short sequence that belongs together), allocates nothing, takes no
//! lock, and answers the kernel's [`Errno`]. So all of them may be called between `clone3` and `execve` in a
//! child of a program with many threads. Paths are C strings that the caller laid out before.
//!
//! What is not here: retries, fallbacks, policy.
#![allow(unsafe_code)]

mod call;
pub(crate) mod credentials;
mod errno;
pub(crate) mod fd;
pub(crate) mod fs;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod terminal;

pub(crate) use call::raw;
pub use errno::Errno;
pub(crate) use fd::Fd;
