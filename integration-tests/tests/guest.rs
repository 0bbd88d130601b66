//! What only a second kernel can show: containers under pure cgroup v2.

use std::path::Path;
use std::time::Duration;

use integration_tests::{Scratch, binaries, guest};

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

#[test]
fn limits_of_wharf_run_hold_under_pure_cgroup_v2() {
    let scratch = Scratch::new();
    let programs = ["wharf", "wharfd", "containerd-shim-wharf-v2", "wharf-runtime"].map(binaries::ours);
    let programs: Vec<&Path> = programs.iter().map(std::path::PathBuf::as_path).collect();
    // The container has its own cgroup namespace: its own limits are at the root of what it sees.
    let script = r"
set -e
limits() {
  wharf run --rm --network none --memory 64m --cpus 0.5 --pids-limit 32 rootfs:/ /bin/sh -c '
    for file in memory.max cpu.max pids.max; do echo $file $(cat /sys/fs/cgroup/$file); done
    echo cgroup $(cat /proc/self/cgroup)
    for i in $(seq 40); do sleep 1 & done 2>&1 | head -1
    true'
}
limits
";
    let output = guest::run_in_guest(&scratch, &programs, script, Duration::from_secs(200));
    for expected in [
        "memory.max 67108864",
        "cpu.max 50000 100000",
        "pids.max 32",
        "cgroup 0::/",
    ] {
        assert!(
            output.lines().any(|line| line == expected),
            "{expected}:\n{output}"
        );
    }
    assert!(
        output.contains("fork"),
        "forty processes fit below a limit of 32:\n{output}"
    );
}
