//! The daemon is killed under running containers: nothing of theirs may be lost.

use std::time::{Duration, SystemTime};

use integration_tests::{eventually, run};

use crate::instance::{Instance, SOON};

/// Numbers its lines without a gap, and ends with code 42 once it is told to.
const COUNT: &str =
    "i=0; while [ ! -e /tmp/end ]; do echo $i; i=$((i+1)); sleep 0.01; done; echo end; exit 42";

/// Asserts that `log` is 0, 1, 2, … and gives the number of lines.
fn complete(log: &str) -> usize {
    let lines: Vec<&str> = log.lines().filter(|line| *line != "end").collect();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, number.to_string(), "the log misses or repeats a line");
    }
    lines.len()
}

#[test]
fn a_container_outlives_a_killed_daemon_and_its_log_is_complete() {
    let mut instance = Instance::start();
    instance.detached("count", &[], &["sh", "-c", COUNT]);
    instance.logged("count", "20\n");
    let pid = instance.inspect("count", "{{.State.Pid}}");
    let before = complete(&instance.wharf.run(&["logs", "count"]).ok());
    instance.wharf.kill9();
    instance.wharf.restart();

    assert_eq!(
        instance.inspect("count", "{{.State.Status}} {{.State.Pid}}"),
        format!("running {pid}")
    );
    eventually("it goes on writing", SOON, || {
        (complete(&instance.wharf.run(&["logs", "count"]).ok()) > before + 20).then_some(())
    });
    assert_eq!(
        instance.wharf.run(&["exec", "count", "echo", "still here"]).ok(),
        "still here\n"
    );
    instance.wharf.run(&["exec", "count", "touch", "/tmp/end"]).ok();
    assert_eq!(instance.wharf.run(&["wait", "count"]).ok(), "42\n");
    let log = instance.wharf.run(&["logs", "count"]).ok();
    assert!(log.ends_with("\nend\n"), "{log}");
    complete(&log);
    instance.wharf.run(&["rm", "count"]).ok();
}

#[test]
fn an_exit_without_a_daemon_is_known_afterwards_with_its_time() {
    let mut instance = Instance::start();
    let directory = instance.scratch.directory("shared");
    let volume = format!("{}:/tmp", directory.display());
    instance.detached("count", &["-v", &volume], &["sh", "-c", COUNT]);
    instance.logged("count", "5\n");
    let pid = instance.inspect("count", "{{.State.Pid}}");
    instance.wharf.kill9();
    let told = SystemTime::now();
    std::fs::write(directory.join("end"), "").expect("tell it to end");
    eventually("it ends", SOON, || {
        // The shim reaps it; a zombie or another process would still have this directory.
        (!std::path::Path::new("/proc").join(&pid).exists()).then_some(())
    });
    let ended = SystemTime::now();
    // So that the time of the exit can be told from the time of the restart.
    std::thread::sleep(Duration::from_millis(1500));
    instance.wharf.restart();

    assert_eq!(
        instance.inspect("count", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 42"
    );
    assert_eq!(instance.wharf.run(&["wait", "count"]).ok(), "42\n");
    let finished = instance.inspect("count", "{{.State.FinishedAt}}");
    let seconds = run(std::process::Command::new("date").args(["+%s.%N", "-d", &finished])).ok();
    let seconds: f64 = seconds.trim().parse().expect("a number");
    let since_epoch = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64()
    };
    assert!(
        (since_epoch(told) - 0.01..=since_epoch(ended) + 0.01).contains(&seconds),
        "ended at {finished}, between {} and {}",
        since_epoch(told),
        since_epoch(ended)
    );
    let log = instance.wharf.run(&["logs", "count"]).ok();
    assert!(log.ends_with("\nend\n"), "{log}");
    complete(&log);
    assert_eq!(instance.wharf.run(&["rm", "count"]).ok(), "count\n");
}

#[test]
fn a_container_that_is_removed_when_it_ends_outlives_a_killed_daemon() {
    let mut instance = Instance::start();
    let id = instance.detached("brief", &["--rm"], &["sh", "-c", COUNT]);
    instance.logged("brief", "20\n");
    let before = complete(&instance.wharf.run(&["logs", "brief"]).ok());
    instance.wharf.kill9();
    instance.wharf.restart();
    eventually("it goes on writing", SOON, || {
        (complete(&instance.wharf.run(&["logs", "brief"]).ok()) > before + 20).then_some(())
    });
    instance.wharf.run(&["exec", "brief", "touch", "/tmp/end"]).ok();
    eventually("it is removed", SOON, || {
        instance.wharf.run(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    for place in ["root", "state"] {
        let directory = instance.wharf.home().join(place).join("containers").join(&id);
        assert!(!directory.exists(), "{} is left", directory.display());
    }
}

#[test]
fn nothing_is_left_of_a_container_that_died_with_the_boot() {
    let mut instance = Instance::start();
    let arguments = [
        "create",
        "--rm",
        "--network",
        "none",
        "--name",
        "brief",
        &instance.image,
    ];
    let id = instance.wharf.run(&arguments).ok();
    let id = id.trim_end();
    let kept = instance.detached("kept", &[], &["true"]);
    assert_eq!(instance.wharf.run(&["wait", "kept"]).ok(), "0\n");
    let rows = run(instance.wharf.ctr().args(["containers", "ls", "-q"])).ok();
    assert!(rows.contains(id), "{rows}");
    instance.wharf.kill9();
    // What a boot does to a tmpfs.
    std::fs::remove_dir_all(instance.wharf.home().join("state/containers")).expect("empty the state");
    instance.wharf.restart();
    let known = instance.wharf.run(&["ps", "-aq", "--no-trunc"]).ok();
    assert_eq!(known.trim_end(), kept);
    let rows = run(instance.wharf.ctr().args(["containers", "ls", "-q"])).ok();
    assert_eq!(rows.trim_end(), kept);
    let snapshots = run(instance.wharf.ctr().args(["snapshots", "ls"])).ok();
    assert!(!snapshots.contains(id), "{snapshots}");
    instance.wharf.run(&["rm", "kept"]).ok();
}
