//! containerd's restart labels: a container is brought to what they say, also after a crash of the daemon.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::{binaries, eventually};
use sha2::{Digest, Sha256};

use crate::subject::{SOON, Subject};

const OFTEN: &str = "[plugins.'io.containerd.monitor.container.v1.restart']\ninterval = '200ms'\n";

fn label(subject: &Subject, id: &str, labels: &[&str]) {
    let labels: Vec<String> = labels
        .iter()
        .map(|label| format!("containerd.io/restart.{label}"))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    subject
        .ctr(&[&["containers", "label", id], &labels[..]].concat())
        .ok();
}

fn until_running(subject: &Subject, id: &str, not: i32) -> i32 {
    eventually("it runs again", SOON, || {
        let tasks = subject.ctr(&["tasks", "ls"]).ok();
        let line = tasks
            .lines()
            .find(|line| line.split_whitespace().next() == Some(id))?;
        let pid = subject.pid(id).filter(|pid| *pid != not)?;
        line.contains("RUNNING").then_some(pid)
    })
}

fn count(subject: &Subject, id: &str) -> String {
    let info = subject.ctr(&["containers", "info", id]).ok();
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    info["Labels"]["containerd.io/restart.count"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_container_is_what_its_labels_say() {
    let mut subject = Subject::configured(OFTEN);
    let first = subject.detached("box", &["/bin/sleep", "1000"]);
    let log = subject.scratch.join("log");
    label(
        &subject,
        "box",
        &["status=running", &format!("loguri=file://{}", log.display())],
    );
    subject.ctr(&["tasks", "kill", "--signal", "9", "box"]).ok();
    let second = until_running(&subject, "box", first);
    assert_eq!(count(&subject, "box"), "1");
    // Also when it ends while no daemon is there to see it.
    subject.wharfd.kill9();
    let pid = rustix::process::Pid::from_raw(second).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is killed");
    subject.wharfd.restart();
    let third = until_running(&subject, "box", second);
    assert_eq!(count(&subject, "box"), "2");
    assert!(log.exists(), "the output goes where the label says");

    label(&subject, "box", &["status=stopped"]);
    eventually("it is stopped, and its task gone", SOON, || {
        subject.pid("box").is_none().then_some(())
    });
    assert!(fs::metadata(format!("/proc/{third}")).is_err());
    label(&subject, "box", &["status=running"]);
    let fourth = until_running(&subject, "box", third);

    // A policy that does not want it, and a container without labels, are left alone.
    let other = subject.detached("other", &["/bin/sleep", "1000"]);
    label(
        &subject,
        "box",
        &["policy=unless-stopped", "explicitly-stopped=true"],
    );
    for id in ["box", "other"] {
        subject.ctr(&["tasks", "kill", "--signal", "9", id]).ok();
    }
    let witness = subject.detached("witness", &["/bin/sleep", "1000"]);
    label(&subject, "witness", &["status=running", "policy=on-failure:1"]);
    subject.ctr(&["tasks", "kill", "--signal", "9", "witness"]).ok();
    let again = until_running(&subject, "witness", witness);
    // At most once: after this one it stays down. It was looked at after the others had ended.
    assert_eq!(subject.pid("box"), Some(fourth));
    assert_eq!(subject.pid("other"), Some(other));
    subject.ctr(&["tasks", "kill", "--signal", "9", "witness"]).ok();
    subject
        .ctr(&[
            "containers",
            "label",
            "box",
            "containerd.io/restart.explicitly-stopped=",
        ])
        .ok();
    until_running(&subject, "box", fourth);
    assert_eq!(subject.pid("witness"), Some(again));
    assert_eq!(count(&subject, "witness"), "1");
    for id in ["box", "witness"] {
        label(&subject, id, &["status="]);
    }
    for id in ["box", "other", "witness"] {
        subject.ctr(&["tasks", "rm", "--force", id]);
        subject.ctr(&["containers", "rm", id]).ok();
    }
}

#[test]
fn the_state_may_be_deeper_than_a_sockets_path() {
    let mut subject = Subject::unstarted();
    let state = subject.scratch.join(format!("{}/state", "deep".repeat(11)));
    let mut command = Command::new(binaries::ours("wharfd"));
    command.arg("--root").arg(subject.wharfd.home().join("root"));
    command.arg("--address").arg(subject.wharfd.socket());
    command.arg("--state").arg(&state);
    subject.wharfd.restart_as(&mut command);
    assert!(state.join("s/0123456789abcdef0123456789abcdef").as_os_str().len() > 107);
    subject.detached("box", &["/bin/sleep", "1000"]);
    subject.ctr(&["tasks", "rm", "--force", "box"]).ok();
    subject.ctr(&["containers", "rm", "box"]).ok();
    let digest: String = Sha256::digest(state.as_os_str().as_encoded_bytes())[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let instead = Path::new("/run/wharf-shims").join(digest);
    eventually("the shim removes its socket", SOON, || {
        (fs::read_dir(&instead).expect("their directory").count() == 0).then_some(())
    });
    drop(subject);
    assert!(!instead.exists(), "the daemon leaves {}", instead.display());
}
