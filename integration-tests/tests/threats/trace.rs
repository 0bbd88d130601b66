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
        "echo ready; while :; do for p in /proc/[0-9]*; do
           [ -e $p/root{0} ] && read -r line <$p/root{0} && echo \"read: $line\"
         done; done",
        secret.display()
    );
    fs::write(attack.rootfs("hunt"), script).expect("write");
    attack.configure(&["/bin/sh", "/hunt"], |spec| grant(spec, "CAP_SYS_PTRACE"));
    attack.start();
    attack.says("ready");
    for _ in 0..60 {
        attack.exec(&[], &["/bin/true"]).ok();
    }
    assert!(!attack.said().contains("of the host"), "{}", attack.said());
    attack.delete();
}
