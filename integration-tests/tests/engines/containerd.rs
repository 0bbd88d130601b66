//! Other engines use our parts in place of their own.

use std::path::Path;
use std::process::Command;

use integration_tests::containerd::Containerd;
use integration_tests::{Scratch, binaries, bundle, image, run};

/// The reference: what the other tests assert is true of the peer's own parts.
#[test]
fn containerd_runs_a_container_with_its_own_parts() {
    containerd_runs(&["--runtime", "io.containerd.runc.v2"]);
}

#[test]
fn containerd_runs_a_container_with_our_shim() {
    containerd_runs(&["--runtime", "io.containerd.wharf.v2"]);
}

#[test]
fn containerd_runs_a_container_with_our_runtime_under_its_own_shim() {
    let runtime = binaries::ours("wharf-runtime");
    let runtime = runtime.to_str().expect("a UTF-8 path");
    containerd_runs(&["--runtime", "io.containerd.runc.v2", "--runc-binary", runtime]);
}

fn containerd_runs(options: &[&str]) {
    let scratch = Scratch::new();
    let containerd = Containerd::start(&scratch);
    let root = scratch.directory("root");
    bundle::busybox_root(&root);
    let root = root.to_str().expect("a UTF-8 path");
    let id = scratch.unique();

    let command = |before: &[&str], id: &str, after: &[&str]| {
        let mut command = containerd.ctr();
        command
            .arg("run")
            .args(before)
            .args(options)
            .args(["--rootfs", root, id])
            .args(after);
        command
    };
    let output = run(&mut command(&["--rm"], id, &["/bin/echo", "hello from inside"])).ok();
    assert_eq!(output, "hello from inside\n");
    run(&mut command(&["--rm"], id, &["/bin/sh", "-c", "exit 3"])).fails_with(3);

    run(&mut command(&["--detach"], id, &["/bin/sleep", "1000"])).ok();
    let tasks = run(containerd.ctr().args(["tasks", "ls"])).ok();
    assert!(
        tasks
            .lines()
            .any(|line| line.starts_with(id) && line.contains("RUNNING")),
        "{tasks}"
    );
    let output =
        run(containerd
            .ctr()
            .args(["tasks", "exec", "--exec-id", "one", id, "/bin/echo", "executed"]))
        .ok();
    assert_eq!(output, "executed\n");
    run(containerd.ctr().args(["tasks", "kill", "--signal", "KILL", id])).ok();
    integration_tests::eventually("the task stops", std::time::Duration::from_secs(10), || {
        run(containerd.ctr().args(["tasks", "ls"]))
            .ok()
            .contains("STOPPED")
            .then_some(())
    });
    let deleted = run(containerd.ctr().args(["tasks", "delete", id]));
    assert!(
        deleted.code == 0 && deleted.stderr.contains("exit with non-zero exit code 137"),
        "{deleted}"
    );
    run(containerd.ctr().args(["containers", "delete", id])).ok();
}

/// The reference, as above.
#[test]
fn podman_runs_a_container_with_runc() {
    podman_runs(&binaries::peer("runc"));
}

#[test]
fn podman_runs_a_container_with_our_runtime() {
    podman_runs(&binaries::ours("wharf-runtime"));
}

fn podman_runs(runtime: &Path) {
    let scratch = Scratch::new();
    let layout = image::busybox(&scratch.join("image"));
    let archive = scratch.join("image.tar");
    run(Command::new(binaries::peer("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!("oci:{}:latest", layout.path().display()))
        .arg(format!(
            "docker-archive:{}:localhost/busybox:latest",
            archive.display()
        )))
    .ok();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new(binaries::peer("podman"));
        command
            .arg("--root")
            .arg(scratch.join("storage"))
            .arg("--runroot")
            .arg(scratch.join("run"));
        command.arg("--runtime").arg(runtime);
        command
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"])
            .args(arguments);
        run(&mut command)
    };
    podman(&[
        "load",
        "--quiet",
        "--input",
        archive.to_str().expect("a UTF-8 path"),
    ])
    .ok();
    let image = "localhost/busybox:latest";
    // Podman asks for its own limits, above what a container of this machine may allow.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let podman_run = |options: &[&str], command: &[&str]| {
        podman(&[&["run"], options, &limits, &["--network", "none", image], command].concat())
    };
    assert_eq!(podman_run(&["--rm"], &["/bin/echo", "hello"]).ok(), "hello\n");
    podman_run(&["--rm"], &["/bin/sh", "-c", "exit 5"]).fails_with(5);
    let id = podman_run(&["--detach"], &["/bin/sleep", "1000"]).ok();
    let id = id.trim();
    assert_eq!(podman(&["exec", id, "/bin/echo", "executed"]).ok(), "executed\n");
    assert!(podman(&["ps", "--format", "{{.Status}}"]).ok().starts_with("Up"));
    podman(&["rm", "--force", "--time", "0", id]).ok();
    assert_eq!(podman(&["ps", "--all", "--quiet"]).ok(), "");
}
