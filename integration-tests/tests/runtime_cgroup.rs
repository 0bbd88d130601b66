//! Control groups on the host's own layout, with processes in them. Needs root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use wharf_runtime::cgroup::{Cgroup, CgroupPlan, Layout, Version};

/// A group of its own for each test, removed with its processes when the test ends.
struct Group {
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Group {
    fn new(name: &str, resources: &str) -> Self {
        let plan = plan(name, resources);
        Self {
            cgroup: plan.create().unwrap(),
            children: Vec::new(),
        }
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) -> i32 {
        let child = Command::new(program).args(arguments).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.children.push(child);
        self.cgroup.join(pid).unwrap();
        pid
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in &mut self.children {
            let killed = child.kill();
            let reaped = self.cgroup.thaw().map(|()| child.wait());
            if !std::thread::panicking() {
                killed.unwrap();
                reaped.unwrap().unwrap();
            }
        }
        let removed = self.cgroup.remove();
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

fn unique(name: &str) -> PathBuf {
    PathBuf::from(format!("/wharf-test-{}-{name}", std::process::id()))
}

fn plan(name: &str, resources: &str) -> CgroupPlan {
    let resources = serde_json::from_str(resources).unwrap();
    CgroupPlan::compile(
        &Layout::detect().unwrap(),
        Some(&unique(name)),
        name,
        Some(&resources),
    )
    .unwrap()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn process_state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn limits_are_in_force_and_everything_is_removed() {
    let paths = {
        let mut group = Group::new(
            "limits",
            r#"{"memory": {"limit": 64000000}, "cpu": {"shares": 512}, "pids": {"limit": 7}}"#,
        );
        let pid = group.spawn("sleep", &["100"]);
        assert_eq!(group.cgroup.pids().unwrap(), [pid]);
        let stats = group.cgroup.stats().unwrap();
        assert_eq!((stats.pids.current, stats.pids.limit), (1, 7));
        assert!(
            (63_000_000..=64_000_000).contains(&stats.memory.memory.limit),
            "{stats:?}"
        );
        let again = Cgroup::from_paths(group.cgroup.paths().clone()).unwrap();
        assert_eq!(again.pids().unwrap(), [pid]);
        let refused = plan("limits", "{}").create().unwrap_err().to_string();
        assert!(
            refused.starts_with("container's cgroup is not empty: 1 process(es)"),
            "{refused}"
        );
        again
            .update(
                &serde_json::from_str(r#"{"memory": {"limit": 32000000}, "pids": {"limit": 9}}"#).unwrap(),
                &mut Vec::new(),
            )
            .unwrap();
        assert_eq!(again.stats().unwrap().pids.limit, 9);
        group.cgroup.paths().clone()
    };
    for path in paths.values() {
        assert!(!path.exists(), "{} is left", path.display());
    }
}

#[test]
fn a_frozen_group_stops_and_a_killed_one_ends_even_frozen() {
    let mut group = Group::new("freeze", "{}");
    let pid = group.spawn("sh", &["-c", "while :; do :; done"]);
    assert!(!group.cgroup.is_frozen().unwrap());
    group.cgroup.freeze().unwrap();
    assert!(group.cgroup.is_frozen().unwrap());
    let used = || group.cgroup.stats().unwrap().cpu.usage;
    let before = used();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(used(), before, "a frozen process used the processor");
    group.cgroup.thaw().unwrap();
    eventually("the process runs again", || used() > before);
    group.cgroup.freeze().unwrap();
    group.cgroup.kill(9).unwrap();
    eventually("the process is dead", || process_state(pid) == 'Z');
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let error = plan("failed", r#"{"cpu": {"cpus": "9999"}}"#)
        .create()
        .unwrap_err()
        .to_string();
    assert!(error.contains("cpuset.cpus"), "{error}");
    let name = unique("failed");
    for hierarchy in Layout::detect().unwrap().hierarchies() {
        let path = hierarchy.mount.join(name.strip_prefix("/").unwrap());
        assert!(!path.exists(), "{} is left", path.display());
    }
}

#[test]
fn a_group_that_was_left_frozen_is_not_joined() {
    let group = Group::new("frozen", "{}");
    group.cgroup.freeze().unwrap();
    let refused = plan("frozen", "{}").create().unwrap_err().to_string();
    assert!(
        refused.starts_with("container's cgroup unexpectedly frozen: /"),
        "{refused}"
    );
    group.cgroup.thaw().unwrap();
}

#[test]
fn running_out_of_memory_is_told() {
    let mut group = Group::new("oom", r#"{"memory": {"limit": 8000000, "swap": 8000000}}"#);
    let mut watch = group.cgroup.oom_watch().unwrap().expect("a memory controller");
    assert!(!watch.take().unwrap());
    let gate = tempfile::tempdir().unwrap();
    let fifo = fifo_in(&gate);
    let script = "read go < \"$0\"; x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    let pid = group.spawn("sh", &["-c", script, fifo.to_str().unwrap()]);
    open_gate(&fifo);
    eventually("the process is killed", || process_state(pid) == 'Z');
    eventually("it is counted", || {
        group.cgroup.stats().unwrap().memory.oom_kills > 0
    });
    assert!(watch.take().unwrap());
    assert!(!watch.take().unwrap(), "the notice was consumed");
}

#[test]
fn devices_are_denied_in_v1_and_by_the_v2_program() {
    let mut group = Group::new("devices", "{}");
    group.spawn("sleep", &["100"]);
    let layout = Layout::detect().unwrap();
    if layout.version() != Version::V2 {
        let list = fs::read_to_string(group.cgroup.paths()["devices"].join("devices.list")).unwrap();
        assert!(list.starts_with("c *:* m\nb *:* m\nc 1:3 rwm\n"), "{list}");
    }
    // The v2 hierarchy alone, as a host without v1 shows it; on a hybrid host its groups take programs too.
    let v2 = layout.hierarchy("").expect("a v2 hierarchy").mount.clone();
    let mounts = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", v2.display());
    let only_v2 = Layout::parse(&mounts, "0::/\n", "0 0 4294967295").unwrap();
    let plan = CgroupPlan::compile(&only_v2, Some(&unique("program")), "x", None).unwrap();
    let mut group = Group {
        cgroup: plan.create().unwrap(),
        children: Vec::new(),
    };
    assert_eq!(
        group.cgroup.paths(),
        &BTreeMap::from([(
            String::new(),
            v2.join(unique("program").strip_prefix("/").unwrap())
        )])
    );
    let script = "read go < \"$0\"; head -c1 /dev/zero >/dev/null || exit 1; head -c1 /dev/kmsg >/dev/null 2>&1; test $? -ne 0";
    let gate = tempfile::tempdir().unwrap();
    let fifo = fifo_in(&gate);
    group.spawn("sh", &["-c", script, fifo.to_str().unwrap()]);
    open_gate(&fifo);
    let status = group.children.pop().unwrap().wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(group.cgroup.v2_dir_fd().unwrap().is_some());
    let pid = group.spawn("sleep", &["100"]);
    group.cgroup.freeze().unwrap();
    assert!(group.cgroup.is_frozen().unwrap());
    group.cgroup.kill(9).unwrap();
    eventually("the process is dead", || process_state(pid) == 'Z');
}

fn fifo_in(directory: &tempfile::TempDir) -> PathBuf {
    let fifo = directory.path().join("gate");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fifo
}

/// Lets a process go on that was moved into its group before it does anything.
fn open_gate(fifo: &Path) {
    fs::write(fifo, "go\n").unwrap();
}

#[test]
fn a_process_enters_by_itself_whoever_it_is() {
    let layout = Layout::detect().unwrap();
    if layout.version() == Version::V2 {
        // There a process is born in its group.
        assert!(Group::new("born", "{}").cgroup.entrances().unwrap().is_empty());
        return;
    }
    let mut group = Group::new("entrance", "{}");
    let entrances = group.cgroup.entrances().unwrap();
    let v1 = layout.hierarchies().iter().filter(|one| one.controllers != [""]);
    assert_eq!(entrances.len(), v1.count());
    for entrance in &entrances {
        let file = fs::File::from(std::os::fd::AsFd::as_fd(entrance).try_clone_to_owned().unwrap());
        // It is the opener's privilege that counts, not the writer's.
        let mut command = Command::new("sh");
        command.args(["-c", "printf 0; exec sleep 100"]);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        let child = command.stdout(file).spawn().unwrap();
        let tasks = entrance.path().to_owned();
        let pid = child.id().to_string();
        group.children.push(child);
        eventually("the process is in the group", || {
            fs::read_to_string(&tasks)
                .unwrap()
                .lines()
                .any(|line| line == pid)
        });
    }
}
