//! The guest itself: what the tests that use it rely on.

use std::time::Duration;

use integration_tests::{Scratch, guest};

#[test]
fn the_guest_has_pure_cgroup_v2_and_overlay() {
    let scratch = Scratch::new();
    let script =
        "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.controllers; grep overlay /proc/filesystems";
    let output = guest::run_in_guest(&scratch, &[], script, Duration::from_secs(120));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "0::/", "{output}");
    for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
        assert!(
            lines[1].split(' ').any(|word| word == controller),
            "{controller} in {output}"
        );
    }
    assert!(lines[2].contains("overlay"), "{output}");
}
