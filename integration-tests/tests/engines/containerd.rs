//! Other engines use our parts in place of their own.

use integration_tests::containerd::Containerd;
use integration_tests::{Scratch, binaries, bundle, run};

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
