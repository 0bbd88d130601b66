//! The engines in use, with our runtime under them.
//!
//! dockerd and Podman go through one table of options and one life of a container; what is asserted is what the process
//! inside sees. With `WHARF_ENGINES_RUNTIME=/usr/sbin/runc` the same is asserted of another runtime, to tell what the
//! machine cannot do from what ours cannot.

mod containerd;
mod crowd;
mod docker;
mod docker_over;
mod engine;
mod life;
mod options;
mod podman;
