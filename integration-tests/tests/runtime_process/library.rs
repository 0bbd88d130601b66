//! The library from a program that is not a command line: with the streams closed, the end of children ignored, and
//! children of its own.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use integration_tests::{Scratch, bundle, eventually};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::json;
use wharf_runtime::spec::oci::{Process, User};
use wharf_runtime::{
    Container, ContainerId, CreateOptions, Error, ErrorKind, ExecOptions, Runtime, Signal, Status, Stdio,
};

struct Bundle {
    scratch: Scratch,
}

impl Bundle {
    fn new(arguments: &[&str], edit: impl FnOnce(&mut serde_json::Value)) -> Bundle {
        let scratch = Scratch::new();
        bundle::bundle(&scratch.join("bundle"), arguments, edit);
        Bundle { scratch }
    }

    fn runtime(&self) -> Runtime {
        Runtime::new(self.scratch.join("state"))
    }

    fn options(&self) -> CreateOptions {
        let id = ContainerId::new(self.scratch.unique()).expect("a name");
        let mut options = CreateOptions::new(id, self.scratch.join("bundle"));
        options.stdio = null();
        options
    }
}

fn null() -> Stdio {
    let null: OwnedFd = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("open /dev/null")
        .into();
    Stdio::Fds {
        stdin: null.try_clone().expect("dup"),
        stdout: null.try_clone().expect("dup"),
        stderr: null,
    }
}

fn shell(script: &str) -> Process {
    Process {
        cwd: "/".into(),
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        user: User::default(),
        ..Process::default()
    }
}

fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let ended = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).expect("a child");
    ended.and_then(|ended| ended.exit_status())
}

/// Created, watched, started, executed in, killed, reaped, deleted.
fn whole_life(bundle: &Bundle) -> Container {
    let container = bundle.runtime().create(bundle.options()).expect("create");
    assert_eq!(container.state().expect("state").status, Status::Created);
    container.start().expect("start");
    assert_eq!(container.state().expect("state").status, Status::Running);
    let mut options = ExecOptions::new(shell("exit 5"));
    options.stdio = null();
    let executed = container.exec(options).expect("exec");
    assert_eq!(exit_status(executed.pidfd()), Some(5));
    container.kill(Signal::KILL).expect("kill");
    let pidfd = container.pidfd().expect("a pidfd");
    let ended = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).expect("a child");
    assert_eq!(ended.and_then(|ended| ended.terminating_signal()), Some(9));
    assert_eq!(container.state().expect("state").status, Status::Stopped);
    container.delete(false).expect("delete");
    container
}

#[test]
fn a_container_lives_its_whole_life_by_the_library() {
    let bundle = Bundle::new(&["/bin/sleep", "1000"], |_| {});
    let container = whole_life(&bundle);
    let gone = bundle.runtime().load(container.id()).expect_err("it was deleted");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn errors_name_the_step_the_object_and_the_cause() {
    let bundle = Bundle::new(&["/bin/true"], |spec| {
        let mounts = spec["mounts"].as_array_mut().expect("an array");
        mounts.push(json!({"destination": "/x", "type": "nosuchfs", "source": "x"}));
    });
    let error = bundle
        .runtime()
        .create(bundle.options())
        .expect_err("no such file system");
    assert_eq!(error.to_string(), "mount nosuchfs on /x: ENODEV");
    assert!(matches!(&error, Error::Step { errno, .. } if errno.number() == libc::ENODEV));
    assert_eq!(error.kind(), ErrorKind::System);
    assert_eq!(bundle.runtime().ids().expect("list"), []);
}

#[test]
fn a_program_without_streams_uses_the_library() {
    let bundle = Bundle::new(&["/bin/sleep", "1000"], |spec| {
        spec["hooks"] = json!({
            "createRuntime": [{"path": "/bin/true"}],
            "createContainer": [{"path": "/bin/true"}],
            "startContainer": [{"path": "/bin/true"}],
        });
    });
    // Kept to tell the outcome by.
    let kept = [0, 1, 2].map(|number| {
        // SAFETY: the three are open, and nobody else owns them: they are put back at the end.
        #[allow(unsafe_code)]
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_dupfd_cloexec(stream, 10).expect("dup")
    });
    for number in 0..3 {
        // SAFETY: no code of this process uses the streams until they are put back.
        #[allow(unsafe_code)]
        unsafe {
            rustix::io::close(number);
        }
    }
    let outcome = std::panic::catch_unwind(|| drop(whole_life(&bundle)));
    for (number, kept) in kept.iter().enumerate() {
        // SAFETY: the number is that of a stream, which this gives back.
        #[allow(unsafe_code)]
        let mut stream = unsafe { std::os::fd::FromRawFd::from_raw_fd(number as i32) };
        rustix::io::dup2(kept, &mut stream).expect("dup2");
        std::mem::forget::<OwnedFd>(stream);
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn hooks_succeed_in_a_program_that_ignores_the_end_of_children() {
    let bundle = Bundle::new(&["/bin/sleep", "1000"], |spec| {
        spec["hooks"] = json!({
            "createRuntime": [{"path": "/bin/true"}],
            "poststop": [{"path": "/bin/true"}],
        });
    });
    // SAFETY: no handler; this test has its process to itself.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    let container = bundle.runtime().create(bundle.options()).expect("create");
    container.start().expect("start");
    container.delete(true).expect("delete");
    assert_eq!(container.take_warnings(), Vec::<String>::new());
}

#[test]
fn children_of_the_program_are_none_of_the_librarys_business() {
    let bundle = Bundle::new(&["/bin/sleep", "1000"], |_| {});
    let mut own = Command::new("/bin/sh")
        .args(["-c", "exit 9"])
        .spawn()
        .expect("spawn");
    eventually("the child has ended", Duration::from_secs(10), || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", own.id())).expect("a zombie is there");
        stat.contains(") Z ").then_some(())
    });
    whole_life(&bundle);
    assert_eq!(own.wait().expect("still there to be reaped").code(), Some(9));
}

#[test]
fn a_container_of_another_process_is_watched_and_ended() {
    let bundle = Bundle::new(&["/bin/sleep", "1000"], |_| {});
    let created = bundle.runtime().create(bundle.options()).expect("create");
    created.start().expect("start");
    // As another process finds it: by its state alone.
    let loaded = bundle.runtime().load(created.id()).expect("load");
    assert_eq!(loaded.state().expect("state").status, Status::Running);
    assert_eq!(loaded.init_pid(), created.init_pid());
    loaded.kill(Signal::KILL).expect("kill");
    let pidfd = loaded.pidfd().expect("a pidfd");
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        pidfd,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).expect("poll");
    loaded.delete(false).expect("delete");
    assert_eq!(created.state().expect("state").status, Status::Stopped);
}
