//! The system calls, and the only `unsafe` code of the crate.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod signal;
