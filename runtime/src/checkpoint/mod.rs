//! Checkpoint and restore: a container's processes are written to files, and made again from them, by [criu].
//!
//! ```text
//! checkpoint: criu is told which process, and what of the container belongs to the host → images
//! restore:    bundle → spec → plan → control groups ─┐
//!             images → checked ──────────────────────┴→ criu makes the processes → they are compared with the plan → they run
//! ```
//!
//! criu is a program of the host's, executed once for each request and asked over a packet socket (`criu swrk`); it stops at set
//! points and waits until it is told to go on. Without it, or with one that is too old, there is a clear refusal. The notices that
//! mean something here: hooks are run when the namespaces stand, the terminal is handed over, the first process is recorded, and it
//! is looked at before it runs.
//!
//! # Trust
//!
//! criu makes what the images say, as root: files that are open, mounts, memory, credentials. A checkpoint from somebody else is
//! like a program of theirs that is run as root. What is prevented is what nobody asked for: links and pipes among the
//! images, which criu would follow as root, and processes that have more than the configuration gives. It decides: control groups,
//! namespaces, capabilities, `noNewPrivileges` and the system call filter of the first process are compared before anything in
//! the container runs, and what differs is killed.
//!
//! `org.criu.config` is an annotation that names a configuration file of criu's, whose settings win; without it that is
//! `/etc/criu/runc.conf`, and with an empty one there is none.
//!
//! # From a program
//!
//! ```no_run
//! use wharf_runtime::checkpoint::{CheckpointOptions, RestoreOptions, Settings};
//! use wharf_runtime::{ContainerId, Runtime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::new("/run/my-program");
//! let id = ContainerId::new("box")?;
//! let container = runtime.load(&id)?;
//! container.checkpoint(CheckpointOptions {
//!     settings: Settings { images: "/var/lib/box/checkpoint".into(), ..Settings::default() },
//!     ..CheckpointOptions::default()
//! })?;
//! container.delete(false)?;
//! let container = runtime.restore(RestoreOptions::new(id, "/bundles/box", "/var/lib/box/checkpoint"))?;
//! println!("it goes on as {:?}", container.init_pid());
//! # Ok(())
//! # }
//! ```
//!
//! [criu]: https://criu.org

mod dump;
mod error;
mod images;
mod message;
mod options;
mod place;
mod restore;
mod service;
mod verify;
mod wire;

pub use error::Error;
pub use options::{CheckpointOptions, ManageCgroups, PageServer, RestoreOptions, Settings, UnknownMode};

use std::collections::BTreeMap;

/// Before it criu cannot be asked for its version.
const OLDEST: i32 = 30_000;
/// Since then a network namespace may be somebody else's.
const EXTERNAL_NET: i32 = 31_100;
/// Since then it freezes v2 groups.
const FREEZES_V2: i32 = 31_400;
/// Since then a pid namespace may be somebody else's, and there is a notice when the lazy pages can be had.
const EXTERNAL_PID: i32 = 31_500;
/// Since then a security profile can be replaced.
const LSM: i32 = 31_600;

/// The file whose settings win over those of a request.
fn configuration(annotations: &BTreeMap<String, String>) -> Option<&str> {
    match annotations.get("org.criu.config").map(String::as_str) {
        None => Some("/etc/criu/runc.conf"),
        Some("") => None,
        Some(path) => Some(path),
    }
}

/// What a namespace of somebody else's is called in a checkpoint.
fn namespace_key(kind: u64) -> Option<(&'static str, i32)> {
    match kind as libc::c_int {
        libc::CLONE_NEWNET => Some(("extRootNetNS", EXTERNAL_NET)),
        libc::CLONE_NEWPID => Some(("extRootPidNS", EXTERNAL_PID)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_names_criu_s_configuration() {
        let of = |value: Option<&str>| {
            let annotations: BTreeMap<String, String> = value
                .map(|value| ("org.criu.config".to_owned(), value.to_owned()))
                .into_iter()
                .collect();
            configuration(&annotations).map(str::to_owned)
        };
        assert_eq!(of(None).as_deref(), Some("/etc/criu/runc.conf"));
        assert_eq!(of(Some("/x.conf")).as_deref(), Some("/x.conf"));
        assert_eq!(of(Some("")), None);
    }
}
