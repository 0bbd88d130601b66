//! Every call of a process and its descendants by which something becomes durable or visible, stopped before it is done.
//!
//! A filter that the process is started with sends those calls here (`SECCOMP_RET_USER_NOTIF`), one at a time whatever thread
//! they come from, so that they can be counted; each goes on, fails, or is the last that the process comes to.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::call::{Call, NUMBERS};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Go,
    /// It is not done, and fails with this number.
    Fail(i32),
    /// It is not said to be done, but it is not done.
    Skip,
    /// Its process is killed before.
    Kill,
}

/// `struct seccomp_notif`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Notice {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

/// Starts `command` behind the gate; `decide` is asked about each call, in a thread of its own, until nobody is left behind
/// the gate.
pub(crate) fn spawn(
    command: &mut Command,
    log: &Path,
    mut decide: impl FnMut(&Call) -> Verdict + Send + 'static,
) -> Child {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let program = filter();
    // SAFETY: only system calls on memory that was prepared before.
    unsafe {
        command.pre_exec(move || install(&program, &theirs));
    }
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("the log");
    // Its first call, which it is started by, needs an answer.
    std::thread::spawn(move || serve(&receive(&ours), &mut decide));
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle of the log"))
        .stderr(log)
        .spawn()
        .expect("start the daemon")
}

/// The descriptor over which the listener goes to the test: what is sent there passes.
const HAND_OVER: i32 = 900;

/// Loads the number; a jump for each that is asked about; all others are allowed, and so is what hands the listener over.
fn filter() -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let jump = |k: u32, jt: usize, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: jt as u8,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let asked: Vec<_> = NUMBERS
        .iter()
        .filter(|(number, _)| *number != libc::SYS_sendmsg)
        .collect();
    let mut program = vec![statement(load, 0)];
    for (index, (number, _)) in asked.iter().enumerate() {
        // Over those that follow, and the five before the last.
        program.push(jump(*number as u32, asked.len() - index + 4, 0));
    }
    program.push(jump(libc::SYS_sendmsg as u32, 1, 0));
    program.push(allow);
    // The lower half of the first argument.
    program.push(statement(load, 16));
    program.push(jump(HAND_OVER as u32, 0, 1));
    program.push(allow);
    program.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_USER_NOTIF,
    ));
    program
}

/// In the child: loads the filter, and hands its listener to the test.
fn install(program: &[libc::sock_filter], socket: &UnixStream) -> std::io::Result<()> {
    // SAFETY: of two descriptors that are the child's own.
    if unsafe { libc::dup3(socket.as_raw_fd(), HAND_OVER, libc::O_CLOEXEC) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: it was just made, and is the child's until it executes the daemon.
    let socket = unsafe { BorrowedFd::borrow_raw(HAND_OVER) };
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program outlives the call, and the kernel copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it.
    let listener = unsafe { OwnedFd::from_raw_fd(listener as i32) };
    let fds = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        socket,
        &[std::io::IoSlice::new(b"x")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn receive(socket: &UnixStream) -> OwnedFd {
    let mut text = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("receive the listener");
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .expect("the listener")
}

fn serve(listener: &OwnedFd, decide: &mut dyn FnMut(&Call) -> Verdict) {
    let mut daemon = None;
    loop {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            outcome => outcome.expect("poll the listener"),
        };
        if !polled[0].revents().contains(PollFlags::IN) {
            // Nobody has the filter any more.
            return;
        }
        let mut notice = Notice::default();
        // SAFETY: the structure outlives the call and is the kernel's.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notice) } != 0 {
            // Whoever called is gone.
            continue;
        }
        let Some(daemon) = daemon else {
            daemon = Some(notice.pid as i32);
            answer(listener, notice.id, Verdict::Go);
            continue;
        };
        let call = Call::new(notice.pid as i32, daemon, notice.number, notice.arguments);
        let verdict = decide(&call);
        if verdict == Verdict::Kill {
            kill(call.process);
        }
        answer(listener, notice.id, verdict);
    }
}

/// Ends a process with SIGKILL.
pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    // One that has ended in between is what is wanted.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn answer(listener: &OwnedFd, id: u64, verdict: Verdict) {
    let (error, flags) = match verdict {
        Verdict::Go => (0, CONTINUE),
        Verdict::Fail(error) => (-error, 0),
        Verdict::Skip => (0, 0),
        // The signal comes first; should the call return, it has failed.
        Verdict::Kill => (-libc::EINTR, 0),
    };
    let answer = Answer {
        id,
        value: 0,
        error,
        flags,
    };
    // SAFETY: as above. Whoever called may be gone, and needs no answer then.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) };
}

/// What the descriptor `number` of `process` is.
pub(crate) fn descriptor(process: i32, number: u64) -> String {
    fs::read_link(format!("/proc/{process}/fd/{number}"))
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}
