//! What people type and see: `wharf` as a program, against a daemon of its own.
//!
//! Effects are looked at from inside the container or at the kernel's own files, not in what the daemon says of itself.

mod crash;
mod instance;
mod lifecycle;
mod options;
mod start;
mod streams;
mod terminal;
