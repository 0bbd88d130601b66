//! What creates and changes containers: one trait, two implementations.
//!
//! [`library::Library`] calls the runtime in process; [`binary::Binary`] runs a runc-compatible program. An operation
//! answers a [`Step`]: the library's is done when it returns, the program's is a [`Job`] that the main loop finishes
//! when the program was reaped. A driver serves one container and does one operation at a time.

pub mod binary;
mod console;
pub mod library;

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, WaitStatus};
use serde::{Deserialize, Serialize};
use wharf_proto::containerd::runc::v1::Options;
use wharf_runtime::cgroup::Cgroup;

use crate::status::{Code, Refusal};
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
    /// Asks for its processes.
    fn pids(&mut self) -> Step;
    /// Removes what is left of it; `force` kills what still runs.
    fn delete(&mut self, force: bool) -> Step;
    /// The container's first process is `pid`: finds the control group.
    fn created(&mut self, pid: i32);
    /// Its control group, if it is known.
    fn cgroup(&self) -> Option<&Cgroup>;
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
    ///
    /// # Errors
    ///
    /// An option that is not there yet is set; it is named.
    pub fn from_options(options: &Options) -> Result<Settings, Refusal> {
        for (name, value) in [
            ("CriuImagePath", &options.criu_image_path),
            ("CriuWorkPath", &options.criu_work_path),
        ] {
            if !value.is_empty() {
                let message = format!("runtime option {name} is not supported yet");
                return Err(Refusal::new(Code::Unimplemented, message));
            }
        }
        Ok(Settings {
            binary: options.binary_name.clone(),
            root: options.root.clone(),
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            systemd_cgroup: options.systemd_cgroup,
        })
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

    /// The driver for container `id` of `namespace` in `bundle`.
    ///
    /// # Errors
    ///
    /// The id is none that the runtime takes.
    pub fn driver(&self, id: &str, namespace: &str, bundle: &Path) -> Result<Box<dyn Driver>, Refusal> {
        if self.binary.is_empty() {
            Ok(Box::new(Library::new(self, id, namespace, bundle)?))
        } else {
            Ok(Box::new(Binary::new(self, id, namespace, bundle)))
        }
    }
}
