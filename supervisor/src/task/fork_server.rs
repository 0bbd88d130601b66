//! Our own shims, forked instead of executed.
//!
//! One process of our shim's executable is kept, from which each shim is forked: it starts in a fraction of the time, and
//! shares memory with the others. What is said to it, and what it answers, is described where it is implemented, in the
//! shim's `fork_server`. It is started when the first shim is wanted, and again when it has died or its executable is not
//! the same file any more.
//!
//! Only an optimisation: when it does not answer, the shim is started as containerd starts one. A shim that was forked is
//! no different from then on, and outlives the process that it was forked from.

use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::spawn::Invocation;
use crate::error::{Error, Result};

/// How long a shim may take to say where it serves: under a millisecond on an idle machine.
const START: Duration = Duration::from_secs(30);

/// The longest answer that is read: an address, or a sentence.
const LONGEST: u64 = 8 << 10;

/// How long the arguments of a shim may be to be seen whole in lists of processes.
const ROOM: usize = 512;

/// A shim that was asked for.
#[derive(Debug)]
pub struct Newborn {
    report: pipe::Receiver,
    live: Arc<Live>,
}

/// What became of it.
#[derive(Debug)]
pub enum Said {
    /// It serves at the address, and the connection is its first.
    New(String),
    /// The group's shim serves at the address already.
    Group(String),
}

/// The process that shims are forked from, when there is one.
#[derive(Debug, Default)]
pub struct ForkServer {
    live: Mutex<Option<Arc<Live>>>,
}

#[derive(Debug)]
struct Live {
    control: OwnedFd,
    executable: PathBuf,
    file: File,
    /// Reaped, and killed if it does not leave by itself, when this is dropped.
    _child: Child,
}

/// What tells one file from the one that replaces it.
#[derive(Debug, PartialEq, Eq)]
struct File {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl File {
    fn of(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        Ok(Self {
            device: about.dev(),
            inode: about.ino(),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

impl ForkServer {
    /// Asks for a shim for `invocation`. What is written to the connection, the shim reads when it serves.
    ///
    /// # Errors
    ///
    /// `Unknown`: nobody could be asked, for whatever reason.
    pub fn fork(&self, invocation: Invocation<'_>) -> Result<(Newborn, UnixStream)> {
        let failed = |operation: &'static str| move |error: io::Error| Error::io(operation, error);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (connection, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| failed("make a connection")(error.into()))?;
        let (report, said) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| failed("make a pipe")(error.into()))?;
        let connection = UnixStream::from_std(connection.into()).map_err(failed("watch a connection"))?;
        let report = pipe::Receiver::from_owned_fd(report).map_err(failed("watch a pipe"))?;
        let message = message(invocation);
        let live = self.live(invocation).map_err(failed("start the fork server"))?;
        if let Err(error) = live.send(&message, &theirs, &said) {
            self.forget(&live);
            return Err(failed("ask the fork server")(error));
        }
        // The server and the shim have their own by now; with ours open, their end would not be seen.
        drop((theirs, said));
        Ok((Newborn { report, live }, connection))
    }

    /// Waits for what a shim says of itself.
    ///
    /// # Errors
    ///
    /// `Unknown`: there is none, for whatever reason.
    pub async fn hear(&self, newborn: Newborn) -> Result<Said> {
        let mut line = String::new();
        let mut report = newborn.report.take(LONGEST);
        let read = tokio::time::timeout(START, report.read_to_string(&mut line)).await;
        read.map_err(|_| Error::unknown("fork a shim", format!("no answer within {START:?}")))?
            .map_err(|error| Error::io("hear from a shim", error))?;
        match line.split_once(' ') {
            Some(("new", address)) => Ok(Said::New(address.to_owned())),
            Some(("group", address)) => Ok(Said::Group(address.to_owned())),
            _ if line.is_empty() => {
                // It, or the server: an executable that is no such server, for one.
                self.forget(&newborn.live);
                Err(Error::unknown("fork a shim", "it died"))
            }
            _ => Err(Error::unknown("fork a shim", line)),
        }
    }

    /// The server for the invocation's executable, started if need be.
    fn live(&self, invocation: Invocation<'_>) -> io::Result<Arc<Live>> {
        let file = File::of(invocation.shim)?;
        // Held while it is started: everybody else would have to wait for it all the same.
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = &*live
            && live.executable == invocation.shim
            && live.file == file
        {
            return Ok(Arc::clone(live));
        }
        let started = Arc::new(Live::start(invocation, file)?);
        *live = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Does without a server that is of no use any more.
    fn forget(&self, useless: &Arc<Live>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, useless)) {
            *live = None;
        }
    }
}

impl Live {
    fn start(invocation: Invocation<'_>, file: File) -> io::Result<Self> {
        let (control, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = Command::new(invocation.shim);
        command
            .args(["-id", &" ".repeat(ROOM), "fork-server"])
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        invocation.daemon.describe(&mut command);
        let child = command.spawn()?;
        Ok(Self {
            control,
            executable: invocation.shim.to_owned(),
            file,
            _child: child,
        })
    }

    fn send(&self, message: &[u8], connection: &OwnedFd, report: &OwnedFd) -> io::Result<()> {
        let descriptors = [connection.as_fd(), report.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        // Not waited for: a server that has a hundred requests before it is passed by.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.control, &[IoSlice::new(message)], &mut ancillary, flags)?;
        Ok(())
    }
}

/// The arguments, each ended by a zero byte.
fn message(invocation: Invocation<'_>) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut message = Vec::with_capacity(512);
    for (flag, value) in [
        ("-namespace", invocation.namespace.as_bytes()),
        ("-id", invocation.id.as_bytes()),
        ("-address", invocation.daemon.address.as_os_str().as_bytes()),
        ("-bundle", invocation.bundle.path().as_os_str().as_bytes()),
    ] {
        for part in [flag.as_bytes(), value] {
            message.extend_from_slice(part);
            message.push(0);
        }
    }
    message
}
