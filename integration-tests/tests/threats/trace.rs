//! What the processes of a container see of one that is just being made among them.

use std::fs;

use crate::attack::{Attack, grant};

/// The executed process is born in the container's pid namespace. Until it has entered the container's root, its
/// `/proc/PID/root` is a way to the host for whoever may trace (the family of CVE-2016-9962).
#[test]
fn an_executed_process_brings_no_root_of_the_host() {
    let attack = Attack::new();
    let secret = attack.canary().join("secret");
    // Only what the shell does itself: the window is short.
    let script = format!(
        "echo ready; while :; do for p in /proc/[0-9]*; do [ -e $p/root{} ] && echo reached; done; done",
        secret.display()
    );
    fs::write(attack.rootfs("hunt"), script).expect("write");
    attack.configure(&["/bin/sh", "/hunt"], |spec| {
        grant(spec, "CAP_SYS_PTRACE");
        // The parent writes it while the new process waits: that makes the window longer.
        spec["process"]["oomScoreAdj"] = 500.into();
    });
    attack.start();
    attack.says("ready");
    for _ in 0..100 {
        attack.exec(&[], &["/bin/true"]).ok();
    }
    assert_eq!(attack.said(), "ready\n");
    attack.delete();
}

/// The same by its descriptors: from a directory of the host's that it holds, `..` leads on.
#[test]
fn an_executed_process_brings_no_descriptor_of_the_host_needs_5_12() {
    let attack = Attack::new();
    let secret = attack.canary().join("secret");
    attack.configure(
        &[
            "/bin/sh",
            "-c",
            "/bin/probe hunt $0; sleep 100",
            &secret.to_string_lossy(),
        ],
        |spec| {
            grant(spec, "CAP_SYS_PTRACE");
        },
    );
    attack.start();
    attack.says("ready");
    for _ in 0..100 {
        attack.exec(&[], &["/bin/true"]).ok();
    }
    assert_eq!(attack.said(), "ready\n");
    attack.delete();
}
