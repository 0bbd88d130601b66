//! Either side dies, or refuses, between any two words of a hand-over: somebody serves afterwards.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;

use integration_tests::{Finished, Scratch, eventually, run};
use serde_json::json;
use wharf_proto::containerd::services::version::v1::version_client::VersionClient;

use crate::client;
use crate::control::{self, Control};
use crate::subject::{SOON, Subject};

/// Plays a successor up to a point.
fn successor(subject: &Subject, words: usize) {
    let control = Control::connect(&subject.wharfd.home().join("state"));
    if words == 0 {
        return;
    }
    control.say(&json!({"take-over": {"protocol": 1}}), &[]);
    if words == 1 {
        return;
    }
    let (offer, sockets) = control.hear().expect("an offer");
    assert_eq!(offer["offer"]["root"], json!(subject.wharfd.home().join("root")));
    assert_eq!(sockets.len(), 1);
    if words == 2 {
        return;
    }
    control.say(&json!("accept"), &[]);
    if words == 3 {
        return;
    }
    let (yours, events) = control.hear().expect("the stores");
    assert_eq!((yours, events.len()), (json!("yours"), 1));
    // By now nobody else has them.
    let lock = fs::File::open(subject.wharfd.home().join("root/lock")).expect("the lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).expect("a free lock");
}

#[test]
fn the_old_daemon_goes_on_when_its_successor_dies_at_any_word() {
    let subject = Subject::start();
    let pid = subject.detached("a", &["/bin/sleep", "1000"]);
    let daemon = subject.daemon_pid();
    for words in 0..5 {
        successor(&subject, words);
        // Whoever comes meanwhile waits; it is never refused.
        assert_eq!(subject.pid("a"), Some(pid), "after {words} words");
        let echo = [
            "tasks",
            "exec",
            "--exec-id",
            &format!("x{words}"),
            "a",
            "/bin/echo",
            "on",
        ];
        assert_eq!(subject.ctr(&echo).ok(), "on\n");
        assert_eq!(subject.daemon_pid(), daemon);
    }
}

#[test]
fn what_is_no_successor_is_refused() {
    let mut subject = Subject::start();
    let state = subject.wharfd.home().join("state");
    let control = Control::connect(&state);
    control.say(&json!({"take-over": {"protocol": 9}}), &[]);
    let (refused, _) = control.hear().expect("a refusal");
    assert!(
        refused["refused"]["reason"].to_string().contains("protocol 9"),
        "{refused}"
    );
    let nonsense = Control::connect(&state);
    nonsense.say(&json!({"hello": 1}), &[]);
    assert!(nonsense.hear().is_none());
    // Two at once.
    let first = Control::connect(&state);
    first.say(&json!({"take-over": {"protocol": 1}}), &[]);
    first.hear().expect("an offer");
    let second = Control::connect(&state);
    second.say(&json!({"take-over": {"protocol": 1}}), &[]);
    let (refused, _) = second.hear().expect("a refusal");
    assert!(
        refused["refused"]["reason"]
            .to_string()
            .contains("another hand-over"),
        "{refused}"
    );
    drop(first);
    // Another root on the same state: found out before anything is given up.
    let other = subject.scratch.directory("other");
    let refused = eventually("the first hand-over has ended", SOON, || {
        let mut command = std::process::Command::new(integration_tests::binaries::ours("wharfd"));
        command.arg("--takeover").arg("--state").arg(&state);
        command.arg("--address").arg(subject.wharfd.socket());
        let refused: Finished = run(command.arg("--root").arg(&other));
        (!refused.stderr.contains("another hand-over")).then_some(refused)
    });
    assert!(
        refused.code != 0 && refused.stderr.contains("has the root"),
        "{refused}"
    );
    assert!(subject.serves());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(state.join("control.sock"))
            .expect("the control socket")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    subject.wharfd.take_over();
}

#[test]
fn the_new_daemon_serves_when_the_old_one_dies_at_any_word() {
    for words in 0..4 {
        let scratch = Scratch::new();
        let mut wharfd = integration_tests::wharf::Wharfd::unstarted(&scratch);
        let (root, state) = (wharfd.home().join("root"), wharfd.home().join("state"));
        fs::create_dir_all(&state).expect("the state directory");
        let listener = UnixListener::bind(wharfd.socket()).expect("the API's socket");
        // A client that connected to the old daemon, and was not served.
        let waiting = client::runtime();
        let answer = {
            let _in_runtime = waiting.enter();
            let channel = client::channel(&wharfd.socket());
            waiting.spawn(async move { VersionClient::new(channel).version(()).await })
        };
        let control = control::listen(&state);
        let old = std::thread::spawn(move || {
            let successor = Control::accept(&control);
            drop(control);
            if words == 0 {
                return;
            }
            assert!(successor.hear().expect("a successor").0["take-over"].is_object());
            if words == 1 {
                return;
            }
            let name = format!(
                "unix:{}",
                listener
                    .local_addr()
                    .expect("its address")
                    .as_pathname()
                    .expect("a path")
                    .display()
            );
            let offer = json!({"offer": {"root": root, "sockets": [name]}});
            successor.say(&offer, &[listener.as_fd()]);
            assert_eq!(successor.hear().expect("an answer").0, json!("accept"));
            if words == 3 {
                let events = fs::File::open("/dev/null").expect("no events");
                successor.say(&json!("yours"), &[events.as_fd()]);
            }
        });
        let mut command = wharfd.command(&["--takeover"]);
        wharfd.restart_as(&mut command);
        old.join().expect("the old daemon's words");
        if words >= 2 {
            // The very socket was handed over, with who waited in it.
            let answer = waiting.block_on(answer).expect("no panic").expect("an answer");
            assert!(!answer.into_inner().version.is_empty());
        }
    }
}

#[test]
fn the_new_daemon_serves_when_the_old_one_is_killed_while_it_steps_back() {
    let mut subject = Subject::start();
    let pid = subject.detached("a", &["/bin/sleep", "1000"]);
    let mut old = subject.wharfd.daemon.take().expect("the old daemon");
    let kill = rustix::process::Pid::from_raw(old.pid()).expect("a process id");
    let log = subject.wharfd.home().join("log");
    let mut killed = false;
    let mut command = subject.wharfd.command(&["--takeover"]);
    let socket = subject.wharfd.socket();
    let new = integration_tests::daemon::Daemon::start(&mut command, &log, || {
        let giving_way = fs::read_to_string(&log).is_ok_and(|log| log.contains("giving way"));
        if giving_way && !killed {
            rustix::process::kill_process(kill, rustix::process::Signal::KILL).expect("kill the old daemon");
            killed = true;
        }
        killed
            && old.has_ended()
            && integration_tests::containerd::ctr(&socket, "default")
                .arg("version")
                .output()
                .is_ok_and(|output| output.status.success())
    });
    subject.wharfd.daemon = Some(new);
    assert_eq!(subject.pid("a"), Some(pid));
}
