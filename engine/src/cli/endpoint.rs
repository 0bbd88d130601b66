//! Which daemon to talk to, and starting one when there is none.
//!
//! Owns the global flags and the start in the background. Two commands that find no daemon at once start one: a lock file
//! in the state directory lets the second wait for the first one's; against a daemon started by hand, the daemon's own
//! lock decides, and both commands connect to whoever won. Refuses to start anything unless it is root.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep, timeout_at};

use super::daemon::ANOTHER_DAEMON;
use super::failure::Failure;
use crate::api::client::{Client, ClientError};

/// Where the daemon keeps what survives a reboot.
pub(crate) const DEFAULT_ROOT: &str = "/var/lib/wharf";
/// Where the daemon keeps what does not.
pub(crate) const DEFAULT_STATE: &str = "/run/wharf";
/// The name of the daemon's socket in its state directory.
const SOCKET_NAME: &str = "wharf.sock";
/// The name of the log of a daemon that was started in the background.
const LOG_NAME: &str = "daemon.log";

/// How long a daemon may take to answer its first ping; recovery after a crash is part of it.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often it is asked: a local connect that is refused costs microseconds.
const ASK_EVERY: Duration = Duration::from_millis(3);

/// The flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// The daemon's socket [default: STATE/wharf.sock, or $WHARF_HOST]
    #[arg(
        short = 'H',
        long,
        global = true,
        value_name = "SOCKET",
        help_heading = "Global options"
    )]
    host: Option<String>,
    /// Where the daemon keeps images and containers [default: /var/lib/wharf]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    root: Option<PathBuf>,
    /// Where the daemon keeps sockets and running state [default: /run/wharf]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    state: Option<PathBuf>,
    /// Let the daemon log more, if this command starts one
    #[arg(short = 'D', long, global = true, help_heading = "Global options")]
    pub(crate) debug: bool,
}

impl Globals {
    /// The daemon's root directory, absolute.
    pub(crate) fn root(&self) -> Result<PathBuf, Failure> {
        absolute(self.root.as_deref().unwrap_or(Path::new(DEFAULT_ROOT)))
    }

    /// The daemon's state directory, absolute.
    pub(crate) fn state(&self) -> Result<PathBuf, Failure> {
        absolute(self.state.as_deref().unwrap_or(Path::new(DEFAULT_STATE)))
    }

    /// The daemon's socket, absolute.
    pub(crate) fn socket(&self) -> Result<PathBuf, Failure> {
        // A state directory of one's own means a daemon of one's own, whatever the environment says.
        let from_environment = || {
            if self.state.is_none() {
                std::env::var("WHARF_HOST").ok()
            } else {
                None
            }
        };
        let Some(host) = self
            .host
            .clone()
            .or_else(from_environment)
            .filter(|host| !host.is_empty())
        else {
            return Ok(self.state()?.join(SOCKET_NAME));
        };
        match host.split_once("://") {
            None => absolute(Path::new(&host)),
            Some(("unix", path)) => absolute(Path::new(path)),
            Some((scheme, _)) => Err(Failure::new(format!(
                "Error: --host {host}: {scheme}:// is not supported, only unix sockets are"
            ))),
        }
    }

    /// A client of the daemon, which is started if there is none.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::new(self.socket()?);
        match client.connect().await {
            Ok(()) => Ok(client),
            Err(error) if error.is_nobody_listening() => {
                self.start_daemon(&client).await?;
                Ok(client)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn start_daemon(&self, client: &Client) -> Result<(), Failure> {
        if !rustix::process::geteuid().is_root() {
            let socket = client.socket().display();
            return Err(Failure::new(format!(
                "Error: no daemon listens on {socket}, and only root can start one"
            ))
            .hint("run this command as root, for example with sudo"));
        }
        let state = self.state()?;
        let failed = |what: &str, path: &Path, error: io::Error| {
            Failure::new(format!(
                "Error: start the daemon: {what} {}: {error}",
                path.display()
            ))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&state)
            .map_err(|error| failed("create", &state, error))?;
        let private = |append: bool, path: &Path| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .append(append)
                .create(true)
                .mode(0o600)
                .open(path)
        };
        let lock_path = state.join("autostart.lock");
        let lock = private(false, &lock_path).map_err(|error| failed("open", &lock_path, error))?;
        // Blocks for as long as another command starts a daemon here, which is bounded.
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| failed("lock", &lock_path, error.into()))?;
        if client.ping().await.is_ok() {
            return Ok(());
        }
        let log_path = state.join(LOG_NAME);
        let mut log = private(true, &log_path).map_err(|error| failed("open", &log_path, error))?;
        let begin = log
            .seek(SeekFrom::End(0))
            .map_err(|error| failed("open", &log_path, error))?;
        let mut child = self.spawn(client.socket(), &log)?;
        super::notice(&format!(
            "wharf: started a daemon in the background, its log is {}",
            log_path.display()
        ));
        match until_ready(client, &mut child).await {
            Ok(()) => Ok(()),
            Err(reason) => {
                let mut message = format!("Error: {reason}; its log {}", log_path.display());
                match last_lines(&mut log, begin) {
                    Ok(lines) if lines.is_empty() => message.push_str(" is empty"),
                    Ok(lines) => message.push_str(&format!(" ends:\n{lines}")),
                    Err(error) => message.push_str(&format!(" cannot be read: {error}")),
                }
                Err(Failure::new(message))
            }
        }
    }

    fn spawn(&self, socket: &Path, log: &File) -> Result<Child, Failure> {
        let failed = |error: io::Error| Failure::new(format!("Error: start the daemon: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .arg("daemon")
            .arg("--background")
            .arg("--host")
            .arg(socket)
            .arg("--root")
            .arg(self.root()?)
            .arg("--state")
            .arg(self.state()?)
            .args(self.debug.then_some("--debug"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log.try_clone().map_err(failed)?);
        command.spawn().map_err(failed)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(format!("Error: path {}: {error}", path.display())))
}

/// Waits until the daemon answers, or `child` has ended without anybody else answering.
async fn until_ready(client: &Client, child: &mut Child) -> Result<(), String> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut lost = false;
    loop {
        // A daemon that listens and does not serve yet keeps the question: its answer is bounded too.
        match timeout_at(deadline, client.ping()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ClientError::Connect { .. } | ClientError::Http { .. })) => {}
            Ok(Err(error)) => return Err(format!("the daemon that was started answers wrongly: {error}")),
            Err(_) => {
                let which = if lost {
                    "another daemon".to_owned()
                } else {
                    format!("the daemon, pid {},", child.id())
                };
                return Err(format!(
                    "{which} is not ready after {} seconds",
                    READY_WITHIN.as_secs()
                ));
            }
        }
        if !lost {
            let status = child
                .try_wait()
                .map_err(|error| format!("wait for the daemon: {error}"))?;
            match status {
                None => {}
                // It lost to one that somebody started by hand, and that is not ready yet.
                Some(status) if status.code() == Some(i32::from(ANOTHER_DAEMON)) => lost = true,
                Some(status) => return Err(format!("the daemon that was started ended with {status}")),
            }
        }
        sleep(ASK_EVERY).await;
    }
}

/// The last ten lines that were written after `begin`, indented.
fn last_lines(log: &mut File, begin: u64) -> io::Result<String> {
    const TAIL: u64 = 8 << 10;
    let end = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    log.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    Ok(lines[lines.len().saturating_sub(10)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(host: Option<&str>, state: Option<&str>) -> Globals {
        Globals {
            host: host.map(str::to_owned),
            root: None,
            state: state.map(PathBuf::from),
            debug: false,
        }
    }

    #[test]
    fn the_socket_follows_host_then_state() {
        for (host, state, socket) in [
            (Some("/a/b.sock"), None, "/a/b.sock"),
            (Some("unix:///a/b.sock"), Some("/c"), "/a/b.sock"),
            (None, Some("/c"), "/c/wharf.sock"),
        ] {
            assert_eq!(
                globals(host, state).socket().map_err(|failure| failure.message),
                Ok(PathBuf::from(socket))
            );
        }
        let failure = globals(Some("tcp://1.2.3.4:5"), None)
            .socket()
            .expect_err("refused");
        assert!(
            failure.message.contains("tcp:// is not supported"),
            "{}",
            failure.message
        );
    }
}
