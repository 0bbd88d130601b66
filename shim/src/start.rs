//! `start`: brings up the serving process for a container, or finds the one that serves its group.
//!
//! Steps, each undone when a later one fails: the group from the bundle's annotations → the socket → the serving process,
//! which gets the socket as its descriptor 0 → the files `address` and `shim.pid` in the bundle → the answer. Prints
//! nothing but the answer: containerd 1.6 reads standard output and standard error together. Shims that are forked take
//! the same steps in one process, see [`crate::fork_server`].

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use prost::Message;
use rustix::process::{Pid, Signal, getppid, kill_process};
use serde::Deserialize;
use wharf_proto::containerd::task::v2::{ConnectRequest, ConnectResponse};
use wharf_proto::ttrpc::{Frame, Kind, Request, Response};

use crate::address::{self, AddressError, Bound};
use crate::bootstrap::{Bootstrap, BootstrapError, answer, newest_answer, read_input};
use crate::flags::Flags;
use crate::own_cgroup::{self, OwnCgroupError};
use crate::serve::READY;
use crate::sys;

/// Names the directory for sockets, before what the daemon says.
pub const SOCKET_DIRECTORY_VARIABLE: &str = "WHARF_SHIM_SOCKET_DIR";

/// The annotations that put containers into one shim, the strongest first.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// How long a shim of the group may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The largest `config.json` that is read.
const LARGEST_CONFIG: u64 = 16 << 20;

/// Why no shim was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag is missing.
    #[error("shim {0} cannot be empty")]
    Missing(&'static str),
    /// Standard input was refused.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// There is no socket.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The shim is not in the control group that was asked for.
    #[error(transparent)]
    OwnCgroup(OwnCgroupError),
    /// The bundle's configuration was refused.
    #[error("config.json: {0}")]
    Config(String),
    /// A step failed.
    #[error("{operation}: {source}")]
    System {
        /// The step and its object.
        operation: String,
        /// Why.
        source: std::io::Error,
    },
}

fn system(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let operation = operation.into();
    move |source| StartError::System { operation, source }
}

/// Performs `start` in the current directory, the bundle. Blocks for a few milliseconds.
///
/// # Errors
///
/// Nothing is left when any step fails.
pub fn start(flags: &Flags) -> Result<(), StartError> {
    for (name, value) in [("namespace", &flags.namespace), ("id", &flags.id)] {
        if value.is_empty() {
            return Err(StartError::Missing(name));
        }
    }
    let bootstrap = Bootstrap::parse(&read_input(std::io::stdin())?, flags)?;
    let (listener, path) = match find_place(flags, bootstrap.socket_directory.as_deref())? {
        Place::Serving { address, socket } => {
            return announce(&address, serving_pid(&socket, &flags.id)?, &bootstrap);
        }
        Place::New { listener, socket } => (listener, socket),
    };
    let address = address_of(&path);
    let pid = match serve_in_background(flags, &bootstrap, listener.into(), &path) {
        Ok(pid) => pid,
        Err(error) => {
            address::remove(&path)?;
            return Err(error);
        }
    };
    let own = bootstrap
        .options
        .as_ref()
        .map_or("", |options| options.shim_cgroup.as_str());
    let joined = match own {
        "" => Ok(()),
        group => own_cgroup::join(group, pid).map_err(StartError::OwnCgroup),
    };
    joined
        .and_then(|()| announce(&address, pid, &bootstrap))
        .inspect_err(|_| {
            // It removes its socket; the only failure is that it is gone.
            let _ = kill_process(pid, Signal::TERM);
        })
}

/// The socket of a container's group.
pub enum Place {
    /// Nobody served there.
    New {
        /// Listens there now.
        listener: UnixListener,
        /// Its path.
        socket: PathBuf,
    },
    /// The group's shim serves there.
    Serving {
        /// As an address.
        address: String,
        /// Its path.
        socket: PathBuf,
    },
}

/// The address of the socket at `path`.
pub fn address_of(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// Takes the socket for the bundle in the current directory, in the directory that the environment names, or
/// `directory`, or containerd's.
///
/// # Errors
///
/// The configuration or the socket's directory is refused.
pub fn find_place(flags: &Flags, directory: Option<&Path>) -> Result<Place, StartError> {
    let group = group(Path::new("config.json"))?.unwrap_or_else(|| flags.id.clone());
    let named = std::env::var_os(SOCKET_DIRECTORY_VARIABLE).filter(|directory| !directory.is_empty());
    let directory = match &named {
        Some(directory) => Path::new(directory),
        None => directory.unwrap_or(Path::new(address::DEFAULT_DIRECTORY)),
    };
    let socket = address::socket_path(directory, &flags.address, &flags.namespace, &group);
    Ok(match address::bind(&socket)? {
        Bound::Serving => Place::Serving {
            address: address_of(&socket),
            socket,
        },
        Bound::New(listener) => Place::New { listener, socket },
    })
}

/// Writes down in the bundle where its shim serves, and which process it is.
///
/// # Errors
///
/// A file cannot be written.
pub fn note(address: &str, pid: Pid) -> Result<(), StartError> {
    write_file("address", address.as_bytes())?;
    write_file("shim.pid", pid.as_raw_nonzero().to_string().as_bytes())
}

/// Gives the process a core-scheduling group of its own if the daemon asks for that.
///
/// # Errors
///
/// The kernel cannot.
pub fn separate() -> Result<(), StartError> {
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        sys::create_core_scheduling_group().map_err(system("enable core scheduling"))?;
    }
    Ok(())
}

fn announce(address: &str, pid: Pid, bootstrap: &Bootstrap) -> Result<(), StartError> {
    note(address, pid)?;
    let answer = match bootstrap.is_message {
        true => newest_answer(address),
        false => answer(address, std::env::var("MAX_SHIM_VERSION").ok().as_deref()),
    };
    let mut output = std::io::stdout();
    output
        .write_all(answer.as_bytes())
        .and_then(|()| output.flush())
        .map_err(system("print the address"))
}

/// Asks the shim that serves at `socket` for its process. Blocks until it answers, at most [`ANSWER`].
fn serving_pid(socket: &Path, id: &str) -> Result<Pid, StartError> {
    let ask = || -> std::io::Result<Pid> {
        let mut stream = address::connected(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let request = Request {
            service: "containerd.task.v2.Task".to_owned(),
            method: "Connect".to_owned(),
            payload: ConnectRequest { id: id.to_owned() }.encode_to_vec(),
            ..Request::default()
        };
        let mut bytes = Vec::new();
        Frame::new(Kind::Request, 1, &request)
            .encode(&mut bytes)
            .map_err(std::io::Error::other)?;
        stream.write_all(&bytes)?;
        bytes.clear();
        loop {
            let mut buffer = [0; 512];
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&buffer[..count]);
            if let Some(frame) = Frame::decode(&mut bytes).map_err(std::io::Error::other)? {
                let response = Response::decode(frame.payload.as_slice())?;
                let answer = ConnectResponse::decode(response.payload.as_slice())?;
                return Pid::from_raw(answer.shim_pid as i32).ok_or(std::io::ErrorKind::InvalidData.into());
            }
        }
    };
    ask().map_err(system("ask the shim of the group for its process"))
}

/// A file of the bundle, whole or not there.
fn write_file(name: &str, content: &[u8]) -> Result<(), StartError> {
    let temporary = format!(".{name}.tmp");
    fs::write(&temporary, content)
        .and_then(|()| fs::rename(&temporary, name))
        .map_err(system(format!("write {name}")))
}

/// The group that the container belongs to, if it names one.
fn group(config: &Path) -> Result<Option<String>, StartError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Option<std::collections::BTreeMap<String, String>>,
    }
    let length = fs::metadata(config).map_err(system("open config.json"))?.len();
    if length > LARGEST_CONFIG {
        return Err(StartError::Config(format!("larger than {LARGEST_CONFIG} bytes")));
    }
    let bytes = fs::read(config).map_err(system("read config.json"))?;
    // Most configurations name none, and whoever creates the container looks at them closely.
    let mentions = |word: &str| memmem(&bytes, word.as_bytes());
    if !mentions("\\u") && !GROUPS.iter().any(|group| mentions(group)) {
        return Ok(None);
    }
    let config: Config =
        serde_json::from_slice(&bytes).map_err(|error| StartError::Config(error.to_string()))?;
    let annotations = config.annotations.unwrap_or_default();
    Ok(GROUPS.iter().find_map(|group| annotations.get(*group)).cloned())
}

/// Whether `bytes` contain `word`.
fn memmem(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn serve_in_background(
    flags: &Flags,
    bootstrap: &Bootstrap,
    listener: OwnedFd,
    socket: &Path,
) -> Result<Pid, StartError> {
    raise_oom_score().map_err(system("set oom_score_adj"))?;
    separate()?;
    // Where the kernel cannot clone it, the serving process sees to its own protection, at the price of one more execve.
    let program = sys::read_only_self().ok();
    let mut command = Command::new(match &program {
        Some(program) => format!("/proc/self/fd/{}", program.as_raw_fd()),
        None => "/proc/self/exe".to_owned(),
    });
    command
        .arg0("containerd-shim-wharf-v2")
        .args([
            "-namespace",
            &flags.namespace,
            "-id",
            &flags.id,
            "-address",
            &flags.address,
        ])
        .stdin(Stdio::from(listener))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if flags.debug || bootstrap.debug {
        command.arg("-debug");
    }
    command.arg("serve").env(crate::serve::SOCKET_VARIABLE, socket);
    if let Some(address) = &bootstrap.ttrpc_address {
        command.env("TTRPC_ADDRESS", address);
    }
    let mut child = command.spawn().map_err(system("start the serving process"))?;
    let mut word = String::new();
    if let Some(mut output) = child.stdout.take() {
        // It closes its end when it is ready, or fails.
        output
            .read_to_string(&mut word)
            .map_err(system("wait for the serving process"))?;
    }
    if word != READY {
        return Err(system("start the serving process")(std::io::Error::other(word)));
    }
    Ok(Pid::from_child(&child))
}

/// The shim is to be killed before the daemon, and after the containers: the daemon's score and one.
///
/// # Errors
///
/// A score cannot be read or written.
pub fn raise_oom_score() -> std::io::Result<()> {
    let Some(parent) = getppid() else { return Ok(()) };
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", parent.as_raw_nonzero()))?;
    let score: i32 = score.trim().parse().map_err(std::io::Error::other)?;
    let ours: i32 = fs::read_to_string("/proc/self/oom_score_adj")?
        .trim()
        .parse()
        .map_err(std::io::Error::other)?;
    match fs::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string()) {
        // Without CAP_SYS_RESOURCE a score can only be raised; then ours is high enough already.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && ours > score => Ok(()),
        outcome => outcome,
    }
}
