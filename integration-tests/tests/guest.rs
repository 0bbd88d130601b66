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

#[test]
fn a_group_is_changed_frozen_watched_and_emptied_under_pure_cgroup_v2() {
    let scratch = Scratch::new();
    let home = scratch.directory("bundle");
    bundle::configure(&home, &["/bin/sleep", "1000"], |spec| {
        spec["root"]["path"] = "/root-fs".into();
        spec["linux"]["cgroupsPath"] = "/wharf/box".into();
        // What is said of v2's own files wins.
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20},
            "pids": {"limit": 16},
            "cpu": {"cpus": "0"},
            "unified": {"memory.max": "50331648", "memory.high": "41943040", "pids.max": "20"},
        });
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let program = binaries::ours("wharf-runtime");
    let config = home.join("config.json");
    let script = r#"
mkdir -p /root-fs/bin /root-fs/proc /root-fs/sys /root-fs/dev /root-fs/tmp
cp -a /bin/. /root-fs/bin/
group=/sys/fs/cgroup/wharf/box
values() { for file in "$@"; do echo $file $(cat $group/$file); done; }
start() { wharf-runtime run --detach --bundle /job box < /dev/null > /tmp/said 2>&1; }
left() { echo left $(find /sys/fs/cgroup -name 'box*') $(ls /run/wharf-runtime); }
start
values memory.max memory.high pids.max cpuset.cpus
echo === changed
wharf-runtime update --memory 32M --memory-swap 64M --cpuset-cpus 1 box
echo '{"unified": {"pids.max": "24", "cpu.max": "30000 100000", "memory.high": "max"}}' | wharf-runtime update -r - box
values memory.max memory.swap.max memory.high pids.max cpuset.cpus cpu.max
echo === frozen
wharf-runtime pause box
values cgroup.freeze
wharf-runtime exec box /bin/true || echo refused while frozen
wharf-runtime exec --ignore-paused box /bin/echo let in > /tmp/late 2>&1 &
until [ $(wc -l < $group/cgroup.procs) = 2 ]; do sleep 0.1; done
echo waits $(cat /tmp/late)
wharf-runtime resume box
wait $!
cat /tmp/late
echo === watched
wharf-runtime events --stats box > /tmp/stats
for key in memory pids psi; do grep -o "\"$key\":" /tmp/stats | sort -u; done
wharf-runtime events box > /tmp/events 2>&1 &
watcher=$!
until grep -q '"oom"' /tmp/events; do wharf-runtime exec box /bin/tail /dev/zero > /tmp/eaten 2>&1; done
grep -o '"type":"oom","id":"box"' /tmp/events | head -1
echo === emptied
mkdir $group/box-below
for i in 1 2 3; do
  wharf-runtime exec --detach --cgroup box-below box /bin/sleep 1000 < /dev/null > /dev/null 2>&1
done
echo below $(wc -l < $group/box-below/cgroup.procs)
wharf-runtime pause box
wharf-runtime kill box KILL
until [ "$(grep populated $group/cgroup.events)" = 'populated 0' ]; do sleep 0.1; done
wharf-runtime delete box
wait $watcher
left
echo === taken
mkdir -p $group
sleep 1000 & other=$!
echo $other > $group/cgroup.procs
start || cat /tmp/said
kill -9 $other
wait $other
echo 1 > $group/cgroup.freeze
start || cat /tmp/said
echo 0 > $group/cgroup.freeze
ls -d $group
rmdir $group
left
"#;
    let output = guest::run_in_guest(&scratch, &[&program, &config], script, Duration::from_secs(230));
    let parts: Vec<Vec<&str>> = output
        .split("=== ")
        .map(|part| part.lines().map(str::trim).collect())
        .collect();
    let expected: [&[&str]; 6] = [
        &[
            "memory.max 50331648",
            "memory.high 41943040",
            "pids.max 20",
            "cpuset.cpus 0",
        ],
        &[
            "memory.max 33554432",
            "memory.swap.max 33554432",
            "memory.high max",
            "pids.max 24",
            "cpuset.cpus 1",
            "cpu.max 30000 100000",
        ],
        &["cgroup.freeze 1", "refused while frozen", "waits", "let in"],
        &[
            "\"memory\":",
            "\"pids\":",
            "\"psi\":",
            "\"type\":\"oom\",\"id\":\"box\"",
        ],
        &["below 3", "left"],
        &["/sys/fs/cgroup/wharf/box", "left"],
    ];
    assert_eq!(parts.len(), expected.len(), "{output}");
    for (part, expected) in parts.iter().zip(expected) {
        for line in expected {
            assert!(part.contains(line), "{line}:\n{output}");
        }
    }
}
