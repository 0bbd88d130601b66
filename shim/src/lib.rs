//! `containerd-shim-wharf-v2`: the process that stands between a daemon and a container's processes.
//!
//! ```text
//! daemon ──ttrpc──▶ serve ─▶ tasks ─▶ driver ─▶ wharf-runtime, in process
//!    ▲                │  │              └────▶ a runc-compatible binary
//!    └──── events ────┘  └─▶ stdio: FIFOs, files, the container log, a terminal
//! ```
//!
//! One thread, one epoll loop ([`serve`]); everything that waits is a descriptor, a deadline or a SIGCHLD. The protocol is
//! containerd's shim v2: the command line is in [`flags`] and [`start`], the methods are in [`tasks`] and [`sandbox`].
//!
//! A shim comes into being in one of two ways, and serves in the same: containerd executes `start`, which executes the
//! serving process; a daemon of ours keeps a [`fork_server`], whose child is the serving process at once.
//!
//! # Invariants
//!
//! - The container does not depend on any daemon: stdio, exit status and log live here, and events that nobody takes
//!   are dropped after a bounded number of tries, never waited for.
//! - An exit is recorded durably before anybody is told of it; exits of execs are told before the exit of their
//!   container's first process.
//! - Memory is bounded: one read buffer for all streams, at most one read pending for each, bounded frames, connections,
//!   events and names.
//! - No request waits inside the loop. Two things do block it: creating and executing through the runtime library (a few
//!   milliseconds, and as long as the container's hooks run), and a logging program that becomes ready (at most 5 s). A
//!   runtime binary runs beside the loop, whose copying goes on, so output of hooks cannot dead-lock it. A hook must not
//!   call this shim and wait for the answer.
//! - What was answered is done, but for two things that nobody can want back at once: an overlay ends some milliseconds after its
//!   container, with the disk below it written, and a forked shim that has no container and no connection any more ends
//!   by itself. It gives its address up before it answers that its last container is deleted.
//! - Nobody but the user of the shim can connect, and the serving process runs from a read-only clone of its binary.
//! - Refused by name: mounts that need a helper program, root filesystems of sandboxes.

#![allow(rustdoc::private_intra_doc_links)]

mod address;
mod bootstrap;
mod clock;
mod connection;
mod delete;
mod driver;
mod exit_record;
mod flags;
mod fork_server;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzed;
mod id_map;
mod info;
mod log;
mod metrics;
mod own_cgroup;
mod publisher;
mod reactor;
mod rootfs;
mod sandbox;
mod serve;
mod start;
mod status;
mod stdio;
mod sys;
mod tasks;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use flags::{Action, Flags};

/// Runs the shim with the arguments after its name, and answers its exit code.
///
/// Blocks for as long as the asked action takes; a serving shim ends when its containers are deleted and it is shut down.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match act(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nothing can be done for a reader that is gone.
            let _ = writeln!(std::io::stderr(), "io.containerd.wharf.v2: {message}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let flags = Flags::parse(arguments).map_err(|error| error.to_string())?;
    if flags.version {
        let version = env!("CARGO_PKG_VERSION");
        return writeln!(
            std::io::stdout(),
            "containerd-shim-wharf-v2:\n  Version:  {version}\n"
        )
        .map_err(|error| error.to_string());
    }
    if flags.info {
        return info::info().map_err(|error| error.to_string());
    }
    match flags.action {
        Action::Start => start::start(&flags).map_err(|error| error.to_string()),
        Action::Delete => delete::delete(&flags).map_err(|error| error.to_string()),
        Action::Serve => serve::serve(&flags).map_err(|error| error.to_string()),
        Action::ForkServer => fork_server::fork_server(),
        Action::None => Err("no action: expected start or delete".to_owned()),
    }
}
