//! What only a second kernel can show: containers under pure cgroup v2.

use std::path::Path;
use std::time::Duration;

use integration_tests::{Scratch, binaries, bundle, guest};
use serde_json::json;

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

#[test]
fn limits_of_a_bundle_hold_under_pure_cgroup_v2() {
    let scratch = Scratch::new();
    let inside = "for file in memory.max cpu.max cpu.weight pids.max; do echo $file $(cat /sys/fs/cgroup/$file); done; \
                  echo cgroup $(cat /proc/self/cgroup); \
                  for i in $(seq 20); do sleep 1 & done 2>&1 | head -1; true";
    let home = scratch.directory("bundle");
    bundle::configure(&home, &["/bin/sh", "-c", inside], |spec| {
        spec["root"]["path"] = "/root-fs".into();
        spec["linux"]["cgroupsPath"] = "/wharf/limited".into();
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        spec["linux"]["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000, "shares": 512});
        spec["linux"]["resources"]["pids"] = json!({"limit": 16});
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.push(json!({"type": "cgroup"}));
    });
    let program = binaries::ours("wharf-runtime");
    let config = home.join("config.json");
    let script = r#"
set -e
mkdir -p /root-fs/bin /root-fs/proc /root-fs/sys /root-fs/dev /root-fs/tmp
cp -a /bin/. /root-fs/bin/
wharf-runtime run --bundle /job limited
echo left $(find /sys/fs/cgroup -name limited) $(ls /run/wharf-runtime)
sed -i 's/"args": \[/&"\/bin\/sleep", "1000"], "was": [/' /job/config.json
wharf-runtime run --detach --bundle /job again < /dev/null > /tmp/out 2>&1
wharf-runtime exec again /bin/cat /proc/self/cgroup | sed 's/^/exec /'
echo processes $(wc -l < /sys/fs/cgroup/wharf/limited/cgroup.procs)
wharf-runtime delete --force again
echo left $(find /sys/fs/cgroup -name limited) $(ls /run/wharf-runtime)
"#;
    let output = guest::run_in_guest(&scratch, &[&program, &config], script, Duration::from_secs(200));
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    for expected in [
        "memory.max 67108864",
        "cpu.max 50000 100000",
        "pids.max 16",
        "cgroup 0::/",
        "exec 0::/",
        "processes 1",
    ] {
        assert!(lines.contains(&expected), "{expected}:\n{output}");
    }
    assert_eq!(
        lines.iter().filter(|line| **line == "left").count(),
        2,
        "{output}"
    );
    assert!(
        output.contains("fork"),
        "twenty processes fit below a limit of 16:\n{output}"
    );
}
