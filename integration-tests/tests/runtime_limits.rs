//! A container's control groups over its life: limits that change, what is told of their use, who joins them, and how all of
//! its processes end.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::{Finished, Scratch, binaries, bundle, eventually, run};
use serde_json::{Value, json};

/// A running container, and the runtime with a state root of its own.
struct Running {
    scratch: Scratch,
}

impl Running {
    fn start(arguments: &[&str], edit: impl FnOnce(&mut Value)) -> Running {
        let running = Running {
            scratch: Scratch::new(),
        };
        let directory = running.scratch.join("bundle");
        let group = format!("/{}", running.id());
        bundle::bundle(&directory, arguments, |spec| {
            spec["linux"]["cgroupsPath"] = group.into();
            edit(spec);
        });
        let output = fs::File::create(directory.join("output")).expect("the container's output");
        let mut command = running.command(&["run", "--detach", "--bundle"]);
        command.arg(&directory).arg(running.id());
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output);
        let status = command.status().expect("start the runtime");
        let said = fs::read_to_string(directory.join("output")).unwrap_or_default();
        assert!(status.success(), "{status}: {said}");
        running
    }

    fn id(&self) -> &str {
        self.scratch.unique()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::ours("wharf-runtime"));
        command
            .arg("--root")
            .arg(self.scratch.join("state"))
            .args(arguments);
        command
    }

    /// A command with the container's name as its last argument.
    fn with(&self, arguments: &[&str]) -> Finished {
        run(self.command(arguments).arg(self.id()))
    }

    fn kill(&self, signal: &str) -> Finished {
        run(self.command(&["kill"]).args([self.id(), signal]))
    }

    fn exec(&self, options: &[&str], program: &[&str]) -> Finished {
        run(self.command(&["exec"]).args(options).arg(self.id()).args(program))
    }

    /// The container's directory of a controller, v1 or v2.
    fn group(&self, controller: &str) -> PathBuf {
        let v1 = PathBuf::from("/sys/fs/cgroup").join(controller).join(self.id());
        if v1.exists() {
            v1
        } else {
            PathBuf::from("/sys/fs/cgroup").join(self.id())
        }
    }

    /// A value by its v1 or its v2 name.
    fn value(&self, controller: &str, v1: &str, v2: &str) -> String {
        let group = self.group(controller);
        let text = fs::read_to_string(group.join(v1)).or_else(|_| fs::read_to_string(group.join(v2)));
        text.expect("a limit").trim().to_owned()
    }

    fn pid(&self) -> i32 {
        let state: Value = serde_json::from_str(&self.with(&["state"]).ok()).expect("JSON");
        state["pid"].as_i64().expect("a pid") as i32
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.with(&["delete", "--force"]);
    }
}

fn is_gone(pid: i32) -> bool {
    // A zombie has no memory any more; whoever adopts it may take its time.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn limits_change_one_at_a_time() {
    let box_ = Running::start(&["/bin/sleep", "1000"], |spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        spec["linux"]["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000, "shares": 512});
        spec["linux"]["resources"]["pids"] = json!({"limit": 16});
    });
    let quota = |name: &str| fs::read_to_string(box_.group("cpu").join(name));
    let cpu = || match quota("cpu.max") {
        Ok(text) => text.trim().to_owned(),
        Err(_) => format!(
            "{} {}",
            quota("cpu.cfs_quota_us").expect("a quota").trim(),
            quota("cpu.cfs_period_us").expect("a period").trim()
        ),
    };
    let pids = || box_.value("pids", "pids.max", "pids.max");
    let memory = || box_.value("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(
        (cpu().as_str(), pids().as_str(), memory().as_str()),
        ("50000 100000", "16", "67108864")
    );
    box_.with(&["update", "--cpu-quota", "20000"]).ok();
    box_.with(&["update", "--cpu-period", "50000"]).ok();
    assert_eq!(cpu(), "20000 50000", "each builds on the one before");
    box_.with(&["update", "--pids-limit", "-1", "--memory", "96M"])
        .ok();
    assert_eq!((pids().as_str(), memory().as_str()), ("max", "100663296"));
    box_.with(&["update", "--pids-limit=0"]).ok();
    assert_eq!(pids(), "1", "no process at all is none less than one");
    box_.with(&["update", "--cpu-quota", "-1"]).ok();
    assert!(["-1 50000", "max 50000"].contains(&cpu().as_str()), "{}", cpu());

    let mut command = box_.command(&["update", "--resources", "-"]);
    let mut child = command
        .arg(box_.id())
        .stdin(Stdio::piped())
        .spawn()
        .expect("update");
    let changes = br#"{"pids": {"limit": 7}, "memory": {"limit": 50331648}}"#;
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(changes)
        .expect("tell the changes");
    assert!(child.wait().expect("wait").success());
    assert_eq!((pids().as_str(), memory().as_str()), ("7", "50331648"));
}

#[test]
fn a_refused_change_leaves_the_limits_of_before() {
    let box_ = Running::start(&["/bin/sleep", "1000"], |spec| {
        spec["linux"]["resources"]["cpu"] = json!({"shares": 512});
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        spec["linux"]["resources"]["pids"] = json!({"limit": 16});
    });
    let refused = box_.with(&[
        "update",
        "--cpu-share",
        "700",
        "--pids-limit",
        "9",
        "--cpuset-cpus",
        "4000",
    ]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("cpuset.cpus"), "{}", refused.stderr);
    let weight = box_.value("cpu", "cpu.shares", "cpu.weight");
    assert!(["512", "59"].contains(&weight.as_str()), "{weight}");
    assert_eq!(box_.value("pids", "pids.max", "pids.max"), "16");
    for (arguments, phrase) in [
        (
            ["--memory", "lots"],
            "invalid value for memory: invalid size: 'lots'",
        ),
        (["--cpu-share", "-3"], "invalid value for cpu-share"),
        (
            ["--l3-cache-schema", "L3:0=f"],
            "Intel RDT/CAT: l3 cache schema is not enabled",
        ),
        (["--resources", "/nonexistent"], "open /nonexistent"),
    ] {
        let refused = box_.with(&["update", arguments[0], arguments[1]]);
        assert_ne!(refused.code, 0, "{arguments:?}");
        assert!(
            refused.stderr.contains(phrase),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
    box_.kill("KILL").ok();
    eventually("the container ends", Duration::from_secs(10), || {
        box_.with(&["state"]).ok().contains("stopped").then_some(())
    });
    let late = box_.with(&["update", "--pids-limit", "5"]);
    assert!(late.stderr.contains("container not running"), "{}", late.stderr);
}

#[test]
fn what_a_container_uses_is_told_until_it_is_gone() {
    let box_ = Running::start(&["/bin/sleep", "1000"], |_| {});
    let once: Value =
        serde_json::from_str(&box_.with(&["events", "--stats"]).ok()).expect("one line of JSON");
    assert_eq!(
        (once["type"].as_str(), once["id"].as_str()),
        (Some("stats"), Some(box_.id()))
    );
    for pointer in [
        "/data/cpu/usage/total",
        "/data/memory/usage/usage",
        "/data/pids/current",
    ] {
        let value = once.pointer(pointer).and_then(Value::as_u64);
        assert!(value.is_some_and(|value| value > 0), "{pointer} in {once}");
    }
    for key in ["cpuset", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
        assert!(
            once["data"].as_object().expect("an object").contains_key(key),
            "{key} in {once}"
        );
    }
    let mut command = box_.command(&["events", "--interval", "50ms"]);
    let mut child = command
        .arg(box_.id())
        .stdout(Stdio::piped())
        .spawn()
        .expect("events");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a line").expect("text");
        assert!(line.starts_with(r#"{"type":"stats","id":""#), "{line}");
    }
    box_.with(&["delete", "--force"]).ok();
    let ended = eventually("events ends with the container", Duration::from_secs(10), || {
        child.try_wait().expect("wait")
    });
    assert!(ended.success());
    let refused = Running::start(&["/bin/true"], |_| {});
    eventually("the container ends", Duration::from_secs(10), || {
        refused.with(&["state"]).ok().contains("stopped").then_some(())
    });
    let refused = refused.with(&["events", "--stats"]);
    assert!(refused.stderr.contains("is not running"), "{}", refused.stderr);
}

#[test]
fn running_out_of_memory_is_an_event() {
    let eat = "sleep 0.5; while true; do head -c 50000000 /dev/zero | tail > /dev/null; done";
    let box_ = Running::start(&["/bin/sh", "-c", eat], |spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    });
    let mut command = box_.command(&["events", "--interval", "1h"]);
    let mut child = command
        .arg(box_.id())
        .stdout(Stdio::piped())
        .spawn()
        .expect("events");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("text");
    assert_eq!(line, format!(r#"{{"type":"oom","id":"{}"}}"#, box_.id()));
    box_.with(&["delete", "--force"]).ok();
    assert!(child.wait().expect("wait").success());
}

#[test]
fn a_process_joins_the_group_below_that_is_asked_for() {
    let box_ = Running::start(&["/bin/sleep", "1000"], |_| {});
    fs::create_dir(box_.group("pids").join("sub")).expect("a group below");
    let inside = |options: &[&str]| box_.exec(options, &["/bin/cat", "/proc/self/cgroup"]);
    let pids_line = |text: &str| {
        text.lines()
            .find(|line| line.contains(":pids:") || line.starts_with("0::"))
            .map(str::to_owned)
    };
    let controller = if box_.group("pids").starts_with("/sys/fs/cgroup/pids") {
        "pids:sub"
    } else {
        "sub"
    };
    let line = pids_line(&inside(&["--cgroup", controller]).ok()).expect("a line");
    assert!(line.ends_with("/sub"), "{line}");
    let line = pids_line(&inside(&[]).ok()).expect("a line");
    assert!(!line.ends_with("/sub"), "{line}");
    for (path, phrase) in [
        ("..", "bad sub cgroup path"),
        ("nowhere", "adding pid"),
        ("nosuch:sub", "unknown controller"),
        (":sub", "empty <controller> prefix"),
    ] {
        let refused = inside(&["--cgroup", path]);
        assert_ne!(refused.code, 0, "{path}");
        assert!(refused.stderr.contains(phrase), "{path}: {}", refused.stderr);
    }
}

#[test]
fn a_paused_container_lets_processes_in_only_when_asked_and_when_it_runs_again() {
    let box_ = Running::start(&["/bin/sleep", "1000"], |_| {});
    box_.with(&["pause"]).ok();
    let refused = box_.exec(&[], &["/bin/true"]);
    assert!(
        refused.stderr.contains("cannot exec in a paused container"),
        "{}",
        refused.stderr
    );
    let mut command = box_.command(&["exec", "--ignore-paused", box_.id(), "/bin/echo", "resumed"]);
    let child = command.stdout(Stdio::piped()).spawn().expect("exec");
    eventually(
        "the process waits in the frozen group",
        Duration::from_secs(10),
        || {
            let procs = fs::read_to_string(box_.group("freezer").join("cgroup.procs")).unwrap_or_default();
            (procs.lines().count() > 1).then_some(())
        },
    );
    box_.with(&["resume"]).ok();
    let output = child.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "resumed\n");
}

#[test]
fn killing_ends_all_processes_of_a_container_in_the_hosts_pid_namespace() {
    let box_ = Running::start(
        &["/bin/sh", "-c", "for i in 1 2 3; do sleep 1000 & done; wait"],
        |spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != "pid");
        },
    );
    let all =
        || -> Vec<i32> { serde_json::from_str(&box_.with(&["ps", "--format", "json"]).ok()).expect("pids") };
    let pids = eventually("all are there", Duration::from_secs(10), || {
        Some(all()).filter(|pids| pids.len() == 4)
    });
    // Without its first process it is stopped, but not empty.
    let init = rustix::process::Pid::from_raw(box_.pid()).expect("a pid");
    rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("kill the first");
    eventually("it is stopped", Duration::from_secs(10), || {
        box_.with(&["state"]).ok().contains("stopped").then_some(())
    });
    let term = box_.kill("TERM");
    assert!(term.stderr.contains("container not running"), "{}", term.stderr);
    box_.kill("KILL").ok();
    eventually("all are gone", Duration::from_secs(10), || {
        pids.iter().all(|pid| is_gone(*pid)).then_some(())
    });
}

#[test]
fn a_signal_for_all_goes_to_the_first_process_and_does_not_mind_a_stopped_container() {
    let second = r#"trap "echo second >> /tmp/heard" USR1; trap "echo asked >> /tmp/heard" TERM
        echo $$ > /tmp/pid; while :; do sleep 0.1; done"#;
    let first =
        format!("trap 'echo first >> /tmp/heard' USR1; /bin/sh -c '{second}' & while :; do wait; done");
    let box_ = Running::start(&["/bin/sh", "-c", &first], |spec| {
        spec["root"]["readonly"] = false.into();
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let all = |flag: &str, signal: &str| run(box_.command(&["kill", flag]).args([box_.id(), signal]));
    let inside = |path: &str| {
        let path = box_.scratch.join("bundle/rootfs/tmp").join(path);
        fs::read_to_string(path).unwrap_or_default()
    };
    let other = eventually("both listen", Duration::from_secs(10), || {
        inside("pid").trim().parse().ok()
    });
    all("--all", "USR1").ok();
    eventually("the first hears it", Duration::from_secs(10), || {
        (inside("heard") == "first\n").then_some(())
    });
    // What it had been sent before, it would have heard before.
    let other = rustix::process::Pid::from_raw(other).expect("a pid");
    rustix::process::kill_process(other, rustix::process::Signal::TERM).expect("signal the other");
    eventually("the other hears only this", Duration::from_secs(10), || {
        (inside("heard") == "first\nasked\n").then_some(())
    });
    all("-a", "KILL").ok();
    eventually("it is stopped", Duration::from_secs(10), || {
        box_.with(&["state"]).ok().contains("stopped").then_some(())
    });
    for signal in ["0", "TERM"] {
        let alone = box_.kill(signal).fails_with(1);
        assert!(alone.contains("container not running"), "{alone}");
        all("--all", signal).ok();
    }
    all("--all", "NONSENSE").fails_with(1);
}
