//! Containers with a terminal, driven through a pseudo-terminal as a person would.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use integration_tests::{binaries, eventually};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::instance::{Instance, SOON};

/// `wharf` with a terminal of its own, and the other side of that terminal.
struct Session {
    master: OwnedFd,
    /// Kept open, so that the terminal's settings can be read when the command has ended.
    terminal: OwnedFd,
    child: Child,
    seen: String,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Session {
    fn start(wharf: &Command) -> Session {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open(name.as_c_str(), flags, Mode::empty()).expect("open the terminal");
        tcsetwinsize(&master, size(33, 101)).expect("size the terminal");
        let stdio = || Stdio::from(File::from(terminal.try_clone().expect("another handle")));
        // Its own session with this terminal: the kernel sends changes of size to nobody else.
        let child = Command::new(binaries::peer("setsid"))
            .arg("--ctty")
            .arg(wharf.get_program())
            .args(wharf.get_args())
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .expect("start setsid");
        Session {
            master,
            terminal,
            child,
            seen: String::new(),
        }
    }

    fn send(&self, keys: &[u8]) {
        let mut rest = keys;
        while !rest.is_empty() {
            let written = rustix::io::write(&self.master, rest).expect("type");
            rest = &rest[written..];
        }
    }

    /// Reads until `text` shows; gives and forgets everything up to it.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(
                Instant::now() < deadline,
                "{text:?} does not show in {:?}",
                self.seen
            );
            self.read();
        }
    }

    fn read(&mut self) {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        if poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&timeout)).expect("poll") > 0 {
            let mut buffer = [0; 4096];
            let read = rustix::io::read(&self.master, &mut buffer).expect("read the terminal");
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    /// Waits for the end of the command; gives its exit code.
    fn ends(&mut self) -> i32 {
        let deadline = Instant::now() + SOON;
        loop {
            self.read();
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code().expect("an exit code");
            }
            assert!(
                Instant::now() < deadline,
                "the command does not end; {:?}",
                self.seen
            );
        }
    }

    fn settings(&self) -> String {
        describe(&tcgetattr(&self.terminal).expect("tcgetattr"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().expect("kill the command");
            self.child.wait().expect("wait for it");
        }
    }
}

fn describe(settings: &Termios) -> String {
    let Termios {
        input_modes,
        output_modes,
        local_modes,
        control_modes,
        ..
    } = settings;
    format!("{input_modes:?} {output_modes:?} {local_modes:?} {control_modes:?}")
}

#[test]
fn a_shell_in_a_terminal_has_its_size_its_keys_and_its_way_out() {
    let instance = Instance::start();
    let shell = ["--rm", "-it", "--name", "shell"];
    let arguments = instance.run_arguments(&shell, &["sh"]);
    let mut session = Session::start(&instance.wharf.command(&arguments));
    let before = session.settings();
    session.expect("# ");
    assert_ne!(session.settings(), before, "the terminal is raw");
    session.send(b"stty size; echo $((100+1))\n");
    let seen = session.expect("101");
    assert!(seen.contains("33 101"), "{seen:?}");

    tcsetwinsize(&session.master, size(20, 70)).expect("resize");
    eventually("the new size arrives", SOON, || {
        session.send(b"stty size; echo $((200+2))\n");
        session.expect("202").contains("20 70").then_some(())
    });

    // Ctrl-C is a key for the process inside, not the end of the command.
    session.send(b"echo $((300+3)); sleep 1000\n");
    session.expect("303");
    session.send(b"\x03");
    session.send(b"echo code $?\n");
    session.expect("code 130");

    // Ctrl-P Ctrl-Q leaves it running.
    session.send(b"\x10\x11");
    assert_eq!(session.ends(), 0);
    assert_eq!(session.settings(), before, "the terminal is as it was");
    assert_eq!(instance.inspect("shell", "{{.State.Status}}"), "running");

    let mut session = Session::start(&instance.wharf.command(&["attach", "shell"]));
    session.send(b"echo $((400+4))\n");
    session.expect("404");
    session.send(b"exit 9\n");
    assert_eq!(session.ends(), 9);
    assert_eq!(session.settings(), before);
    // `attach` waits for the end of the process; the daemon removes the container after it.
    eventually("the container is removed", SOON, || {
        (instance.wharf.run(&["ps", "-aq"]).ok() == "").then_some(())
    });
}

#[test]
fn exec_in_a_terminal_has_its_size_from_the_start() {
    let instance = Instance::start();
    instance.detached("idle", &[], &["sleep", "1000"]);
    let script = "test -t 0 && test -t 1 && stty size; exit 4";
    let mut session = Session::start(
        &instance
            .wharf
            .command(&["exec", "-it", "idle", "sh", "-c", script]),
    );
    let before = session.settings();
    session.expect("33 101");
    assert_eq!(session.ends(), 4);
    assert_eq!(session.settings(), before);
}

#[test]
fn a_terminal_is_refused_when_there_is_none() {
    let instance = Instance::start();
    let error = instance.run(&["-it"], &["sh"]).fails_with(125);
    assert!(error.contains("the input device is not a TTY"), "{error}");
    assert_eq!(instance.wharf.run(&["ps", "-aq"]).ok(), "");
}
