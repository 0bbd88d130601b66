//! Procfs as an attacker arranges it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::attack::{Attack, grant};

/// CVE-2025-52881: what the runtime does in a container does not go through the container's own `/proc`.
#[test]
fn cve_2025_52881_exec_needs_no_proc_of_the_container() {
    let attack = Attack::new();
    let script = "mount -t tmpfs none /proc && mkdir -p /proc/self/attr/apparmor /proc/self/fd /proc/thread-self/attr &&
         for f in attr/exec attr/current attr/apparmor/exec cgroup status uid_map; do
           mkfifo /proc/self/$f; done
         cp /bin/busybox /proc/self/exe
         echo ready; sleep 100";
    let busybox = attack.rootfs("bin/mkfifo");
    std::os::unix::fs::symlink("busybox", busybox).expect("link an applet");
    attack.configure(&["/bin/sh", "-c", script], |spec| {
        grant(spec, "CAP_SYS_ADMIN");
    });
    attack.start();
    attack.says("ready");
    let said = attack.exec(&["--user", "1000:1000"], &["/bin/id", "-u"]).ok();
    assert_eq!(said, "1000\n");
    attack.delete();
}

/// A sysctl is written to a procfs of the runtime's own, also when another file system covers the container's.
#[test]
fn a_sysctl_goes_to_the_kernel_and_nowhere_else() {
    let attack = Attack::new();
    let host = || fs::read_to_string("/proc/sys/kernel/domainname").expect("read");
    let before = host();
    attack.configure(&["/bin/cat", "/proc/sys/kernel/domainname"], |spec| {
        spec["linux"]["sysctl"] = serde_json::json!({"kernel.domainname": "inside"});
    });
    assert_eq!(attack.run().ok(), "inside\n");
    assert_eq!(host(), before);
    for name in [
        "kernel.core_pattern",
        "kernel.domainname.",
        "net/../kernel/core_pattern",
        "vm.swappiness",
    ] {
        attack.configure(&["/bin/true"], |spec| {
            spec["linux"]["sysctl"] = serde_json::json!({name: "|/x"});
        });
        assert_ne!(attack.run().code, 0, "{name}");
    }
}

/// CVE-2021-41103: the state is root's alone, whatever the umask.
#[test]
fn the_state_is_closed_whatever_the_umask() {
    let attack = Attack::new();
    attack.configure(&["/bin/sleep", "100"], |_| {});
    let mut command = std::process::Command::new("sh");
    let runtime = attack.command(&["create", "--bundle"]);
    command.args(["-c", "umask 0; exec \"$@\" >/dev/null 2>&1", "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.arg(attack.scratch.join("bundle")).arg(attack.id());
    integration_tests::run(&mut command).ok();
    let mode = |path: &str| {
        let metadata = fs::symlink_metadata(attack.scratch.join("state").join(path));
        metadata.expect("stat").permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o711);
    assert_eq!(mode(attack.id()), 0o700);
    assert_eq!(mode(&format!("{}/state.json", attack.id())), 0o600);
    attack.delete();
}
