//! The OCI runtime: a bundle becomes a running container.
//!
//! Library first; `wharf-runtime` is a thin command line over it, a drop-in for runc. No async, no logging, no
//! daemon.
//!
//! ```text
//! config.json → spec → plan → parent half │ child half → execve
//! ```
//!
//! The specification is compiled to a plan: every path a C string, every flag resolved, the system call filter already BPF.
//! The child half performs the plan between `clone3` and `execve` with raw system calls on memory that was
//! prepared before.
//!
//! # One container's way
//!
//! `create`: load and check the configuration, compile it, take the name ([`Runtime::create`]), make the control groups and the
//! start gate, clone. The child half enters its v1 control groups (it is born in the v2 one); where there are some it makes its
//! network namespace and the first of its mounts, those of new and empty file systems, while the parent makes them, and is then
//! handed their entrances. Otherwise it waits only where the parent
//! must act on it from outside: for id maps, a systemd unit, network devices, hooks before the change of root, sources of mounts
//! that it may not open itself, whoever listens to its filter, and last for the filter, whose profile is looked into meanwhile.
//! Then it builds the container
//! around itself and waits in `accept` at the gate. [`Container::start`], in whatever process, connects; the connection ends with
//! `execve`, or carries what failed. Where [`CreateOptions::start_follows`] the gate may be open before the child half comes to it.
//! [`Container::exec`] is the same child half, which joins instead of building.
//!
//! `checkpoint` and `restore` ([`checkpoint`]) leave the work to the host's criu, and compare what it made with the configuration
//! before it runs.
//!
//! A pid namespace can only be entered by being born in it: the clone then happens on a thread that lives for nothing else,
//! which is in that namespace for its children; no thread of the caller's ever is. A user namespace that exists can be
//! joined by no thread of a program with many, and owns what is made new in it: an usher, a process that is made for nothing
//! else, joins it, makes the container's process beside itself, hands its pidfd to the caller, and ends.
//! So is a process made that is executed in a container with a pid namespace: from its birth on it is seen there, and it is
//! born with nothing of the host's, no root and no descriptor, that whoever may trace it could walk through.
//!
//! # Users without privileges
//!
//! They need a user namespace, whose maps they write themselves if they map only themselves, and ask `newuidmap` and
//! `newgidmap` to write otherwise. They do without control groups that they may not make, unless a limit or a path is
//! asked for. What they create shows itself while it waits at the gate, or they could not enter it. Root of a user
//! namespace is root here, but for what that namespace cannot give: device rules, and groups where it forbids them.
//!
//! # From a program
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use wharf_runtime::{ContainerId, CreateOptions, Runtime, Signal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // First thing in `main`: what a container executes must not lead back to this program's file.
//! wharf_runtime::host_binary::protect()?;
//! let runtime = Runtime::new("/run/my-program");
//! let container = runtime.create(CreateOptions::new(ContainerId::new("box")?, "/bundles/box"))?;
//! container.start()?;
//! // A descriptor that polls as readable when the first process ends; reaping it is the caller's part.
//! if let Some(pidfd) = container.pidfd() {
//!     println!("{} runs: {:?}", container.id(), pidfd.as_fd());
//! }
//! container.kill(Signal::TERM)?;
//! container.delete(true)?;
//! # Ok(())
//! # }
//! ```
//!
//! Another process finds the container by its name, and needs nothing but the state root:
//!
//! ```
//! use wharf_runtime::{ContainerId, ErrorKind, Runtime};
//!
//! let runtime = Runtime::new("/run/nobody-has-this");
//! assert!(runtime.ids()?.is_empty());
//! let missing = runtime.load(&ContainerId::new("box")?).unwrap_err();
//! assert_eq!(missing.kind(), ErrorKind::NotFound);
//! assert_eq!(missing.to_string(), "container box does not exist");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The library asks little of the program around it: it may have threads, other children, its standard streams closed and
//! `SIGCHLD` ignored (then the kernel reaps the container's process, and its exit status is nobody's). What the steps are can
//! be heard by [`trace::listen`].
//!
//! # Invariants
//!
//! - One child process (beside the usher, where there is one), one `execve`: no stage that executes this program again inside.
//! - Between `clone3` and `execve` nothing allocates, locks, logs or unwinds. So a container can be created from a
//!   program with many threads, whatever they hold at that moment.
//! - The calling thread's namespaces, credentials, working directory and signal mask are what they were before.
//! - `unsafe` is in `sys` only, and `init` builds on its wrappers.
//! - Paths in a root file system are opened beneath it with `openat2`; mounts are made detached and attached to
//!   verified descriptors.
//! - A failing step ends the operation, names itself (`mount proc on /proc: EPERM`), and leaves nothing behind.
//! - Nothing here knows images, gRPC, tokio or Docker.

mod caller;
pub mod cgroup;
pub mod checkpoint;
mod container;
mod create;
mod delete;
mod error;
mod exec;
pub mod features;
pub mod foreground;
#[cfg(test)]
mod fuzzed;
mod handover;
mod hook;
pub mod host_binary;
mod id;
pub mod id_mapped;
mod init;
pub mod intel_rdt;
mod kernel;
mod kill;
mod lookup;
pub mod lsm;
mod mountinfo;
mod net_device;
mod notify;
mod pidfd_socket;
mod place;
pub mod plan;
mod process;
mod procfs;
mod record;
mod resources;
mod rootfs;
mod search_path;
pub mod seccomp;
mod source;
pub mod spec;
mod start;
mod state;
mod stdio;
mod sys;
mod terminal;
mod timestamp;
pub mod trace;
mod update;
mod user_namespace;
pub mod words;

pub use container::{Container, Runtime};
pub use create::CreateOptions;
pub use error::{Error, ErrorKind};
pub use exec::{ExecOptions, Process};
pub use id::{ContainerId, InvalidId};
pub use kill::{InvalidSignal, Signal};
pub use notify::Notifications;
pub use state::{State, Status};
pub use stdio::Stdio;
pub use sys::Errno;
pub use timestamp::Timestamp;
pub use user_namespace::in_user_namespace;
