//! The old daemon's side of a hand-over, as far as the daemon still serves: the control socket and what is said on it.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::{SocketAddrUnix, accept_with, bind, listen, sockopt::socket_peercred};
use tokio::sync::mpsc;

use super::{
    PROTOCOL, Sockets, TAKE_OVER_FLAG, address,
    channel::{Channel, Message, seqpacket},
    own_arguments,
};
use crate::error::{Error, Result};

/// How long somebody who connected may be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a successor that was started here may take until it accepts the offer.
const START: Duration = Duration::from_secs(60);
/// How many conversations there may be at once.
const CONVERSATIONS: usize = 8;

/// A successor that accepted the offer.
#[derive(Debug)]
pub struct Accepted {
    /// The connection to it.
    pub(super) successor: Channel,
    /// The one who asked for the upgrade, if it was asked for.
    pub(super) requester: Option<Channel>,
}

/// The bound control socket.
#[derive(Debug)]
pub struct Control {
    listener: OwnedFd,
    path: PathBuf,
}

struct State {
    root: PathBuf,
    sockets: Arc<Sockets>,
    /// A hand-over is under way.
    busy: AtomicBool,
    /// Who waits for an upgrade.
    requester: Mutex<Option<Channel>>,
    accepted: mpsc::Sender<Accepted>,
    conversations: AtomicUsize,
}

impl Control {
    /// Binds the control socket in the directory `state`, mode 0600, in place of that of a daemon before this one. The
    /// caller holds the root's lock.
    ///
    /// # Errors
    ///
    /// `Unknown`: it cannot be made.
    pub fn bind(state: &Path) -> Result<Self> {
        let path = address(state);
        let failed = |error: io::Error| Error::io(format!("listen on {}", path.display()), error);
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = seqpacket().map_err(|error| failed(error.into()))?;
        SocketAddrUnix::new(&temporary)
            .and_then(|address| bind(&listener, &address))
            .map_err(|error| failed(error.into()))?;
        // Nobody can connect before it listens, and by then it has its mode.
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listen(&listener, 8).map_err(|error| failed(error.into()))?;
        fs::rename(&temporary, &path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// Answers on a thread of its own for as long as the process lives. `sockets` are offered to successors; one that
    /// accepted comes out of the channel.
    ///
    /// # Errors
    ///
    /// `Unknown`: no thread.
    pub fn serve(self, root: &Path, sockets: Arc<Sockets>) -> Result<mpsc::Receiver<Accepted>> {
        let (accepted, receiver) = mpsc::channel(1);
        let state = Arc::new(State {
            root: root.to_owned(),
            sockets,
            busy: AtomicBool::new(false),
            requester: Mutex::default(),
            accepted,
            conversations: AtomicUsize::new(0),
        });
        thread::Builder::new()
            .name("control".into())
            .spawn(move || self.accept(&state))
            .map_err(|error| Error::io("start the control thread", error))?;
        Ok(receiver)
    }

    fn accept(self, state: &Arc<State>) {
        loop {
            let connection = match accept_with(&self.listener, rustix::net::SocketFlags::CLOEXEC) {
                Ok(connection) => connection,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    // Out of file descriptors, say: those in use come back.
                    tracing::warn!(socket = %self.path.display(), %error, "accept on the control socket");
                    thread::sleep(Duration::from_secs(1));
                    continue;
                }
            };
            match socket_peercred(&connection) {
                Ok(peer) if peer.uid == rustix::process::geteuid() => {}
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid.as_raw(), "stranger on the control socket");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "who is on the control socket");
                    continue;
                }
            }
            if state.conversations.fetch_add(1, Ordering::SeqCst) >= CONVERSATIONS {
                state.conversations.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let shared = Arc::clone(state);
            let spawned = thread::Builder::new().name("control-peer".into()).spawn(move || {
                if let Err(error) = shared.converse(Channel::new(connection)) {
                    tracing::warn!(%error, "hand-over");
                }
                shared.conversations.fetch_sub(1, Ordering::SeqCst);
            });
            if let Err(error) = spawned {
                state.conversations.fetch_sub(1, Ordering::SeqCst);
                tracing::warn!(%error, "start a control thread");
            }
        }
    }
}

impl State {
    fn converse(&self, channel: Channel) -> Result<()> {
        match channel.receive(Some(PATIENCE))?.0 {
            Message::TakeOver { protocol } if protocol != PROTOCOL => {
                channel.refuse(format!(
                    "hand-over protocol {protocol}: the running daemon speaks {PROTOCOL}"
                ));
                Ok(())
            }
            Message::TakeOver { .. } => {
                if self.busy.swap(true, Ordering::SeqCst) {
                    channel.refuse("another hand-over is under way");
                    return Ok(());
                }
                // Accepted, the hand-over ends only with this process.
                self.offer(channel)
                    .inspect_err(|_| self.busy.store(false, Ordering::SeqCst))
            }
            Message::Upgrade => self.upgrade(channel),
            other => Err(Error::invalid(format!("{other:?} is not how a hand-over begins"))),
        }
    }

    fn offer(&self, channel: Channel) -> Result<()> {
        let offer = Message::Offer {
            root: self.root.clone(),
            sockets: self.sockets.keys().cloned().collect(),
        };
        let descriptors: Vec<_> = self.sockets.values().map(OwnedFd::as_fd).collect();
        channel.send(&offer, &descriptors)?;
        match channel.receive(Some(PATIENCE))?.0 {
            Message::Accept => {}
            Message::Refused { reason } => {
                return Err(Error::precondition(format!(
                    "the new daemon refused the offer: {reason}"
                )));
            }
            other => return Err(Error::invalid(format!("{other:?} is no answer to an offer"))),
        }
        let requester = self
            .requester
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.accepted
            .blocking_send(Accepted {
                successor: channel,
                requester,
            })
            .map_err(|_| Error::unavailable("the daemon is stopping"))
    }

    /// Starts the executable that is installed now as the successor, and tells `requester` if it comes to nothing. Once the
    /// offer is accepted, whoever serves in the end tells.
    fn upgrade(&self, requester: Channel) -> Result<()> {
        let mut slot = self.requester.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() || self.busy.load(Ordering::SeqCst) {
            drop(slot);
            requester.refuse("another hand-over is under way");
            return Ok(());
        }
        let mut child = match start() {
            Ok(child) => child,
            Err(error) => {
                drop(slot);
                requester.refuse(format!("start the new daemon: {error}"));
                return Ok(());
            }
        };
        *slot = Some(requester);
        drop(slot);
        let deadline = Instant::now() + START;
        let reason = loop {
            match child.try_wait() {
                Ok(Some(status)) => break format!("the new daemon ended with {status}"),
                Ok(None) if Instant::now() >= deadline => {
                    // Not waited for any longer than it takes to die.
                    let ended = child.kill().and_then(|()| child.wait());
                    break format!("the new daemon did not take over within {START:?}: {ended:?}");
                }
                Ok(None) => {}
                Err(error) => break format!("wait for the new daemon: {error}"),
            }
            if self
                .requester
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_none()
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        };
        let requester = self
            .requester
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(requester) = requester {
            requester.refuse(reason);
        }
        Ok(())
    }
}

/// Starts what is installed where this process was started from, with the same arguments, as the successor.
fn start() -> io::Result<Child> {
    Command::new(installed_executable()?)
        .args(own_arguments())
        .arg(TAKE_OVER_FLAG)
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .stdin(Stdio::null())
        .spawn()
}

/// The path of this process's executable. A file that was replaced has the kernel's mark at its end.
fn installed_executable() -> io::Result<PathBuf> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let path = std::env::current_exe()?;
    let bytes = path.as_os_str().as_bytes();
    Ok(match bytes.strip_suffix(b" (deleted)") {
        Some(bytes) if !path.exists() => std::ffi::OsString::from_vec(bytes.to_vec()).into(),
        _ => path,
    })
}
