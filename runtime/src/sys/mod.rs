//! The system calls, and the only `unsafe` code of the crate.
//!
//! Every function is one system call (or a fixed short sequence that belongs together). Those of the child half allocate
//! nothing, take no lock, and answer the kernel's [`Errno`]: all but `bpf` and `signal`, which only parents
//! call. Paths are C strings that the caller laid out before.
//!
//! What is not here: retries, fallbacks, policy.
#![allow(unsafe_code)]

pub(crate) mod bpf;
mod call;
pub(crate) mod credentials;
#[cfg(any(early, all(test, target_arch = "x86_64")))]
pub(crate) mod entry;
mod errno;
pub(crate) mod fd;
pub(crate) mod fs;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod strings;
pub(crate) mod terminal;

pub(crate) use call::raw;
pub use errno::Errno;
pub(crate) use fd::Fd;
