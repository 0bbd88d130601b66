//! `delete`: removes what a container left behind when its shim is gone, and says how it ended.
//!
//! Runs in a process of its own, after normal deletes too, when there is nothing left to do. Steps: the container by its
//! driver, by force → its mounts → a socket that nobody serves → the answer. The exit is the recorded one, when there is a
//! record; otherwise the container is said to have been killed now, which is what this command does to it.

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use prost::Message;
use wharf_proto::containerd::task::v2::DeleteResponse;

use crate::driver::{Outcome, Settings, Step};
use crate::exit_record::{self, Exit};
use crate::flags::Flags;
use crate::status::{Code, Refusal};
use crate::{address, clock, rootfs};

/// Why a container is still there.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A flag is missing or wrong.
    #[error("shim {0}")]
    Flag(String),
    /// The bundle is not known.
    #[error("working directory: {0}")]
    Directory(std::io::Error),
    /// The container stays.
    #[error("{0}")]
    Container(#[from] Refusal),
    /// The mounts stay.
    #[error("unmount {}: {source}", path.display())]
    Unmount {
        /// The root file system.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The answer could not be printed.
    #[error("print the answer: {0}")]
    Print(std::io::Error),
}

/// Performs `delete`. Blocks until the container is gone.
///
/// # Errors
///
/// Something stays; a second try does what is left.
pub fn delete(flags: &Flags) -> Result<(), DeleteError> {
    if flags.namespace.is_empty() {
        return Err(DeleteError::Flag("namespace cannot be empty".to_owned()));
    }
    let mut parts = Path::new(&flags.id).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        return Err(DeleteError::Flag(format!("id {:?} is no name", flags.id)));
    }
    let bundle = bundle(flags)?;
    if let Some(settings) = Settings::load(&bundle) {
        let mut driver = settings.driver(&flags.id, &flags.namespace, &bundle, None)?;
        match finish(driver.delete(true)) {
            Err(refusal) if refusal.code != Code::NotFound => return Err(refusal.into()),
            _ => {}
        }
    }
    let rootfs = bundle.join("rootfs");
    rootfs::unmount_all(&rootfs).map_err(|source| DeleteError::Unmount { path: rootfs, source })?;
    if let Some(socket) = fs::read_to_string(bundle.join("address"))
        .ok()
        .as_deref()
        .and_then(|address| address.strip_prefix("unix://"))
        && let Err(error) = address::remove_stale(Path::new(socket))
    {
        // Standard error is the daemon's log here; the container itself is gone.
        let _ = writeln!(std::io::stderr(), "{error}");
    }
    let (pid, exit) = exit_record::read(&bundle, "").unwrap_or_else(|| {
        let pid = fs::read_to_string(bundle.join("init.pid")).ok();
        let killed = Exit {
            status: 128 + 9,
            signal: Some(9),
            at: clock::now(),
        };
        (pid.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0), killed)
    });
    let response = DeleteResponse {
        pid: pid as u32,
        exit_status: exit.status,
        exited_at: Some(exit.at),
    };
    let mut output = std::io::stdout();
    output
        .write_all(&response.encode_to_vec())
        .and_then(|()| output.flush())
        .map_err(DeleteError::Print)
}

/// The bundle: the one that the command line names, or the neighbour of the working directory with the container's name.
fn bundle(flags: &Flags) -> Result<PathBuf, DeleteError> {
    if let Some(bundle) = &flags.bundle {
        return std::path::absolute(bundle).map_err(DeleteError::Directory);
    }
    let here = std::env::current_dir().map_err(DeleteError::Directory)?;
    Ok(here.parent().unwrap_or(Path::new("/")).join(&flags.id))
}

/// Waits for a driver's program, if it runs one.
fn finish(step: Step) -> Result<Outcome, Refusal> {
    let job = match step {
        Step::Ready(outcome) => return outcome,
        Step::Running(job) => job,
    };
    loop {
        match rustix::process::waitpid(Some(job.pid), rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => return (job.finish)(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Refusal::system("wait for the runtime", error)),
        }
    }
}
