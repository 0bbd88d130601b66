//! What systemd is told and hands over, with the test in its place.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::eventually;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::subject::{SOON, Subject};

/// The next message, and the descriptors that came with it.
fn hear(systemd: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let mut packet = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        systemd,
        &mut [IoSliceMut::new(&mut packet)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("a message for systemd");
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            descriptors.extend(sent);
        }
    }
    let text = String::from_utf8(packet[..received.bytes].to_vec()).expect("text");
    (text, descriptors)
}

#[test]
fn the_unit_survives_the_change_of_its_process() {
    let mut subject = Subject::unstarted();
    let path = subject.scratch.join("notify");
    let systemd = UnixDatagram::bind(&path).expect("systemd's socket");
    systemd.set_read_timeout(Some(SOON)).expect("a time-out");
    let with_systemd = |mut command: Command| {
        command.env("NOTIFY_SOCKET", &path);
        command
    };
    subject
        .wharfd
        .restart_as(&mut with_systemd(subject.wharfd.command(&[])));
    assert_eq!(hear(&systemd).0, "READY=1");
    let (store, sockets) = hear(&systemd);
    assert!(store.starts_with("FDSTORE=1\n"), "{store}");
    assert_eq!(sockets.len(), 1);

    let mut old = subject.wharfd.daemon.take().expect("the old daemon");
    subject
        .wharfd
        .restart_as(&mut with_systemd(subject.wharfd.command(&["--takeover"])));
    eventually("the old daemon has ended", SOON, || old.has_ended().then_some(()));
    let (reloading, _) = hear(&systemd);
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    let new = format!("MAINPID={}\nREADY=1", subject.daemon_pid());
    let heard: Vec<String> = (0..3).map(|_| hear(&systemd).0).collect();
    assert!(heard.contains(&new), "{heard:?}");
}

#[test]
fn a_socket_that_systemd_kept_is_served_again() {
    let mut subject = Subject::unstarted();
    let listener = UnixListener::bind(subject.wharfd.socket()).expect("the API's socket");
    let waiting = std::os::unix::net::UnixStream::connect(subject.wharfd.socket()).expect("a client");
    let daemon = subject.wharfd.command(&[]);
    // Only a process can say its own id.
    let mut command = Command::new("/bin/sh");
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 0</dev/null";
    command.args(["-c", script]).arg(daemon.get_program());
    command.args(daemon.get_args());
    // `restart_as` would replace the standard input.
    let log = std::fs::File::create(subject.wharfd.home().join("log")).expect("a log");
    let mut child = command
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start the daemon");
    eventually("it serves", SOON, || subject.serves().then_some(()));
    // Served, the connection is greeted with HTTP/2 settings once its client has said hello.
    let mut greeted = [0; 9];
    waiting
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a time-out");
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    std::io::Write::write_all(&mut &waiting, hello).expect("say hello");
    std::io::Read::read_exact(&mut &waiting, &mut greeted).expect("be greeted");
    assert_eq!(greeted[3], 4, "SETTINGS");
    drop(waiting);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("end the daemon");
    assert!(child.wait().expect("wait for the daemon").success());
    subject.wharfd.daemon = None;
}
