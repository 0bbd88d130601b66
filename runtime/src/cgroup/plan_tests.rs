//! Plans compared as text, on layouts that the test host need not have.

use super::*;
use crate::cgroup::Layout;

const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";
const V1_OWN: &str = "\
9:name=systemd:/
8:pids:/jobs
6:freezer:/
5:devices:/
4:memory:/jobs
3:cpuset:/
1:cpu,cpuacct:/
";
const HOST_UIDS: &str = "0 0 4294967295";

fn v1_layout() -> Layout {
    Layout::parse(V1, V1_OWN, HOST_UIDS).unwrap()
}

fn hybrid_layout() -> Layout {
    let mounts = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    Layout::parse(&mounts, &format!("{V1_OWN}0::/\n"), HOST_UIDS).unwrap()
}

fn v2_layout(own: &str) -> Layout {
    let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    Layout::parse(mounts, &format!("0::{own}\n"), HOST_UIDS).unwrap()
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// The plan without the device rules, which have tests of their own.
fn text(layout: &Layout, path: Option<&str>, json: &str) -> String {
    let plan = CgroupPlan::compile(layout, path.map(Path::new), "box", Some(&resources(json))).unwrap();
    let lines = plan.to_string();
    let kept: Vec<&str> = lines.lines().filter(|line| !line.contains("devices.")).collect();
    kept.join("\n")
}

fn refusal(layout: &Layout, path: Option<&str>, json: &str) -> String {
    CgroupPlan::compile(layout, path.map(Path::new), "box", Some(&resources(json)))
        .unwrap_err()
        .to_string()
}

const EVERYTHING: &str = r#"{
    "memory": {"limit": 64000000, "swap": 128000000, "reservation": 32000000, "swappiness": 10, "disableOOMKiller": true},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 100}
}"#;

#[test]
fn v1_limits_go_to_their_controllers_below_an_absolute_path() {
    assert_eq!(
        text(&v1_layout(), Some("/docker/box"), EVERYTHING),
        "\
[name=systemd] /sys/fs/cgroup/systemd/docker/box (Tracking)
[pids] /sys/fs/cgroup/pids/docker/box (V1)
  pids.max = 100
[freezer] /sys/fs/cgroup/freezer/docker/box (V1)
[devices] /sys/fs/cgroup/devices/docker/box (V1)
[memory] /sys/fs/cgroup/memory/docker/box (V1)
  memory.limit_in_bytes = 64000000 (after the next on EINVAL)
  memory.memsw.limit_in_bytes = 128000000
  memory.soft_limit_in_bytes = 32000000
  memory.oom_control = 1
  memory.swappiness = 10
[cpuset] /sys/fs/cgroup/cpuset/docker/box (Cpuset)
  cpuset.cpus = 0-1
  cpuset.mems = 0
[cpu,cpuacct] /sys/fs/cgroup/cpu,cpuacct/docker/box (V1)
  cpu.shares = 512
  cpu.cfs_period_us = 100000 (after the next on EINVAL)
  cpu.cfs_quota_us = 50000 (after the next on EINVAL)
  cpu.cfs_burst_us = 1000"
    );
}

#[test]
fn v2_limits_go_to_one_directory_with_converted_values() {
    assert_eq!(
        text(&v2_layout("/"), Some("/docker/box"), EVERYTHING),
        "\
[] /sys/fs/cgroup/docker/box (V2)
  pids.max = 100
  memory.swap.max = 64000000
  memory.max = 64000000
  memory.low = 32000000
  cpu.weight = 59
  cpu.max = 50000 100000 (after the next on EINVAL)
  cpu.max.burst = 1000
  cpuset.cpus = 0-1
  cpuset.mems = 0"
    );
}

#[test]
fn a_hybrid_host_also_gets_a_v2_group_that_limits_nothing() {
    let plan = text(&hybrid_layout(), Some("/box"), r#"{"pids": {"limit": -1}}"#);
    assert!(
        plan.contains("[pids] /sys/fs/cgroup/pids/box (V1)\n  pids.max = max\n"),
        "{plan}"
    );
    assert!(
        plan.ends_with("[] /sys/fs/cgroup/unified/box (Tracking)"),
        "{plan}"
    );
}

#[test]
fn without_a_path_the_group_is_named_after_the_container_below_the_own_group() {
    let plan = text(&v1_layout(), None, "{}");
    assert!(plan.contains("/sys/fs/cgroup/memory/jobs/box"), "{plan}");
    assert!(plan.contains("/sys/fs/cgroup/cpuset/box"), "{plan}");
    assert_eq!(text(&v1_layout(), Some(""), "{}"), plan);
}

#[test]
fn on_v2_a_relative_group_stands_beside_the_own_one() {
    let at = |own| text(&v2_layout(own), None, "{}");
    assert_eq!(
        at("/user.slice/session-1.scope"),
        "[] /sys/fs/cgroup/user.slice/box (V2)"
    );
    assert_eq!(at("/"), "[] /sys/fs/cgroup/box (V2)");
}

#[test]
fn a_path_cannot_leave_the_hierarchy() {
    for (path, expected) in [
        ("/../../../etc", "/sys/fs/cgroup/etc"),
        ("/a/./b/../c", "/sys/fs/cgroup/a/c"),
        ("../../x", "/sys/fs/cgroup/x"),
    ] {
        assert_eq!(
            text(&v2_layout("/"), Some(path), "{}"),
            format!("[] {expected} (V2)"),
            "{path}"
        );
    }
    assert_eq!(
        refusal(&v2_layout("/"), Some("/"), "{}"),
        "linux.cgroupsPath: \"/\" names no cgroup"
    );
    assert_eq!(
        refusal(&v1_layout(), Some("a/.."), "{}"),
        "linux.cgroupsPath: \"a/..\" names no cgroup"
    );
}

#[test]
fn a_relative_path_needs_the_own_group_in_sight() {
    let mounts = "36 31 0:33 /docker/ab /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";
    let layout = Layout::parse(mounts, "5:devices:/elsewhere\n", HOST_UIDS).unwrap();
    assert_eq!(
        refusal(&layout, None, "{}"),
        "linux.cgroupsPath: a relative path cannot be used: the own cgroup is not visible below \
         /sys/fs/cgroup/devices"
    );
    assert!(text(&layout, Some("/x"), "{}").contains("/sys/fs/cgroup/devices/x"));
}

#[test]
fn a_limit_on_a_missing_controller_is_refused_and_an_unlimited_one_is_not_missed() {
    let layout = v1_layout();
    assert_eq!(
        refusal(
            &layout,
            None,
            r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]}"#
        ),
        "linux.resources: cannot write hugetlb.2MB.limit_in_bytes: the host has no \"hugetlb\" cgroup controller"
    );
    assert!(refusal(&layout, None, r#"{"blockIO": {"weight": 500}}"#).contains("\"blkio\""));
    assert!(!text(&layout, None, r#"{"blockIO": {"weight": 0}, "network": {}}"#).contains("blkio"));
}

#[test]
fn values_out_of_their_range_are_refused() {
    for (json, expected) in [
        (
            r#"{"cpu": {"shares": 1}}"#,
            "linux.resources.cpu.shares: the minimum allowed cpu-shares is 2",
        ),
        (
            r#"{"cpu": {"shares": 262145}}"#,
            "linux.resources.cpu.shares: the maximum allowed cpu-shares is 262144",
        ),
        (
            r#"{"memory": {"swappiness": 101}}"#,
            "linux.resources.memory.swappiness: invalid memory swappiness value: 101 (valid range is 0-100)",
        ),
        (
            r#"{"unified": {"memory.high": "1"}}"#,
            "linux.resources.unified: invalid configuration: cannot use unified on cgroup v1",
        ),
    ] {
        assert_eq!(refusal(&v1_layout(), None, json), expected);
    }
    for (json, expected) in [
        (
            r#"{"cpu": {"realtimeRuntime": 1}}"#,
            "linux.resources.cpu: cgroup v2 has no realtime limits",
        ),
        (
            r#"{"memory": {"limit": 100, "swap": 50}}"#,
            "linux.resources.memory.swap: memory+swap limit should be >= memory limit",
        ),
        (
            r#"{"unified": {"../x.y": "1"}}"#,
            "linux.resources.unified: unified resource \"../x.y\" must be a file name (no slashes)",
        ),
        (
            r#"{"unified": {"high": "1"}}"#,
            "linux.resources.unified: unified resource \"high\" must be in the form CONTROLLER.PARAMETER",
        ),
        (
            r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 4096}]}"#,
            "linux.resources.hugepageLimits[0].pageSize: bad page size \"../2MB\"",
        ),
        (
            r#"{"network": {"classID": 5}}"#,
            "linux.resources.network: cgroup v2 has no network controllers",
        ),
    ] {
        assert_eq!(refusal(&v2_layout("/"), None, json), expected);
    }
}

#[test]
fn v2_takes_unified_values_in_a_fixed_order_and_throttles_by_line() {
    let json = r#"{
        "unified": {"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 wbps=2\n"},
        "blockIO": {"weight": 500, "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 10}]}
    }"#;
    assert_eq!(
        text(&v2_layout("/"), None, json),
        "\
[] /sys/fs/cgroup/box (V2)
  io.bfq.weight = 500 (else io.weight = 4950)
  io.max = 8:0 wiops=10
  io.max = 8:0 rbps=1
  io.max = 8:16 wbps=2
  memory.high = 1000"
    );
}

#[test]
fn device_rules_are_written_on_v1_and_compiled_on_v2() {
    let devices = |layout: &Layout| {
        CgroupPlan::compile(layout, None, "box", None)
            .unwrap()
            .to_string()
    };
    assert!(devices(&v1_layout()).contains("(V1)\n  devices.deny = a *:* rwm\n  devices.allow = c *:* m\n"));
    assert!(devices(&v2_layout("/")).contains("(V2)\n  filter: devices.deny = a *:* rwm\n"));
    let rootless = Layout::parse(V1, V1_OWN, "0 1000 1").unwrap();
    assert!(
        !devices(&rootless).contains("devices.deny"),
        "a user namespace cannot have device rules"
    );
}

#[test]
fn what_v2_cannot_do_is_told() {
    let asked = resources(r#"{"memory": {"swappiness": 10, "disableOOMKiller": true}}"#);
    let plan = CgroupPlan::compile(&v2_layout("/"), None, "box", Some(&asked)).unwrap();
    assert_eq!(
        plan.warnings(),
        [
            "memory swappiness is ignored: cgroup v2 has none",
            "disabling the OOM killer is ignored: cgroup v2 cannot",
        ]
    );
}
