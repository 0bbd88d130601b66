//! `fork-server`: the process that a daemon of ours has its shims forked from.
//!
//! A shim that is executed costs two executions and their page faults; one that is forked from a small process with one
//! thread costs a fork, and shares that process's memory until it writes to it. The daemon executes this once, with one
//! end of a pair of SOCK_SEQPACKET sockets as descriptor 0.
//!
//! One is forked ahead of its message, with its memory already its own: the spare, which takes the next message itself. When it
//! has, or dies, the next spare is forked: at once if there is another message, and otherwise after a moment in which the
//! processor is left to the new shim. Until its message it dies with the server.
//!
//! One message asks for one shim: the flags of `start` and `-bundle`, each ended by a zero byte, and two descriptors: the
//! first client's connection, and a pipe. On the pipe the forked process says in one line where it serves, and closes
//! it:
//!
//! ```text
//! new ADDRESS       it serves there, and the connection that came with the message
//! group ADDRESS     the group's shim serves there already; the connection is closed
//! anything else     why there is no shim
//! ```
//!
//! In lists of processes a forked shim has the arguments of its own, as far as there is room for them: the daemon executes
//! the server with a blank `-id` that is as long as they may become.
//!
//! A pipe that ends without a word is a process that died. Ends with the daemon, whose end of the pair closes then; the
//! shims do not.

use std::ffi::OsString;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, getpid, set_parent_process_death_signal};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin};
use wharf_runtime::cgroup::Layout;

use crate::flags::Flags;
use crate::serve::Surroundings;
use crate::start::{self, Place};
use crate::sys;

/// The longest message: paths and names of a command line.
const LONGEST: usize = 16 << 10;

/// How long after a spare was taken the next one is forked, if nobody asks for it: as long as a new shim has much to do.
const BREAK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// Keeps a shim forked for the next message until the daemon is gone.
///
/// # Errors
///
/// The process could not be set up, or the socket failed.
pub fn fork_server() -> Result<(), String> {
    // Before anything is open: what is forked later runs from the protected file, too.
    wharf_runtime::host_binary::protect().map_err(|error| format!("protect the shim's binary: {error}"))?;
    let failed = |what: &'static str| move |error: Errno| format!("{what}: {error}");
    sys::close_inherited().map_err(|error| format!("close inherited descriptors: {error}"))?;
    let control = fcntl_dupfd_cloexec(stdin(), 3).map_err(failed("take the socket"))?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).and_then(|null| {
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null).and_then(|()| dup2_stderr(&null)))
    });
    null.map_err(failed("open /dev/null"))?;
    start::raise_oom_score().map_err(|error| format!("set oom_score_adj: {error}"))?;
    let room = Room::find();
    // Who ends is reaped by the kernel.
    sys::ignore_children(true).map_err(|error| format!("ignore SIGCHLD: {error}"))?;
    loop {
        // Its writing end closes when the spare is taken, or dies.
        let (vacancy, spare) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        match sys::fork() {
            Ok(None) => {
                drop(vacancy);
                return wait_for_message(control, spare, room.as_ref());
            }
            Ok(Some(_)) => {
                drop(spare);
                if !is_wanted(&control, &vacancy).map_err(failed("wait for the spare to be taken"))? {
                    return Ok(());
                }
            }
            Err(error) => {
                match receive(&control, &mut vec![0; LONGEST]).map_err(failed("receive a message"))? {
                    None => return Ok(()),
                    Some(message) => tell(message.report, &format!("fork: {error}")),
                }
            }
        }
    }
}

/// Blocks until there is no spare any more and another is wanted; `false` when the daemon has gone.
fn is_wanted(control: &OwnedFd, vacancy: &OwnedFd) -> rustix::io::Result<bool> {
    // Hang-ups are told without being asked for.
    let mut watched = [
        PollFd::new(control, PollFlags::empty()),
        PollFd::new(vacancy, PollFlags::IN),
    ];
    while watched[1].revents().is_empty() {
        if !watched[0].revents().is_empty() {
            return Ok(false);
        }
        wait(&mut watched, None)?;
    }
    let mut message = [PollFd::new(control, PollFlags::IN)];
    wait(&mut message, Some(&BREAK))?;
    Ok(!message[0].revents().contains(PollFlags::HUP))
}

/// Blocks until something can be said of one of the descriptors, or the time is over.
fn wait(watched: &mut [PollFd<'_>], limit: Option<&Timespec>) -> rustix::io::Result<()> {
    loop {
        match poll(watched, limit) {
            Err(Errno::INTR) => {}
            polled => return polled.map(drop),
        }
    }
}

/// The spare: waits for its message, with everything done that needs none.
fn wait_for_message(control: OwnedFd, spare: OwnedFd, room: Option<&Room>) -> Result<(), String> {
    let failed = |what: &'static str| move |error: Errno| format!("{what}: {error}");
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("die with the server"))?;
    sys::ignore_children(false).map_err(|error| format!("mind SIGCHLD: {error}"))?;
    sys::populate_memory();
    // A host whose control groups cannot be read now has them read when they are needed, which then fails.
    let layout = Layout::detect().ok().map(Arc::new);
    let mut buffer = vec![0; LONGEST];
    let Some(message) = receive(&control, &mut buffer).map_err(failed("receive a message"))? else {
        return Ok(());
    };
    let alone = set_parent_process_death_signal(None).map_err(failed("live on without the server"));
    drop((control, spare));
    if let Some(room) = room {
        room.fill(message.arguments);
    }
    match alone {
        Ok(()) => serve(message, layout),
        Err(error) => {
            tell(message.report, &error);
            Err(error)
        }
    }
}

/// The memory that `/proc/PID/cmdline` shows.
struct Room {
    begin: u64,
    length: usize,
}

impl Room {
    /// `None` where the kernel does not say.
    fn find() -> Option<Room> {
        // The fields 48 and 49 of proc_pid_stat(5), the second of which is the name in parentheses.
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(45);
        let begin: u64 = fields.next()?.parse().ok()?;
        let end: u64 = fields.next()?.parse().ok()?;
        Some(Room {
            begin,
            length: usize::try_from(end.checked_sub(begin)?).ok()?,
        })
    }

    /// Shows the program's name and `arguments`, each ended by a zero byte. For people: a failure costs nothing else.
    fn fill(&self, arguments: &[u8]) {
        let mut shown = b"containerd-shim-wharf-v2\0".to_vec();
        shown.extend_from_slice(arguments);
        shown.resize(self.length, 0);
        // The last byte says that the arguments end here.
        if let Some(last) = shown.last_mut() {
            *last = 0;
        }
        if let Ok(memory) = std::fs::File::options().write(true).open("/proc/self/mem") {
            let _ = memory.write_all_at(&shown, self.begin);
        }
    }
}

/// What is asked for.
struct Message<'a> {
    /// Each ended by a zero byte.
    arguments: &'a [u8],
    /// The first client's.
    connection: OwnedFd,
    /// The pipe.
    report: OwnedFd,
}

/// Blocks until there is a message; `None` when the daemon has gone.
fn receive<'a>(control: &OwnedFd, buffer: &'a mut [u8]) -> rustix::io::Result<Option<Message<'a>>> {
    loop {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(buffer)];
        let length = match recvmsg(control, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            received => received?.bytes,
        };
        if length == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::with_capacity(2);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        // Whoever asks sends both; a message without them has nobody to tell what is wrong with it.
        if let Ok([connection, report]) = <[OwnedFd; 2]>::try_from(descriptors) {
            return Ok(Some(Message {
                arguments: &buffer[..length],
                connection,
                report,
            }));
        }
    }
}

/// Says a line to who asked; if that is gone, nobody misses it.
fn tell(report: OwnedFd, line: &str) {
    let _ = std::fs::File::from(report).write_all(line.as_bytes());
}

/// The forked process: finds its place and serves there until its end.
fn serve(message: Message<'_>, layout: Option<Arc<Layout>>) -> Result<(), String> {
    let Message {
        arguments,
        connection,
        report,
    } = message;
    let (flags, place) = match arrive(arguments) {
        Ok(arrived) => arrived,
        Err(error) => {
            tell(report, &error);
            return Err(error);
        }
    };
    let (listener, socket) = match place {
        Place::Serving { address, .. } => {
            tell(report, &format!("group {address}"));
            return Ok(());
        }
        Place::New { listener, socket } => (listener, socket),
    };
    let address = start::address_of(&socket);
    let surroundings = Surroundings {
        listener: listener.into(),
        socket,
        client: Some(connection),
        layout,
    };
    let told = |shim: Result<(), String>| match shim
        .and_then(|()| start::note(&address, getpid()).map_err(|error| error.to_string()))
    {
        Ok(()) => {
            tell(report, &format!("new {address}"));
            true
        }
        Err(error) => {
            tell(report, &error);
            false
        }
    };
    surroundings
        .serve(&flags, told)
        .map_err(|error| error.to_string())
}

/// Goes to the bundle and takes the socket of its container's group.
fn arrive(arguments: &[u8]) -> Result<(Flags, Place), String> {
    let arguments = arguments
        .split_inclusive(|&byte| byte == 0)
        .map(|argument| OsString::from_vec(argument.strip_suffix(b"\0").unwrap_or(argument).to_vec()));
    let flags = Flags::parse(arguments).map_err(|error| error.to_string())?;
    let bundle = flags.bundle.as_deref().ok_or("bundle cannot be empty")?;
    std::env::set_current_dir(bundle).map_err(|error| format!("enter {}: {error}", bundle.display()))?;
    start::separate().map_err(|error| error.to_string())?;
    let place = start::find_place(&flags, None).map_err(|error| error.to_string())?;
    Ok((flags, place))
}
