//! Debian's containerd driving the shim, and dying over it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use integration_tests::containerd::Containerd;
use integration_tests::leftovers::mounts_below;
use integration_tests::{Scratch, eventually, image, run};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{LIMIT, command};

/// A containerd that has the image `tests/busybox:latest`.
fn containerd(scratch: &Scratch) -> Containerd {
    let containerd = Containerd::start(scratch);
    let layout = image::busybox(&scratch.join("image"));
    let archive = scratch.join("image.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(layout.path())
        .arg("-cf")
        .arg(&archive)
        .arg("."))
    .ok();
    run(containerd
        .ctr()
        .args(["image", "import", "--base-name", "tests/busybox"])
        .arg(&archive))
    .ok();
    containerd
}

/// Kills what a failed test leaves running in the bundles of a containerd.
struct Bundles(PathBuf);

impl Drop for Bundles {
    fn drop(&mut self) {
        for bundle in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let text = fs::read_to_string(bundle.path().join("shim.pid")).unwrap_or_default();
            if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
                // Gone is what is wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
            let id = bundle.file_name().to_string_lossy().into_owned();
            let sockets = self.0.join("unused");
            let deleted = command(&bundle.path(), &id, &sockets, "delete").output();
            if !deleted.is_ok_and(|output| output.status.success()) {
                eprintln!("container {id} may be left over");
            }
        }
    }
}

const IMAGE: &str = "tests/busybox:latest";
const RUNTIME: [&str; 2] = ["--runtime", "io.containerd.wharf.v2"];

#[test]
fn containerd_runs_containers_through_it() {
    let scratch = Scratch::new();
    let tasks = scratch.join("containerd/state/io.containerd.runtime.v2.task");
    let _bundles = Bundles(tasks.join("default"));
    let containerd = containerd(&scratch);
    let ctr = |arguments: &[&str]| run(containerd.ctr().args(arguments));
    let id = format!("{}-run", scratch.unique());
    let once = |script: &str| {
        run(containerd
            .ctr()
            .arg("run")
            .args(RUNTIME)
            .args(["--rm", IMAGE, &id, "/bin/sh", "-c", script]))
    };
    assert_eq!(once("echo hello").ok(), "hello\n");
    once("exit 9").fails_with(9);
    let long = format!("{}-long", scratch.unique());
    run(containerd
        .ctr()
        .arg("run")
        .args(RUNTIME)
        .args(["-d", IMAGE, &long, "/bin/sleep", "1000"]))
    .ok();
    assert_eq!(
        ctr(&["task", "exec", "--exec-id", "e1", &long, "/bin/echo", "inside"]).ok(),
        "inside\n"
    );
    ctr(&["task", "pause", &long]).ok();
    assert!(ctr(&["task", "ls"]).ok().contains("PAUSED"));
    ctr(&["task", "resume", &long]).ok();
    assert!(ctr(&["task", "metrics", &long]).ok().contains("pids.current"));
    ctr(&["task", "kill", "--signal", "KILL", &long]).ok();
    eventually("the task stops", LIMIT, || {
        ctr(&["task", "ls"]).ok().contains("STOPPED").then_some(())
    });
    ctr(&["task", "rm", &long]).ok();
    ctr(&["container", "rm", &long]).ok();
    assert_eq!(mounts_below(&tasks), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(tasks.join("default")).map_or(0, Iterator::count), 0);
}

#[test]
fn containers_outlive_containerd() {
    let scratch = Scratch::new();
    let first = containerd(&scratch);
    let stays = format!("{}-stays", scratch.unique());
    let ends = format!("{}-ends", scratch.unique());
    for (id, script) in [
        (&stays, "sleep 1000"),
        (&ends, "until test -e /end; do sleep 0.01; done; exit 3"),
    ] {
        run(first
            .ctr()
            .arg("run")
            .args(RUNTIME)
            .args(["-d", IMAGE, id, "/bin/sh", "-c", script]))
        .ok();
    }
    let tasks = scratch.join("containerd/state/io.containerd.runtime.v2.task/default");
    let _bundles = Bundles(tasks.clone());
    first.daemon.kill9();
    fs::write(tasks.join(&ends).join("rootfs/end"), "").unwrap();
    // The exit is recorded with nobody to tell.
    let record = eventually("the exit is recorded", LIMIT, || {
        fs::read_to_string(tasks.join(&ends).join("exits/init.json")).ok()
    });
    assert!(record.contains("\"exit_status\":3"), "{record}");
    let second = Containerd::start(&scratch);
    let ctr = |arguments: &[&str]| run(second.ctr().args(arguments));
    let listed = ctr(&["task", "ls"]).ok();
    let line = listed.lines().find(|line| line.starts_with(&stays)).unwrap();
    assert!(line.contains("RUNNING"), "{listed}");
    assert_eq!(
        ctr(&["task", "exec", "--exec-id", "e1", &stays, "/bin/echo", "inside"]).ok(),
        "inside\n"
    );
    ctr(&["task", "kill", "--signal", "KILL", &stays]).ok();
    eventually("the task stops", LIMIT, || {
        ctr(&["task", "ls"])
            .ok()
            .lines()
            .any(|line| line.starts_with(&stays) && line.contains("STOPPED"))
            .then_some(())
    });
    ctr(&["task", "rm", &stays]).ok();
    // What ended while nobody looked has kept its status.
    let removed = ctr(&["task", "rm", &ends]);
    assert!(removed.stderr.contains("exit code 3"), "{}", removed.stderr);
    removed.ok();
    assert_eq!(mounts_below(&tasks), Vec::<PathBuf>::new());
}
