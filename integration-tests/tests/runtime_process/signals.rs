//! Signals, children and streams of a caller that has them otherwise than most.

use std::fs;
use std::time::Duration;

use integration_tests::eventually;

use crate::Case;

#[test]
fn a_created_container_ends_by_a_signal_that_ends_processes() {
    let case = Case::new(&["/bin/sleep", "1000"], |_| {});
    case.detached(&["create", case.id()]);
    // Of its kind the first process of a pid namespace hears nothing without a handler: it would wait for ever.
    case.run(&["kill", case.id(), "WINCH"]).ok();
    assert_eq!(case.state()["status"], "created");
    case.run(&["kill", case.id(), "TERM"]).ok();
    case.await_status("stopped");
}

#[test]
fn a_started_program_has_the_signals_that_it_is_used_to() {
    let case = Case::new(&["/bin/grep", "^Sig", "/proc/self/status"], |_| {});
    // The caller ignores some and blocks none; the program does neither.
    let seen = case.shell("trap '' HUP CHLD USR1; exec $runtime run $id").ok();
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(crate::field(&seen, name), "0000000000000000", "{seen}");
    }
}

#[test]
fn exit_codes_come_through_a_caller_that_ignores_the_end_of_its_children() {
    let case = Case::new(&["/bin/sh", "-c", "exit 42"], |spec| {
        spec["hooks"] = serde_json::json!({"createRuntime": [{"path": "/bin/true"}]});
    });
    assert_eq!(case.shell("trap '' CHLD; exec $runtime run $id").code, 42);
    let killed = Case::new(&["/bin/sh", "-c", "kill -9 $$; sleep 1000"], |spec| {
        // Of its own pid namespace the kernel spares the first process, also from itself.
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "pid");
        spec["mounts"]
            .as_array_mut()
            .expect("an array")
            .retain(|mount| mount["type"] != "proc");
        spec["linux"]["maskedPaths"] = serde_json::json!([]);
        spec["linux"]["readonlyPaths"] = serde_json::json!([]);
    });
    assert_eq!(killed.shell("trap '' CHLD; exec $runtime run $id").code, 137);
}

#[test]
fn a_caller_without_streams_runs_containers() {
    let case = Case::new(
        &["/bin/sh", "-c", "ls /proc/self/fd > /tmp/fds; exit 7"],
        |spec| {
            spec["hooks"] = serde_json::json!({
                "createRuntime": [{"path": "/bin/true"}],
                "startContainer": [{"path": "/bin/true"}],
            });
        },
    );
    let finished = case.shell("exec $runtime run $id <&- >&- 2>&-");
    assert_eq!(finished.code, 7, "{finished}");
    // Three, and the one that ls reads the directory by.
    assert_eq!(crate::read(case.rootfs("tmp/fds")), "0\n1\n2\n3\n");
}

#[test]
fn signals_in_the_foreground_are_passed_on() {
    let script = "trap 'echo got it; exit 3' TERM; echo ready > /tmp/ready; while :; do sleep 0.1; done";
    let case = Case::new(&["/bin/sh", "-c", script], |_| {});
    let mut child = case
        .command(&["run", case.id()])
        .stdin(std::process::Stdio::null())
        .stdout(fs::File::create(case.scratch.join("said")).expect("a file"))
        .spawn()
        .expect("start the runtime");
    eventually("ready", Duration::from_secs(10), || {
        case.rootfs("tmp/ready").exists().then_some(())
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal the runtime");
    assert_eq!(child.wait().expect("wait").code(), Some(3));
    assert_eq!(crate::read(case.scratch.join("said")), "got it\n");
}

#[test]
fn a_file_that_the_output_goes_to_stays_the_callers() {
    use std::os::unix::fs::MetadataExt as _;
    let case = Case::new(&["/bin/sh", "-c", "cat; echo out"], |spec| {
        spec["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
    });
    fs::write(case.bundle().join("in"), "in\n").expect("write");
    case.shell("exec $runtime run $id < in > said").ok();
    let said = case.bundle().join("said");
    assert_eq!(crate::read(&said), "in\nout\n");
    assert_eq!(fs::metadata(&said).expect("stat").uid(), 0);
    assert_eq!(fs::metadata(case.bundle().join("in")).expect("stat").uid(), 0);
}
