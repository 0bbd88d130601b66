//! The engine: what people use. Containers, images and the Docker REST API on top of containerd's gRPC API.
//!
//! ```text
//! docker, wharf, SDKs ── REST ──► api::server ──► container::*  ──┐
//!                                      │          image::*      ──┤
//!                                      │                          ▼
//!                                      └─ hijacked streams   supervisor (gRPC on a unix socket, or in process)
//! ```
//!
//! - [`api`]: Docker's JSON, the framing of its streams, the server and the client. Nothing else derives those shapes.
//! - [`container`]: image and request merged into an OCI spec; create, start, exec, stop, remove; output and logs.
//! - [`image`]: names, what an image says, pull, import.
//! - [`supervisor`]: the one door to containerd's API, and the embedding of our own.
//! - [`daemon`]: directories, lock, sockets, the order of coming up. [`cli`]: the command line, a client of [`api`].
//! - [`rootfs`]: the few files that are read in a root filesystem that nobody can trust.
//!
//! # The way of `run --rm … true`
//!
//! ```text
//! cli      grammar of one verb ─► create ─► attach, wait (side by side) ─► start ─► output to its end, then the exit code
//! engine            │                                          │
//!                   ├ name, snapshot, files, row, record       ├ root file system, FIFOs ─► task created, started
//!                   └ (in memory and on tmpfs)                 └ waits for the exit ─► task, row, files removed ─► "removed"
//! supervisor   a function call away: no socket               shim forked from the fork server, connected from birth
//! shim                                                       mounts, streams, runtime library; exit record; delete
//! ```
//!
//! Between the command and its end nothing is executed but the container's own program, and nothing waits for a disk: a
//! container that is removed when it ends dies with the boot, so its record and files are on the tmpfs of the state
//! directory, its row is committed lazily, and its log is made on disk when there is something to log. For a container that
//! lasts, the row is flushed before `create` is answered; the rest is the same.
//!
//! Two things differ from Docker until networks and volumes are there: a container that asks for no network gets one of
//! its own with loopback only (`none`), and the paths that an image declares as volumes are kept in the container's own
//! writable layer. What asks for more than that is refused by name.
//!
//! # Invariants
//!
//! - A container that was started does not depend on the daemon's life. The shim writes its log, and its exit is
//!   asked for when the daemon comes back.
//! - A container's record is before or after each change, never between, and outlives `kill -9`.
//! - Image data is never control input: an image fills only the fields of `container::config::ImageDefaults`, and the
//!   OCI spec is made from those and the request alone.
//! - A request member that means something we do not do is refused by its name, never ignored.
//! - Every step of create and start has an undo, run in reverse; the first error is the one reported.
//!
//! Deliberately absent: knowledge of overlayfs, of `clone`, and of shim sockets.

pub mod api;
pub mod cli;
pub mod container;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod event;
pub mod id;
pub mod image;
pub mod readiness;
pub mod rootfs;
pub mod supervisor;
pub mod undo;
