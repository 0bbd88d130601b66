//! The OCI runtime: a bundle becomes a running container.

pub mod cgroup;
pub mod seccomp;
pub mod spec;
