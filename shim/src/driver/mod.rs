//! What creates and changes containers: one trait, two implementations.
//!
//! [`library::Library`] calls the runtime in process; [`binary::Binary`] runs a runc-compatible program. An operation
//! answers a [`Step`]: the library's is done when it returns, the program's is a [`Job`] that the main loop finishes
//! when the program was reaped. A driver serves one container and does one operation at a time.

mod beside;
pub mod binary;
mod console;
pub mod library;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Pid, WaitStatus};
use serde::{Deserialize, Serialize};
use wharf_proto::containerd::runc::v1::Options;
use wharf_runtime::cgroup::{Cgroup, Layout};
use wharf_runtime::checkpoint::ManageCgroups;

use crate::status::Refusal;
use crate::stdio::ChildStdio;
use binary::Binary;
use library::Library;

/// A finished operation.
#[derive(Debug)]
pub enum Outcome {
    /// A process was made.
    Process {
        /// Its pid; a child of this shim, or adopted by it.
        pid: i32,
        /// The master of its terminal, when it has one.
        console: Option<OwnedFd>,
    },
    /// The processes of the container.
    Pids(Vec<i32>),
    /// Done.
    Done,
}

/// An operation's answer.
pub enum Step {
    /// It is over.
    Ready(Result<Outcome, Refusal>),
    /// A program is at it.
    Running(Job),
}

/// A program at work for an operation.
pub struct Job {
    /// Its process.
    pub pid: Pid,
    /// Reads the result, given how the program ended.
    pub finish: Box<dyn FnOnce(WaitStatus) -> Result<Outcome, Refusal>>,
}

/// How one container is made and changed.
pub trait Driver {
    /// Creates the container: its first process waits at the start gate.
    fn create(&mut self, stdio: ChildStdio) -> Step;
    /// Makes the container again from what criu saved: its processes are frozen until the start.
    fn restore(&mut self, saved: &Saved, stdio: ChildStdio) -> Step;
    /// Opens the start gate.
    fn start(&mut self) -> Step;
    /// Executes the OCI `process` (JSON) in the container.
    fn exec(&mut self, exec_id: &str, process: &[u8], stdio: ChildStdio) -> Step;
    /// Signals the first process, or all of the container.
    fn kill(&mut self, signal: i32, all: bool) -> Step;
    /// Freezes the container.
    fn pause(&mut self) -> Step;
    /// Thaws it.
    fn resume(&mut self) -> Step;
    /// Changes its limits to the OCI `resources` (JSON), those that are present.
    fn update(&mut self, resources: &[u8]) -> Step;
    /// Saves its processes with criu.
    fn checkpoint(&mut self, dump: &Dump) -> Step;
    /// Asks for its processes.
    fn pids(&mut self) -> Step;
    /// Removes what is left of it; `force` kills what still runs.
    fn delete(&mut self, force: bool) -> Step;
    /// The container's first process is `pid`: finds the control group.
    fn created(&mut self, pid: i32);
    /// Its control group, if it is known.
    fn cgroup(&self) -> Option<&Cgroup>;
}

/// How a container's processes are to be saved.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Where criu's images go.
    pub images: PathBuf,
    /// Where criu's log goes.
    pub work: PathBuf,
    /// An earlier checkpoint.
    pub parent: Option<PathBuf>,
    /// The processes end.
    pub exit: bool,
    /// With established TCP connections.
    pub open_tcp: bool,
    /// With connections to unix sockets outside.
    pub external_unix_sockets: bool,
    /// With a terminal of somebody else's.
    pub terminal: bool,
    /// With file locks.
    pub file_locks: bool,
    /// How control groups are treated.
    pub cgroups: ManageCgroups,
    /// The same as the caller said it.
    pub cgroups_word: String,
}

/// Where a container's processes were saved.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// The directory of criu's images.
    pub images: PathBuf,
    /// Where criu's log goes.
    pub work: PathBuf,
}

/// How a container's driver was chosen; written to the bundle for the `delete` command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The program, when it is not the library.
    #[serde(default)]
    pub binary: String,
    /// The state root that the options name.
    #[serde(default)]
    pub root: String,
    /// No `pivot_root`.
    #[serde(default)]
    pub no_pivot: bool,
    /// No new session keyring.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// Control groups by systemd.
    #[serde(default)]
    pub systemd_cgroup: bool,
}

/// The settings' file in the bundle.
const SETTINGS: &str = "wharf-shim.json";

impl Settings {
    /// The settings in a request's options.
    pub fn from_options(options: &Options) -> Settings {
        Settings {
            binary: options.binary_name.clone(),
            root: options.root.clone(),
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            systemd_cgroup: options.systemd_cgroup,
        }
    }

    /// Writes the settings to the bundle.
    ///
    /// # Errors
    ///
    /// The file could not be written.
    pub fn save(&self, bundle: &Path) -> std::io::Result<()> {
        let temporary = bundle.join(".wharf-shim.json.tmp");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(temporary, bundle.join(SETTINGS))
    }

    /// The settings of the bundle's container; `None` when none was ever created there.
    pub fn load(bundle: &Path) -> Option<Settings> {
        serde_json::from_slice(&std::fs::read(bundle.join(SETTINGS)).ok()?).ok()
    }

    /// The driver for container `id` of `namespace` in `bundle`; `layout` is the host's, if it was read before.
    ///
    /// # Errors
    ///
    /// The id is none that the runtime takes.
    pub fn driver(
        &self,
        id: &str,
        namespace: &str,
        bundle: &Path,
        layout: Option<Arc<Layout>>,
    ) -> Result<Box<dyn Driver>, Refusal> {
        if self.binary.is_empty() {
            Ok(Box::new(Library::new(self, id, namespace, bundle, layout)?))
        } else {
            Ok(Box::new(Binary::new(self, id, namespace, bundle)))
        }
    }
}
