//! Containers in the background: listed, looked into, stopped, started again, removed.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use integration_tests::eventually;

use crate::instance::{Instance, SOON};

const COUNT: &str = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done";

#[test]
fn a_container_in_the_background_from_its_start_to_its_removal() {
    let instance = Instance::start();
    let wharf = &instance.wharf;
    let id = instance.detached("count", &["--label", "app=test"], &["sh", "-c", COUNT]);
    assert!(
        id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );

    let table = wharf.run(&["ps"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    let columns = [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ];
    let found: Vec<usize> = columns
        .iter()
        .filter_map(|column| lines[0].find(column))
        .collect();
    assert!(found.len() == columns.len() && found.is_sorted(), "{table}");
    assert!(
        lines[1].starts_with(&id[..12]) && lines[1].contains("Up ") && lines[1].ends_with("count"),
        "{table}"
    );
    assert_eq!(
        wharf
            .run(&["ps", "-q", "--no-trunc", "--filter", "label=app=test"])
            .ok(),
        format!("{id}\n")
    );
    assert_eq!(wharf.run(&["ps", "-q", "--filter", "name=other"]).ok(), "");
    assert_eq!(
        wharf.run(&["ps", "--format", r"{{.Names}}\t{{.State}}"]).ok(),
        "count\trunning\n"
    );

    instance.logged("count", "line 3");
    let last = wharf.run(&["logs", "--tail", "2", "count"]).ok();
    assert_eq!(last.lines().count(), 2, "{last}");
    let timed = wharf.run(&["logs", "-t", "--tail", "1", "count"]).ok();
    let (time, rest) = timed.split_once(' ').expect("a time and the line");
    assert!(
        time.ends_with('Z') && time.contains('T') && rest.starts_with("line "),
        "{timed}"
    );

    wharf.run(&["exec", "-d", "count", "touch", "/tmp/made"]).ok();
    eventually("the detached exec has run", SOON, || {
        (wharf.run(&["exec", "count", "ls", "/tmp"]).ok() == "made\n").then_some(())
    });
    let output = wharf.run(&[
        "exec",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "user",
        "count",
        "sh",
        "-c",
        "echo $A; pwd; id -u",
    ]);
    assert_eq!(output.ok(), "b\n/tmp\n1000\n");

    let error = instance
        .wharf
        .run(&instance.run_arguments(&["-d", "--name", "count"], &["true"]))
        .fails_with(125);
    assert!(error.contains("already in use"), "{error}");

    // A shell without a trap ignores SIGTERM as the first process: it is killed when the time is over.
    let began = Instant::now();
    assert_eq!(wharf.run(&["stop", "-t", "1", "count"]).ok(), "count\n");
    let took = began.elapsed().as_secs_f64();
    assert!((1.0..8.0).contains(&took), "{took} s");
    assert_eq!(
        instance.inspect("count", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
    assert_eq!(wharf.run(&["wait", "count"]).ok(), "137\n");
    let table = wharf.run(&["ps", "-a", "--filter", "status=exited"]).ok();
    assert!(table.contains("Exited (137) "), "{table}");
    assert_eq!(wharf.run(&["ps", "-q"]).ok(), "");

    let lines = wharf.run(&["logs", "count"]).ok().lines().count();
    assert_eq!(wharf.run(&["start", "count"]).ok(), "count\n");
    eventually("it writes again, behind what it wrote before", SOON, || {
        (wharf.run(&["logs", "count"]).ok().lines().count() > lines).then_some(())
    });
    assert_eq!(
        wharf.run(&["kill", "-s", "KILL", &id[..12]]).ok(),
        format!("{}\n", &id[..12])
    );
    assert_eq!(wharf.run(&["wait", "count"]).ok(), "137\n");
    assert_eq!(wharf.run(&["rm", "count"]).ok(), "count\n");
    assert_eq!(wharf.run(&["ps", "-aq"]).ok(), "");
    let error = wharf.run(&["logs", "count"]).fails_with(1);
    assert!(error.contains("No such container: count"), "{error}");
}

#[test]
fn following_a_log_shows_what_comes_and_ends_with_the_container() {
    let instance = Instance::start();
    let script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last";
    instance.detached("job", &[], &["sh", "-c", script]);
    let mut child = instance
        .wharf
        .command(&["logs", "-f", "job"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start wharf logs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().transpose().expect("read");
    assert_eq!(next().as_deref(), Some("first"));
    instance.wharf.run(&["exec", "job", "touch", "/tmp/go"]).ok();
    assert_eq!(next().as_deref(), Some("last"));
    assert_eq!(next(), None);
    assert!(child.wait().expect("wait").success());
    assert_eq!(instance.wharf.run(&["wait", "job"]).ok(), "0\n");
    assert_eq!(instance.wharf.run(&["rm", "-v", "job"]).ok(), "job\n");
}

#[test]
fn created_containers_are_started_and_attached_to() {
    let instance = Instance::start();
    let arguments = [
        "create",
        "--name",
        "later",
        "--network",
        "none",
        &instance.image,
        "sh",
        "-c",
        "echo ran; exit 6",
    ];
    let id = instance.wharf.run(&arguments).ok();
    assert_eq!(
        instance.inspect("later", "{{.Id}} {{.State.Status}}"),
        format!("{} created", id.trim_end())
    );
    for _ in 0..2 {
        let finished = instance.wharf.run(&["start", "-a", "later"]);
        assert_eq!(
            (finished.stdout.as_str(), finished.code),
            ("ran\n", 6),
            "{finished}"
        );
    }
    assert_eq!(instance.wharf.run(&["logs", "later"]).ok(), "ran\nran\n");
}

#[test]
fn objects_that_are_not_there_do_not_keep_the_others() {
    let instance = Instance::start();
    instance.detached("one", &[], &["sleep", "1000"]);
    instance.detached("two", &[], &["sleep", "1000"]);
    let finished = instance.wharf.run(&["rm", "-f", "one", "two"]);
    assert_eq!(finished.ok(), "one\ntwo\n");
    instance.detached("one", &[], &["sleep", "1000"]);
    let finished = instance.wharf.run(&["kill", "nobody", "one"]);
    assert_eq!(
        (finished.stdout.as_str(), finished.code),
        ("one\n", 1),
        "{finished}"
    );
    assert!(
        finished.stderr.contains("No such container: nobody"),
        "{finished}"
    );
    instance.wharf.run(&["rm", "-f", "nobody"]).ok();
    let finished = instance.wharf.run(&["inspect", "one", "nobody"]);
    assert!(
        finished.code == 1 && finished.stderr.contains("No such object: nobody"),
        "{finished}"
    );
    let document: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(document[0]["Name"], "/one");
}

#[test]
fn versions_and_facts_are_told_to_people_and_scripts() {
    let instance = Instance::start();
    let version: serde_json::Value =
        serde_json::from_str(&instance.wharf.run(&["version", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(version["Client"]["Version"], version["Server"]["Version"]);
    instance.detached("one", &[], &["sleep", "1000"]);
    let info: serde_json::Value =
        serde_json::from_str(&instance.wharf.run(&["info", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(info["ContainersRunning"], 1);
    let text = instance.wharf.run(&["info"]).ok();
    assert!(text.contains("Containers: 1\n Running: 1\n"), "{text}");
}
