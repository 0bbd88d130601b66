//! A `wharfd` with its root and state where a test wants them, plain or behind the gate, and what it is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use integration_tests::{Finished, binaries, eventually, leftovers, run};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use wharf_proto::containerd::services::version::v1::version_client::VersionClient;

use crate::call::Call;
use crate::gate::{self, Verdict};
use crate::life;

const SOON: Duration = Duration::from_secs(20);

/// The directories of one daemon, and the daemon, if it runs.
pub(crate) struct Instance {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) home: PathBuf,
    /// Part of the names of cgroups: nobody else's namespace.
    pub(crate) namespace: String,
    configuration: PathBuf,
    /// A file that is shown to the daemon as the name of the boot.
    boot: Option<PathBuf>,
    child: Option<Child>,
}

impl Instance {
    /// One that does not run yet. Logs and socket are in `home`.
    pub(crate) fn new(home: &Path, root: &Path, namespace: &str) -> Self {
        fs::create_dir_all(home).expect("make the instance's directory");
        let configuration = home.join("wharfd.toml");
        // The larger of the image's blobs is fetched in pieces.
        let text = "[plugins.\"io.containerd.transfer.v1.local\"]\nconcurrent_layer_fetch_buffer = 65536\n";
        fs::write(&configuration, text).expect("write the configuration");
        Self {
            configuration,
            root: root.to_path_buf(),
            state: home.join("state"),
            home: home.to_path_buf(),
            namespace: namespace.to_owned(),
            boot: None,
            child: None,
        }
    }

    /// Lets the daemon think that it is another boot.
    pub(crate) fn in_another_boot(mut self, id: &str) -> Self {
        let file = self.home.join("boot_id");
        fs::write(&file, format!("{id}\n")).expect("write the name of the boot");
        self.boot = Some(file);
        self
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.boot {
            None => Command::new(binaries::ours("wharfd")),
            Some(boot) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c"]);
                command.arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"");
                command.arg(boot).arg(binaries::ours("wharfd"));
                command
            }
        };
        command.args(arguments);
        command.arg("--config").arg(&self.configuration);
        command.arg("--root").arg(&self.root);
        command.arg("--state").arg(&self.state);
        command
    }

    fn socket(&self) -> PathBuf {
        self.home.join("sock")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Starts the daemon with each call decided upon; it may not come up.
    pub(crate) fn start_behind(&mut self, decide: impl FnMut(&Call) -> Verdict + Send + 'static) {
        let mut command = self.command(&[]);
        command.arg("--address").arg(self.socket());
        self.child = Some(gate::spawn(&mut command, &self.home.join("log"), decide));
    }

    /// Starts the daemon, and waits until it serves; else says why it does not.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.join("log"))
            .expect("the log");
        let child = self
            .command(&[])
            .arg("--address")
            .arg(self.socket())
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("start the daemon");
        self.child = Some(child);
        if self.serves() {
            Ok(())
        } else {
            Err("the daemon does not come up".into())
        }
    }

    /// Waits until the daemon takes calls; `false` when it ended before.
    pub(crate) fn serves(&mut self) -> bool {
        let socket = self.socket();
        let child = self.child.as_mut().expect("a daemon");
        eventually("the daemon serves or ends", SOON, || {
            if child.try_wait().expect("wait for the daemon").is_some() {
                return Some(false);
            }
            std::os::unix::net::UnixStream::connect(&socket)
                .is_ok()
                .then_some(true)
        })
    }

    /// Whether the daemon has not ended.
    pub(crate) fn lives(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().expect("wait for the daemon").is_none())
    }

    /// Waits until the daemon has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        eventually("the daemon ends", SOON, || (!self.lives()).then_some(true))
    }

    /// Ends the daemon with SIGKILL, if it still runs.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Only one that has ended refuses, and that is what is wanted.
            drop(child.kill());
            child.wait().expect("wait for the daemon");
        }
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> Result<Client, String> {
        Client::new(self.socket(), self.namespace.clone()).await
    }

    /// `wharfd` with `arguments`, on this instance.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    /// The daemons of this instance, whoever started them.
    fn daemons(&self) -> Vec<i32> {
        leftovers::processes_with(&format!(" {} ", self.root.display()))
            .into_iter()
            .map(|(pid, _)| pid)
            .filter(|pid| {
                let program = fs::read_link(format!("/proc/{pid}/exe"));
                program.is_ok_and(|program| program.ends_with("wharfd"))
            })
            .collect()
    }

    /// Whether there is no daemon any more.
    pub(crate) fn is_deserted(&mut self) -> bool {
        !self.lives() && self.daemons().is_empty()
    }

    /// Ends whatever daemon has this instance with SIGKILL, and waits until there is none.
    pub(crate) fn kill_all(&mut self) {
        self.kill9();
        eventually("no daemon is left", SOON, || {
            let left = self.daemons();
            for pid in &left {
                gate::kill(*pid);
            }
            left.is_empty().then_some(())
        });
    }

    /// Whether `wharfd fsck --dry-run --verify` finds nothing wrong; else what it says. No daemon may run.
    pub(crate) fn fsck(&self) -> Result<Value, String> {
        let mut command = self.command(&["fsck", "--dry-run", "--verify", "--format", "json"]);
        let finished = run(&mut command);
        if finished.code != 0 {
            return Err(format!("fsck: {finished}"));
        }
        serde_json::from_str(&finished.stdout).map_err(|error| format!("fsck: {error}: {finished}"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill_all();
        life::clean(&self.namespace);
        for mount in leftovers::mounts_below(&self.home).iter().rev() {
            run(Command::new("umount").arg("--lazy").arg(mount));
        }
    }
}

/// A connection to a daemon, and the namespace of all calls on it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    socket: PathBuf,
    pub(crate) namespace: String,
}

impl Client {
    async fn new(socket: PathBuf, namespace: String) -> Result<Self, String> {
        let channel = Endpoint::try_from(format!("unix://{}", socket.display()))
            .map_err(|error| error.to_string())?
            .connect()
            .await
            .map_err(|error| format!("{error:?}"))?;
        let mut version = VersionClient::new(channel.clone());
        version.version(()).await.map_err(|error| format!("{error:?}"))?;
        Ok(Self {
            channel,
            socket,
            namespace,
        })
    }

    /// Another connection, to whoever serves now.
    pub(crate) async fn again(&self) -> Result<Self, String> {
        Self::new(self.socket.clone(), self.namespace.clone()).await
    }

    /// `message` as a request in the test's namespace.
    pub(crate) fn scoped<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(
            "containerd-namespace",
            self.namespace.parse().expect("a namespace"),
        );
        // A call that never answers is a fault, too.
        request.set_timeout(Duration::from_secs(30));
        request
    }
}

/// Runs `future` to its end in this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Whether an error says that there is no daemon any more.
pub(crate) fn is_gone(status: &tonic::Status) -> bool {
    let text = format!("{status:?}");
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    ) && (text.contains("transport error")
        || text.contains("ConnectError")
        || text.contains("h2 protocol error")
        || text.contains("stream closed")
        || text.contains("connection")
        || text.contains("broken pipe"))
}
