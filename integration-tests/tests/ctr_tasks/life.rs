//! The life of a task, on each daemon and with each shim.

use integration_tests::eventually;

use crate::process::{kill, parent};
use crate::subject::{SOON, Subject};

/// Runs a test on containerd, on wharfd with our shim, and on wharfd with Debian's shim.
macro_rules! on_each {
    ($($name:ident)*) => {
        mod containerd { $(#[test] fn $name() { super::$name(crate::subject::Subject::containerd()); })* }
        mod wharfd { $(#[test] fn $name() { super::$name(crate::subject::Subject::wharfd("io.containerd.runc.v2")); })* }
        mod wharfd_with_runcs_shim { $(#[test] fn $name() {
            let shim = integration_tests::binaries::peer("containerd-shim-runc-v2");
            super::$name(crate::subject::Subject::wharfd(shim.to_str().expect("a UTF-8 path")));
        })* }
    };
}

on_each! {
    output_and_exit_code_reach_the_client
    a_task_is_listed_paused_measured_killed_and_deleted
    errors_are_those_that_clients_know
    events_tell_the_life_of_a_task_in_order
    the_end_of_a_task_whose_shim_was_killed_is_told_once
    tasks_start_side_by_side
}

fn output_and_exit_code_reach_the_client(subject: Subject) {
    assert_eq!(
        subject.run(&["--rm"], "a", &["/bin/echo", "hello"]).ok(),
        "hello\n"
    );
    subject
        .run(&["--rm"], "a", &["/bin/sh", "-c", "exit 3"])
        .fails_with(3);
    subject.sleeper("b");
    let exec = |id: &str, arguments: &[&str]| {
        let mut all = vec!["tasks", "exec", "--exec-id", id, "b"];
        all.extend(arguments);
        subject.ctr(&all)
    };
    assert_eq!(exec("one", &["/bin/echo", "executed"]).ok(), "executed\n");
    exec("two", &["/bin/sh", "-c", "exit 9"]).fails_with(9);
    // An id is free again once its exec is over.
    assert_eq!(exec("one", &["/bin/echo", "again"]).ok(), "again\n");
    subject.ctr(&["tasks", "delete", "--force", "b"]).ok();
    subject.nothing_is_left();
}

fn a_task_is_listed_paused_measured_killed_and_deleted(subject: Subject) {
    let pid = subject.sleeper("a");
    subject.until("a", "RUNNING");
    let listed = subject.ctr(&["tasks", "ps", "a"]).ok();
    assert!(
        listed.lines().any(|line| line.starts_with(&pid.to_string())),
        "{listed}"
    );
    let metrics = subject.ctr(&["tasks", "metrics", "a"]).ok();
    assert!(metrics.contains("memory.usage_in_bytes"), "{metrics}");
    subject.ctr(&["tasks", "pause", "a"]).ok();
    subject.until("a", "PAUSED");
    subject.ctr(&["tasks", "resume", "a"]).ok();
    subject.until("a", "RUNNING");
    subject.ctr(&["tasks", "kill", "--signal", "KILL", "a"]).ok();
    subject.until("a", "STOPPED");
    let deleted = subject.ctr(&["tasks", "delete", "a"]);
    assert!(
        deleted.code == 0 && deleted.stderr.contains("exit with non-zero exit code 137"),
        "{deleted}"
    );
    assert_eq!(subject.task("a"), None);
    subject.ctr(&["containers", "delete", "a"]).ok();
    subject.nothing_is_left();
}

fn errors_are_those_that_clients_know(subject: Subject) {
    let refused = |arguments: &[&str], expected: &str| {
        let finished = subject.ctr(arguments);
        assert!(
            finished.code == 1 && finished.stderr.contains(expected),
            "expected {expected:?}: {finished}"
        );
    };
    let missing = format!(
        "container \"no\" in namespace \"{}\": not found",
        subject.namespace()
    );
    refused(&["tasks", "kill", "no"], &missing);
    refused(&["tasks", "exec", "--exec-id", "x", "no", "/bin/true"], &missing);
    refused(&["tasks", "pause", "no"], &missing);
    subject.sleeper("a");
    refused(&["tasks", "start", "a"], "ctr: task a: already exists");
    refused(
        &["tasks", "delete", "a"],
        "task must be stopped before deletion: running: failed precondition",
    );
    refused(&["tasks", "resume", "a"], "cannot resume a running process");
    refused(
        &["tasks", "exec", "--exec-id", "x", "a", "/bin/none"],
        "exec: \"/bin/none\": stat /bin/none: no such file or directory",
    );
    subject.ctr(&["tasks", "kill", "--signal", "KILL", "a"]).ok();
    subject.until("a", "STOPPED");
    refused(
        &["tasks", "kill", "a"],
        "ctr: process already finished: not found",
    );
    refused(
        &["tasks", "exec", "--exec-id", "x", "a", "/bin/true"],
        "cannot exec in a stopped state",
    );
    subject.ctr(&["tasks", "delete", "a"]).ok();
    refused(
        &["tasks", "delete", "a"],
        "ctr: no running task found: task a not found: not found",
    );

    let failed = subject.run(&["--rm"], "b", &["/bin/none"]);
    let expected = "exec: \"/bin/none\": stat /bin/none: no such file or directory";
    assert!(failed.code == 1 && failed.stderr.contains(expected), "{failed}");
    assert!(failed.stderr.contains("failed to create shim task: "), "{failed}");
    for (runtime, expected) in [
        (
            "io.containerd.none.v9",
            "failed to start shim: failed to resolve runtime path: runtime \"io.containerd.none.v9\" binary not \
             installed \"containerd-shim-none-v9\": file does not exist",
        ),
        (
            "none",
            "failed to start shim: failed to resolve runtime path: invalid runtime name none",
        ),
    ] {
        let arguments = [
            "run",
            "--rm",
            "--runtime",
            runtime,
            "--rootfs",
            &subject.root,
            "c",
            "/bin/true",
        ];
        refused(&arguments, expected);
    }
    subject.nothing_is_left();
}

fn events_tell_the_life_of_a_task_in_order(subject: Subject) {
    let events = subject.events();
    subject.sleeper("a");
    subject
        .ctr(&["tasks", "exec", "--exec-id", "one", "a", "/bin/true"])
        .ok();
    eventually("the exec's exit", SOON, || {
        (events
            .of("a")
            .iter()
            .filter(|topic| *topic == "/tasks/exit")
            .count()
            == 1)
            .then_some(())
    });
    subject.ctr(&["tasks", "pause", "a"]).ok();
    subject.ctr(&["tasks", "resume", "a"]).ok();
    subject.ctr(&["tasks", "kill", "--signal", "KILL", "a"]).ok();
    subject.until("a", "STOPPED");
    subject.ctr(&["tasks", "delete", "a"]).ok();
    events.until("a", "/tasks/delete");
    // What comes late comes after this.
    subject.run(&["--rm"], "b", &["/bin/true"]).ok();
    events.until("b", "/tasks/delete");
    assert_eq!(
        events.of("a"),
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/paused",
            "/tasks/resumed",
            "/tasks/exit",
            "/tasks/delete",
        ]
    );
}

fn the_end_of_a_task_whose_shim_was_killed_is_told_once(subject: Subject) {
    let events = subject.events();
    let pid = subject.sleeper("a");
    kill(parent(pid));
    let topics = events.until("a", "/tasks/delete");
    assert_eq!(
        topics,
        ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    );
    let exit = events
        .lines()
        .into_iter()
        .find(|line| line.contains("/tasks/exit"))
        .expect("the exit");
    assert!(
        exit.contains(&format!("\"pid\":{pid}")) && exit.contains("\"exit_status\":137"),
        "{exit}"
    );
    eventually("the task is gone", SOON, || {
        subject.task("a").is_none().then_some(())
    });
    subject.nothing_is_left();
    // The id can be used again.
    subject.ctr(&["containers", "delete", "a"]).ok();
    subject.run(&["--rm"], "a", &["/bin/true"]).ok();
    assert_eq!(
        events
            .of("a")
            .iter()
            .filter(|topic| *topic == "/tasks/exit")
            .count(),
        2
    );
}

fn tasks_start_side_by_side(subject: Subject) {
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let subject = &subject;
            scope.spawn(move || {
                for round in 0..3 {
                    let (id, text) = (format!("w{worker}"), format!("{worker} {round}"));
                    let output = subject.run(&["--rm"], &id, &["/bin/echo", &text]).ok();
                    assert_eq!(output, format!("{text}\n"));
                }
            });
        }
    });
    subject.nothing_is_left();
}
