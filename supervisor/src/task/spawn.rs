//! Running the shim's executable: `start` and `delete`.
//!
//! Both are short-lived processes. `start` leaves the shim behind as a daemon and prints where it listens; `delete` cleans
//! up after a shim that is dead. Their arguments, environment and output are those of containerd's shim protocol v2.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use wharf_proto::containerd::runtime::bootstrap::v1::BootstrapResult;
use wharf_proto::containerd::task::v2::DeleteResponse;

use super::bundle::{Bootstrap, Bundle};
use crate::error::{Error, Kind, Result};
use crate::opt::Opt;

/// How long `start` may take. It forks and binds a socket: tens of milliseconds on an idle machine.
const START: Duration = Duration::from_secs(30);

/// How long `delete` may take. It kills the container and takes its cgroup and mounts down.
const DELETE: Duration = Duration::from_secs(30);

/// The most that is read of what either prints.
const MAX_OUTPUT: usize = 64 << 10;

/// What shims are told about the daemon.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The socket of the gRPC API.
    pub address: PathBuf,
    /// The socket that takes events over ttrpc.
    pub events: PathBuf,
    /// Where shims of ours make their sockets.
    pub sockets: PathBuf,
    /// Whether nobody else makes sockets there.
    pub has_own_sockets: bool,
    /// What programs clients have installed.
    pub opt: Arc<Opt>,
    /// The daemon's own executable.
    pub executable: PathBuf,
}

impl Daemon {
    /// Tells `command`, a shim's, what is the same for all shims.
    pub fn describe(&self, command: &mut Command) {
        command
            .env("GOMAXPROCS", "2")
            .env("TTRPC_ADDRESS", &self.events)
            .env("GRPC_ADDRESS", &self.address)
            .env("MAX_SHIM_VERSION", "3")
            .env("WHARF_SHIM_SOCKET_DIR", &self.sockets)
            .envs(self.opt.variables())
            // A signal to the daemon's terminal must not reach the shim.
            .process_group(0);
    }
}

/// A bundle whose shim is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// What the shim is told about the daemon.
    pub daemon: &'a Daemon,
    /// The shim's executable.
    pub shim: &'a Path,
    /// The task's namespace.
    pub namespace: &'a str,
    /// The task's id.
    pub id: &'a str,
    /// The task's bundle, and the shim's working directory.
    pub bundle: &'a Bundle,
}

impl Invocation<'_> {
    /// Runs `start` with the runtime `options` on its stdin and returns where the shim listens.
    ///
    /// # Errors
    ///
    /// `Unknown`: the executable cannot be run, fails, takes longer than 30 s, or answers with something else.
    pub async fn start(self, options: Option<&Any>) -> Result<Bootstrap> {
        let failed = |error: Error| error.context("start failed");
        let (output, stdout) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| failed(Error::io("create a pipe", error)))?;
        let stderr = stdout
            .try_clone()
            .map_err(|error| failed(Error::io("duplicate a pipe", error)))?;
        let output = pipe::Receiver::from_owned_fd(output)
            .map_err(|error| failed(Error::io("watch a pipe", error)))?;
        let mut command = self.command();
        command
            .args(["-id", self.id, "start"])
            .stdin(if options.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            // One pipe for both: shims print their error on stderr, and the address alone on stdout.
            .stdout(stdout)
            .stderr(stderr);
        let child = command.spawn();
        // The command holds the pipe's writing ends; with them open the output would never end.
        drop(command);
        let child =
            child.map_err(|error| failed(Error::io(format!("run {}", self.shim.display()), error)))?;
        let input = options.map(prost::Message::encode_to_vec);
        let finished =
            tokio::time::timeout(START, finish(child, input, output, None::<pipe::Receiver>)).await;
        let (status, output, _) = finished
            .map_err(|_| {
                failed(Error::new(
                    Kind::Unknown,
                    format!("shim did not start within {START:?}"),
                ))
            })?
            .map_err(|error| failed(Error::io(format!("run {}", self.shim.display()), error)))?;
        if !status.success() {
            let said = String::from_utf8_lossy(&output);
            return Err(failed(Error::new(
                Kind::Unknown,
                format!("{}: {status}", said.trim()),
            )));
        }
        parse(&output).map_err(failed)
    }

    /// Runs `delete`, which removes what the dead shim left of its container, and returns how the container ended.
    ///
    /// # Errors
    ///
    /// `Unknown`: the executable cannot be run, fails, takes longer than 30 s, or answers with something else.
    pub async fn delete(self) -> Result<DeleteResponse> {
        let failed = |error: Error| error.context("shim delete");
        let mut command = self.command();
        command
            .args(["-id", self.id, "-bundle"])
            .arg(self.bundle.path())
            .arg("delete")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let run = |error| failed(Error::io(format!("run {}", self.shim.display()), error));
        let mut child = command.spawn().map_err(run)?;
        let (Some(output), errors) = (child.stdout.take(), child.stderr.take()) else {
            return Err(run(io::Error::other("no pipe")));
        };
        let (status, output, errors) = tokio::time::timeout(DELETE, finish(child, None, output, errors))
            .await
            .map_err(|_| failed(Error::new(Kind::Unknown, format!("not done within {DELETE:?}"))))?
            .map_err(run)?;
        let said = String::from_utf8_lossy(&errors);
        if !status.success() {
            return Err(failed(Error::new(
                Kind::Unknown,
                format!("{}: {status}", said.trim()),
            )));
        }
        if !said.trim().is_empty() {
            tracing::warn!(
                namespace = self.namespace,
                container_id = self.id,
                said = said.trim(),
                "shim delete"
            );
        }
        DeleteResponse::decode(output.as_slice())
            .map_err(|error| failed(Error::unknown("decode its answer", error)))
    }

    fn command(self) -> Command {
        let mut command = Command::new(self.shim);
        command
            .arg("-namespace")
            .arg(self.namespace)
            .arg("-address")
            .arg(&self.daemon.address)
            .arg("-publish-binary")
            .arg(&self.daemon.executable)
            .current_dir(self.bundle.path())
            .env("NAMESPACE", self.namespace)
            .kill_on_drop(true);
        self.daemon.describe(&mut command);
        command
    }
}

/// Feeds, drains and reaps `child`.
pub(super) async fn finish(
    mut child: Child,
    input: Option<Vec<u8>>,
    output: impl AsyncRead + Unpin,
    errors: Option<impl AsyncRead + Unpin>,
) -> io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            match stdin.write_all(&input).await {
                // A shim that has no use for options need not read them.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        io::Result::Ok(())
    };
    let errors = async {
        match errors {
            Some(errors) => drain(errors).await,
            None => Ok(Vec::new()),
        }
    };
    let ((), output, errors, status) = tokio::try_join!(feed, drain(output), errors, child.wait())?;
    Ok((status, output, errors))
}

/// Reads to the end, keeping the first [`MAX_OUTPUT`] bytes.
async fn drain(mut from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut from).take(MAX_OUTPUT as u64).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// Reads what `start` printed: a plain address, JSON, or a protobuf message, as the shim's age may be.
fn parse(output: &[u8]) -> Result<Bootstrap> {
    let text = std::str::from_utf8(output).unwrap_or_default().trim();
    let bootstrap = if text.starts_with('{') {
        serde_json::from_str(text).map_err(|error| Error::unknown("parse the shim's answer", error))?
    } else if text.starts_with("unix://") {
        Bootstrap {
            version: 2,
            address: text.to_owned(),
            protocol: "ttrpc".to_owned(),
        }
    } else {
        let result = BootstrapResult::decode(output)
            .ok()
            .filter(|result| !result.address.is_empty());
        let result = result.ok_or_else(|| {
            let shown: String = String::from_utf8_lossy(output).chars().take(200).collect();
            Error::new(
                Kind::Unknown,
                format!("the shim's answer is not an address: {:?}", shown.trim()),
            )
        })?;
        Bootstrap {
            version: result.version.try_into().unwrap_or(0),
            address: result.address,
            protocol: result.protocol,
        }
    };
    if !matches!(bootstrap.version, 2 | 3) {
        return Err(Error::unimplemented(format!(
            "unsupported shim version ({})",
            bootstrap.version
        )));
    }
    if bootstrap.protocol != "ttrpc" {
        return Err(Error::unimplemented(format!(
            "shim protocol {:?} is not supported yet",
            bootstrap.protocol
        )));
    }
    Ok(bootstrap)
}

/// Where the shim of a container that belongs to no group makes its socket: as containerd's shims name it.
pub fn alone(daemon: &Daemon, namespace: &str, id: &str) -> PathBuf {
    let mut name = PathBuf::new();
    for component in daemon.address.join(namespace).join(id).components() {
        match component {
            // Shims clean the path as text.
            Component::ParentDir => drop(name.pop()),
            other => name.push(other),
        }
    }
    let digest = crate::digest::Digest::of(name.as_os_str().as_encoded_bytes());
    daemon.sockets.join(digest.hex())
}

/// The socket behind an address.
///
/// # Errors
///
/// `Unimplemented`: the socket is not in the file system. Abstract ones have no owner and no mode, so anybody who can
/// reach the network namespace could connect, or pose as the shim.
pub fn socket(address: &str) -> Result<PathBuf> {
    let path = address
        .strip_prefix("unix://")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    path.ok_or_else(|| {
        Error::unimplemented(format!("shim address {address:?}: only unix:///path is accepted"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_all_ages_are_understood() {
        let plain = parse(b"unix:///run/s/abc\n").unwrap();
        assert_eq!((plain.version, plain.address.as_str()), (2, "unix:///run/s/abc"));
        let json = parse(br#"{"version":3,"address":"unix:///run/s/abc","protocol":"ttrpc"}"#).unwrap();
        assert_eq!((json.version, &json.address), (3, &plain.address));
        let message = BootstrapResult {
            version: 3,
            address: "unix:///run/s/abc".to_owned(),
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        };
        assert_eq!(parse(&message.encode_to_vec()).unwrap(), json);
    }

    #[test]
    fn other_answers_are_refused_by_name() {
        for bad in [
            &b""[..],
            b"panic: oh no",
            br#"{"version":4,"address":"unix:///a","protocol":"ttrpc"}"#,
            br#"{"version":3,"address":"unix:///a","protocol":"grpc"}"#,
            br#"{"version":"#,
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(socket("unix:///a/b").unwrap(), Path::new("/a/b"));
        for bad in ["/a/b", "unix://", "unix://a", "\0abstract", "vsock://2:1"] {
            assert!(socket(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_socket_is_named_after_the_cleaned_address() {
        let alone = |address: &str| {
            let daemon = Daemon {
                address: address.into(),
                events: PathBuf::new(),
                sockets: "/s".into(),
                has_own_sockets: true,
                opt: Arc::new(Opt::open(&crate::Config {
                    opt: crate::config::Opt::Disabled,
                    ..crate::Config::default()
                })),
                executable: PathBuf::new(),
            };
            alone(&daemon, "default", "c1")
        };
        let digest = crate::digest::Digest::of(b"/run/w.sock/default/c1");
        assert_eq!(alone("/run/w.sock"), Path::new("/s").join(digest.hex()));
        assert_eq!(alone("//run/./x/../w.sock/"), alone("/run/w.sock"));
    }
}
