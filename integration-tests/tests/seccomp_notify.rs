//! `SCMP_ACT_NOTIFY`: an agent of the host's gets the filter's listener and answers the container's calls.
#![allow(unsafe_code)]

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use integration_tests::{Finished, Scratch, binaries, bundle, eventually, run};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

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

/// A test's bundle, runtime, and listening agent.
struct Setup {
    scratch: Scratch,
    agent: UnixListener,
}

impl Setup {
    fn new(arguments: &[&str], edit: impl FnOnce(&mut Value)) -> Self {
        let scratch = Scratch::new();
        let path = scratch.join("agent.sock");
        let agent = UnixListener::bind(&path).expect("listen");
        bundle::bundle(&scratch.join("bundle"), arguments, |spec| {
            spec["annotations"] = json!({"org.example.key": "value"});
            spec["process"]["noNewPrivileges"] = false.into();
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": path,
                "listenerMetadata": "for the agent",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
            });
            edit(spec);
        });
        Self { scratch, agent }
    }

    fn id(&self) -> &str {
        self.scratch.unique()
    }

    fn output(&self) -> PathBuf {
        self.scratch.join("output")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.output()).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=1", "20"])
            .arg(binaries::ours("wharf-runtime"));
        command
            .arg("--root")
            .arg(self.scratch.join("state"))
            .args(arguments);
        command
    }

    /// `create` or `run --detach`, with a file as the container's output.
    fn make(&self, arguments: &[&str]) -> Finished {
        let output = fs::File::create(self.output()).expect("output");
        let mut command = self.command(arguments);
        command
            .arg("--bundle")
            .arg(self.scratch.join("bundle"))
            .arg(self.id());
        let status = command
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output)
            .status()
            .expect("start the runtime");
        Finished {
            command: format!("{command:?}"),
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: self.said(),
        }
    }

    /// What the agent is told, with the listener.
    fn told(&self) -> (Value, OwnedFd) {
        let (connection, _) = self.agent.accept().expect("accept");
        receive(&connection)
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let id = self.id().to_owned();
        run(&mut self.command(&["delete", "--force", &id]));
    }
}

fn receive(connection: &UnixStream) -> (Value, OwnedFd) {
    let mut text = vec![0; 65536];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let received = recvmsg(connection, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).expect("receive");
    let mut fds: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(fds.len(), 1, "one descriptor for one name");
    let document = serde_json::from_slice(&text[..received.bytes]).expect("a document");
    (document, fds.remove(0))
}

/// Waits for a call, and makes it fail with `error`; answers whose it was and which.
fn refuse(listener: &OwnedFd, error: i32) -> (u32, i32) {
    let mut notice = Notice::default();
    // SAFETY: the structure outlives the call and is the kernel's.
    let received = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notice) };
    assert_eq!(received, 0, "{}", std::io::Error::last_os_error());
    let answer = Answer {
        id: notice.id,
        value: 0,
        error: -error,
        flags: 0,
    };
    // SAFETY: as above.
    let sent = unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    (notice.pid, notice.number)
}

#[test]
fn the_agent_gets_the_listener_with_the_creation_and_answers_calls() {
    for no_new_privileges in [false, true] {
        let setup = Setup::new(&["/bin/mkdir", "/tmp/new"], |spec| {
            spec["process"]["noNewPrivileges"] = no_new_privileges.into();
            spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            spec["root"]["readonly"] = false.into();
        });
        let created = setup.make(&["create"]);
        assert_eq!(created.code, 0, "{created}");
        let (document, listener) = setup.told();
        let pid = document["pid"].as_u64().expect("a pid");
        assert_eq!(
            document,
            json!({
                "ociVersion": document["state"]["ociVersion"],
                "fds": ["seccompFd"],
                "pid": pid,
                "metadata": "for the agent",
                "state": {
                    "ociVersion": document["ociVersion"],
                    "id": setup.id(),
                    "status": "creating",
                    "pid": pid,
                    "bundle": setup.scratch.join("bundle"),
                    "annotations": {"org.example.key": "value"},
                },
            })
        );
        let state: Value =
            serde_json::from_str(&run(&mut setup.command(&["state", setup.id()])).ok()).expect("a state");
        assert_eq!(
            (&state["status"], &state["pid"]),
            (&json!("created"), &json!(pid))
        );
        run(&mut setup.command(&["start", setup.id()])).ok();
        let (caller, number) = refuse(&listener, libc::ENOMEDIUM);
        assert_eq!(u64::from(caller), pid, "as the agent's pid namespace numbers it");
        assert!([libc::SYS_mkdir, libc::SYS_mkdirat].contains(&i64::from(number)));
        eventually("the program hears of it", Duration::from_secs(10), || {
            setup.said().contains("No medium found").then_some(())
        });
    }
}

#[test]
fn a_process_that_is_executed_has_a_listener_of_its_own_and_no_more_privileges() {
    let setup = Setup::new(&["/bin/sleep", "100"], |_| {});
    let started = setup.make(&["run", "--detach"]);
    assert_eq!(started.code, 0, "{started}");
    let (first, _held) = setup.told();
    let mut command = setup.command(&["exec", "--user", "1000", setup.id(), "/bin/probe", "identity"]);
    let report: Value = serde_json::from_str(&run(&mut command).ok()).expect("the probe prints JSON");
    let (document, _listener) = setup.told();
    assert_eq!(document["state"]["status"], "running");
    assert_eq!(document["state"]["pid"], first["pid"]);
    assert_ne!(document["pid"], first["pid"]);
    assert_eq!(document["metadata"], "for the agent");
    assert_eq!(report["status"]["Seccomp"], "2");
    assert_eq!(report["status"]["CapEff"], "0000000000000000");
    assert_eq!(report["status"]["CapPrm"], "0000000000000000");
    let descriptors = report["descriptors"].as_object().expect("descriptors");
    let open: Vec<_> = descriptors.keys().collect();
    assert!(
        open.iter()
            .all(|number| number.parse::<u32>().is_ok_and(|number| number < 4)),
        "{open:?}"
    );
}

#[test]
fn without_an_agent_nothing_is_created() {
    let setup = Setup::new(&["/bin/true"], |_| {});
    fs::remove_file(setup.scratch.join("agent.sock")).expect("remove the socket");
    let created = setup.make(&["create"]);
    assert_ne!(created.code, 0);
    assert!(
        created
            .stderr
            .contains("failed to connect with seccomp agent specified in the seccomp profile"),
        "{created}"
    );
    let left: Vec<_> = fs::read_dir(setup.scratch.join("state"))
        .expect("the root")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // An abstract socket of that name is not what a path means.
    let setup = Setup::new(&["/bin/true"], |spec| {
        spec["linux"]["seccomp"]["listenerPath"] = "@agent".into();
    });
    assert_ne!(setup.make(&["create"]).code, 0);
}
