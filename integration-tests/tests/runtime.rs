//! `wharf-runtime` beside runc: what a process inside sees, what the commands print, how they fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use integration_tests::{Finished, Scratch, binaries, bundle, eventually, leftovers, run};
use serde_json::{Value, json};

/// An OCI runtime with a state root of the test's own.
struct Runtime {
    program: PathBuf,
    root: PathBuf,
}

impl Runtime {
    fn ours(scratch: &Scratch) -> Runtime {
        Runtime {
            program: binaries::ours("wharf-runtime"),
            root: scratch.join("wharf-runtime"),
        }
    }

    fn runc(scratch: &Scratch) -> Runtime {
        Runtime {
            program: binaries::peer("runc"),
            root: scratch.join("runc"),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    fn run_bundle(&self, bundle: &Path, id: &str) -> Finished {
        run(self.command(&["run", "--bundle"]).arg(bundle).arg(id))
    }

    /// `run --detach`: with files, not pipes, as the container's output, or the caller would wait for the container.
    fn run_detached(&self, bundle: &Path, id: &str) {
        let mut command = self.command(&["run", "--detach", "--bundle"]);
        command.arg(bundle).arg(id);
        let output = fs::File::create(bundle.join("output")).expect("the container's output file");
        command
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output);
        let status = command.status().expect("start the runtime");
        let said = fs::read_to_string(bundle.join("output")).unwrap_or_default();
        assert!(status.success(), "{command:?} ended with {status}: {said}");
    }
}

#[test]
fn a_process_inside_sees_what_it_sees_under_runc() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/probe", "identity"], |_| {});
    let id = scratch.unique();
    let report = |runtime: &Runtime| -> Value {
        serde_json::from_str(&runtime.run_bundle(&directory, id).ok()).expect("the probe prints JSON")
    };
    let (ours, theirs) = (report(&Runtime::ours(&scratch)), report(&Runtime::runc(&scratch)));
    for field in ["status", "environment", "cwd"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    let descriptors = |report: &Value| {
        report["descriptors"]
            .as_object()
            .expect("object")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(descriptors(&ours), ["0", "1", "2"]);
    assert_eq!(descriptors(&theirs), descriptors(&ours));
    let host = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).expect("own namespace");
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        // Which are the host's depends on its cgroup version; it must be the same ones.
        let is_host = |report: &Value| report["namespaces"][name] == host(name).to_string_lossy().as_ref();
        assert_eq!(is_host(&ours), is_host(&theirs), "{name}");
    }
    assert_ne!(ours["namespaces"]["pid"], host("pid").to_string_lossy().as_ref());
    // The root's own source differs by name only; everything below must be the same, in the same order.
    let mounts = |report: &Value| -> Vec<String> {
        let list = report["mounts"].as_array().expect("array");
        list.iter()
            .skip(1)
            .map(|line| line.as_str().expect("string").to_string())
            .collect()
    };
    let (ours, theirs) = (mounts(&ours), mounts(&theirs));
    for line in &theirs {
        let point = line.split(' ').next().unwrap_or_default();
        let same: Vec<&String> = ours
            .iter()
            .filter(|other| other.split(' ').next() == Some(point))
            .collect();
        assert!(
            !same.is_empty(),
            "runc mounts {line}; we mount nothing at {point}: {ours:#?}"
        );
    }
    assert_eq!(ours.len(), theirs.len(), "ours {ours:#?}\nrunc's {theirs:#?}");
}

#[test]
fn the_life_of_a_container_by_command_line() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/sleep", "1000"], |_| {});
    let (runtime, id) = (Runtime::ours(&scratch), scratch.unique());
    let state =
        || -> Value { serde_json::from_str(&runtime.run(&["state", id]).ok()).expect("state prints JSON") };

    let pid_file = scratch.join("pid");
    let output = fs::File::create(scratch.join("output")).expect("output file");
    let mut create = runtime.command(&["create", "--bundle"]);
    create.arg(&directory).arg("--pid-file").arg(&pid_file).arg(id);
    create
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone().expect("dup"))
        .stderr(output);
    assert!(create.status().expect("start the runtime").success());
    let pid: i32 = fs::read_to_string(&pid_file)
        .expect("the pid file")
        .trim()
        .parse()
        .expect("a pid");
    assert_eq!(state()["status"], "created");
    assert_eq!(state()["pid"], pid);

    runtime.run(&["start", id]).ok();
    assert_eq!(state()["status"], "running");
    let list = runtime.run(&["list"]).ok();
    assert!(list.starts_with("ID"), "{list}");
    assert!(
        list.lines()
            .any(|line| line.starts_with(id) && line.contains("running")),
        "{list}"
    );
    let list: Value = serde_json::from_str(&runtime.run(&["list", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(list[0]["id"], id);

    assert_eq!(runtime.run(&["exec", id, "/bin/echo", "inside"]).ok(), "inside\n");
    runtime
        .run(&["exec", id, "/bin/sh", "-c", "exit 7"])
        .fails_with(7);
    let processes: Value =
        serde_json::from_str(&runtime.run(&["ps", "--format", "json", id]).ok()).expect("JSON");
    assert_eq!(processes, json!([pid]));

    let refusal = runtime.run(&["delete", id]).one_line_error();
    assert!(refusal.contains("not stopped"), "{refusal}");
    runtime.run(&["kill", id, "KILL"]).ok();
    eventually("the container stops", Duration::from_secs(10), || {
        (state()["status"] == "stopped").then_some(())
    });
    runtime.run(&["delete", id]).ok();
    let gone = runtime.run(&["state", id]).one_line_error();
    assert!(gone.contains("container does not exist"), "{gone}");
    assert_eq!(leftovers::cgroups_named(id), Vec::<PathBuf>::new());
}

#[test]
fn exit_codes_are_those_of_the_process() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/sh", "-c", "exit 42"], |_| {});
    let runtime = Runtime::ours(&scratch);
    runtime.run_bundle(&directory, scratch.unique()).fails_with(42);
    // A signal that the process sends itself would not reach it: it is its namespace's init.
    bundle::configure(&directory, &["/bin/sleep", "1000"], |_| {});
    let id = scratch.unique();
    let mut child = runtime
        .command(&["run", "--bundle"])
        .arg(&directory)
        .arg(id)
        .spawn()
        .expect("start the runtime");
    eventually("the container runs", Duration::from_secs(10), || {
        let state = runtime.run(&["state", id]);
        (state.code == 0 && state.stdout.contains("\"running\"")).then_some(())
    });
    runtime.run(&["kill", id, "KILL"]).ok();
    assert_eq!(child.wait().expect("wait for the runtime").code(), Some(137));
}

#[test]
fn limits_are_set_in_the_cgroups_and_seen_from_inside() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    let id = scratch.unique();
    bundle::bundle(&directory, &["/bin/sleep", "1000"], |spec| {
        spec["linux"]["cgroupsPath"] = format!("/wharf-tests/{id}").into();
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        spec["linux"]["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000, "shares": 512});
        spec["linux"]["resources"]["pids"] = json!({"limit": 16});
    });
    let runtime = Runtime::ours(&scratch);
    runtime.run_detached(&directory, id);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let limit = |controller: &str, file: &str| {
        read(&format!("/sys/fs/cgroup/{controller}/wharf-tests/{id}/{file}"))
            .trim()
            .to_string()
    };
    assert_eq!(limit("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(limit("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(limit("cpu", "cpu.shares"), "512");
    assert_eq!(limit("pids", "pids.max"), "16");
    assert!(
        limit("devices", "devices.list")
            .lines()
            .all(|line| line != "a *:* rwm"),
        "all devices are allowed"
    );
    // Seventeen processes are more than the limit: the shell's own fork fails.
    let forks = "for i in $(/bin/busybox seq 20); do /bin/sleep 5 & done; exit 0";
    let storm = runtime.run(&["exec", id, "/bin/sh", "-c", forks]);
    assert!(storm.stderr.contains("fork"), "{storm}");
    runtime.run(&["delete", "--force", id]).ok();
    assert_eq!(leftovers::cgroups_named(id), Vec::<PathBuf>::new());
    for parent in leftovers::cgroups_named("wharf-tests") {
        // Other tests may have theirs there: only an empty one goes.
        drop(fs::remove_dir(parent));
    }
}

#[test]
fn a_wrong_config_is_refused_by_the_name_of_its_field() {
    let scratch = Scratch::new();
    let runtime = Runtime::ours(&scratch);
    // The field that the error must name, where the wrong value goes, and the value.
    let cases = [
        ("ociVersion", "/ociVersion", json!("not a version")),
        ("process.args", "/process/args", json!([])),
        ("process.cwd", "/process/cwd", json!("relative")),
        ("root.path", "/root/path", json!("no-such-directory")),
        ("linux.namespaces", "/linux/namespaces/0/type", json!("bogus")),
        ("mounts", "/mounts/0/destination", json!(7)),
        (
            "linux.resources",
            "/linux/resources",
            json!({"memory": {"limit": "much"}}),
        ),
        ("process.user.uid", "/process/user/uid", json!("root")),
    ];
    bundle::bundle(&scratch.join("bundle"), &["/bin/true"], |_| {});
    for (field, pointer, value) in cases {
        let directory = scratch.join("bundle");
        fs::remove_file(directory.join("config.json")).expect("remove the last config");
        bundle::configure(&directory, &["/bin/true"], |spec| {
            *spec.pointer_mut(pointer).expect(pointer) = value;
        });
        let error = runtime.run_bundle(&directory, scratch.unique()).one_line_error();
        assert!(error.contains(field), "the field {field} is not named: {error}");
        assert_nothing_left(&scratch, &runtime);
    }
    fs::write(scratch.join("bundle/config.json"), "{\"ociVersion\": ").expect("write half a config");
    let error = runtime
        .run_bundle(&scratch.join("bundle"), scratch.unique())
        .one_line_error();
    assert!(error.contains("config.json"), "{error}");
    assert_nothing_left(&scratch, &runtime);
}

#[test]
fn a_command_that_is_not_there_is_named_and_leaves_nothing() {
    let scratch = Scratch::new();
    let runtime = Runtime::ours(&scratch);
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["no-such-program"], |_| {});
    let error = runtime.run_bundle(&directory, scratch.unique()).one_line_error();
    assert!(
        error.contains("no-such-program") && error.contains("executable file not found in $PATH"),
        "{error}"
    );
    assert_nothing_left(&scratch, &runtime);
}

/// The process may be there before its groups are.
#[test]
fn a_limit_that_the_kernel_refuses_is_named_and_leaves_nothing() {
    let scratch = Scratch::new();
    let runtime = Runtime::ours(&scratch);
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/true"], |spec| {
        spec["linux"]["resources"]["cpu"] = json!({"cpus": "0-4000"});
    });
    let error = runtime.run_bundle(&directory, scratch.unique()).one_line_error();
    assert!(error.contains("cpuset.cpus"), "{error}");
    assert_nothing_left(&scratch, &runtime);
}

fn assert_nothing_left(scratch: &Scratch, runtime: &Runtime) {
    assert_eq!(leftovers::mounts_below(scratch.path()), Vec::<PathBuf>::new());
    assert_eq!(leftovers::cgroups_named(scratch.unique()), Vec::<PathBuf>::new());
    let states: Vec<_> = fs::read_dir(&runtime.root)
        .map(|list| list.flatten().collect())
        .unwrap_or_default();
    assert!(states.is_empty(), "{states:?}");
}

#[test]
fn a_tokio_program_with_busy_threads_embeds_the_runtime() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/true"], |_| {});
    let example = binaries::directory().join("examples/embed");
    let report = run(Command::new(&example).arg(&directory).arg("1000")).ok();
    assert!(report.contains("1000"), "{report}");
    assert_nothing_left(
        &scratch,
        &Runtime {
            program: example,
            root: scratch.join("state"),
        },
    );
}

/// The groups of a process, a line each: `hierarchy:controllers:path`.
fn groups_of(pid: &str) -> Vec<String> {
    let path = format!("/proc/{}/cgroup", pid.trim());
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_container_and_what_is_executed_in_it_are_in_every_hierarchy() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    let id = scratch.unique();
    bundle::bundle(&directory, &["/bin/sleep", "1000"], |_| {});
    let runtime = Runtime::ours(&scratch);
    runtime.run_detached(&directory, id);
    let state: Value = serde_json::from_str(&runtime.run(&["state", id]).ok()).expect("state prints JSON");
    let groups = groups_of(&state["pid"].to_string());
    for group in &groups {
        assert!(group.ends_with(&format!("/{id}")), "{groups:#?}");
    }
    let pid_file = scratch.join("exec-pid");
    let mut exec = runtime.command(&["exec", "--detach", "--pid-file"]);
    exec.arg(&pid_file).args([id, "/bin/sleep", "1000"]);
    exec.stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    assert!(exec.status().expect("start the runtime").success());
    let pid = fs::read_to_string(&pid_file).expect("the pid file");
    assert_eq!(groups_of(&pid), groups);
    runtime.run(&["delete", "--force", id]).ok();
    assert_nothing_left(&scratch, &runtime);
}

#[test]
fn nothing_is_executed_outside_of_groups_that_are_gone() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    let id = scratch.unique();
    bundle::bundle(&directory, &["/bin/sleep", "1000"], |_| {});
    let runtime = Runtime::ours(&scratch);
    runtime.run_detached(&directory, id);
    let state: Value = serde_json::from_str(&runtime.run(&["state", id]).ok()).expect("state prints JSON");
    let pid = state["pid"].to_string();
    // Somebody takes the process out of one group after the other and removes the group.
    let mut groups = leftovers::cgroups_named(id);
    assert!(!groups.is_empty());
    while let Some(group) = groups.pop() {
        let parent = group.parent().expect("a group has a parent");
        fs::write(parent.join("cgroup.procs"), &pid).expect("move the process");
        fs::remove_dir(&group).expect("remove the group");
        let refusal = runtime.run(&["exec", id, "/bin/echo", "outside"]);
        assert_eq!((refusal.code, refusal.stdout.as_str()), (255, ""), "{refusal}");
        assert!(
            refusal.stderr.contains(&format!("/{id}: no such file")),
            "{refusal}"
        );
    }
    runtime.run(&["delete", "--force", id]).ok();
    assert_nothing_left(&scratch, &runtime);
}

/// Two configurations name one group: the second container is refused, and nothing of the first is undone with it.
#[test]
fn a_group_that_is_somebodys_stays_that_of_who_lives_in_it() {
    let scratch = Scratch::new();
    let group = format!("/wharf-tests/{}", scratch.unique());
    let runtime = Runtime::ours(&scratch);
    let bundle = |name: &str| {
        let directory = scratch.join(name);
        bundle::bundle(&directory, &["/bin/sleep", "1000"], |spec| {
            spec["linux"]["cgroupsPath"] = group.clone().into();
        });
        directory
    };
    let first = format!("{}-first", scratch.unique());
    runtime.run_detached(&bundle("first"), &first);
    let second = format!("{}-second", scratch.unique());
    let refused = runtime.run_bundle(&bundle("second"), &second);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused
            .stderr
            .contains("container's cgroup is not empty: 1 process(es) found"),
        "{refused}"
    );
    let state: Value =
        serde_json::from_str(&runtime.run(&["state", &first]).ok()).expect("state prints JSON");
    assert_eq!(state["status"], "running");
    for line in groups_of(&state["pid"].to_string()) {
        assert!(line.ends_with(&group), "{line}");
    }
    runtime.run(&["delete", "--force", &first]).ok();
    assert_nothing_left(&scratch, &runtime);
}

/// The limit holds for what is in the group from its first instruction on: the child half, which is a copy of the runtime.
#[test]
fn a_container_starts_within_a_memory_limit_of_one_mebibyte() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/true"], |spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 1 << 20});
    });
    let runtime = Runtime::ours(&scratch);
    let path = directory.display().to_string();
    for round in 0..5 {
        let id = format!("{}-{round}", scratch.unique());
        runtime.run(&["run", "--bundle", &path, &id]).ok();
    }
}

/// The first container's filter is compiled, and the others' are what was kept of it.
#[test]
fn a_filter_that_was_kept_does_what_it_did_when_it_was_new() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/busybox", "mkdir", "/tmp/new"], |spec| {
        spec["root"]["readonly"] = false.into();
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                // No call has this name: it makes the profile one that was never compiled.
                {"names": [scratch.unique()], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        });
    });
    let runtime = Runtime::ours(&scratch);
    let path = directory.display().to_string();
    for round in 0..3 {
        let id = format!("{}-{round}", scratch.unique());
        let output = runtime.run(&["run", "--bundle", &path, &id]);
        assert!(
            output.code == 1 && output.stderr.contains("Function not implemented"),
            "round {round}: {output}"
        );
    }
}

/// A profile is looked into when the container's process is there already. What is wrong with one is told as before then, nothing
/// is left, and a filter of it is never kept: the second try is refused as well, and the name can be used.
#[test]
fn a_container_whose_profile_is_refused_leaves_nothing() {
    let allow = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]);
    let rule = |rule: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
    for (profile, message) in [
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": "all"}),
            "linux.seccomp.syscalls: invalid type: string ",
        ),
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_SING"})),
            "linux.seccomp.syscalls[0].action: string SCMP_ACT_SING is not a valid action for seccomp",
        ),
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0}]})),
            "linux.seccomp.syscalls[0].args[0]: missing field `op`",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_SING", "syscalls": allow}),
            "linux.seccomp.defaultAction: string SCMP_ACT_SING is not a valid action for seccomp",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}),
            "linux.seccomp.architectures[0]: string SCMP_ARCH_Z80 is not a valid arch for seccomp",
        ),
        // What only the compiler finds.
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000})),
            "linux.seccomp.syscalls[0].errnoRet: 5000 is no error number",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without SCMP_ACT_NOTIFY",
        ),
    ] {
        let scratch = Scratch::new();
        let (directory, id) = (scratch.join("bundle"), scratch.unique());
        let ran = scratch.join("ran");
        bundle::bundle(&directory, &["/bin/busybox", "touch", "/host/ran"], |spec| {
            spec["mounts"].as_array_mut().expect("mounts").push(json!({
                "destination": "/host", "source": scratch.path(), "type": "bind", "options": ["bind"],
            }));
            spec["linux"]["seccomp"] = profile.clone();
        });
        let runtime = Runtime::ours(&scratch);
        let path = directory.display().to_string();
        for command in ["create", "run", "run"] {
            let refused = runtime.run(&[command, "--bundle", &path, id]);
            assert!(refused.code == 1 && refused.stderr.contains(message), "{refused}");
            assert_nothing_left(&scratch, &runtime);
        }
        assert!(!ran.exists(), "{profile}: the program ran");
    }
}

/// Whoever listens is told what a profile became, also when the filter is kept.
#[test]
fn unknown_calls_of_a_profile_are_told_in_the_log() {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    let name = scratch.unique();
    bundle::bundle(&directory, &["/bin/true"], |spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": [name], "action": "SCMP_ACT_LOG"}],
        });
    });
    let runtime = Runtime::ours(&scratch);
    for round in 0..2 {
        let id = format!("{name}-{round}");
        let path = directory.display().to_string();
        let told = runtime.run(&["--debug", "run", "--bundle", &path, &id]);
        let words = format!("unknown seccomp syscall \\\"{name}\\\" ignored");
        assert!(told.code == 0 && told.stderr.contains(&words), "{told}");
        // The next one finds it kept.
        runtime.run(&["run", "--bundle", &path, &id]).ok();
    }
}

/// A process that is executed waits for its filter as the first one does: a new one, one that is kept, and one that nobody kept.
#[test]
fn an_executed_process_has_the_filter() {
    let scratch = Scratch::new();
    let (directory, id) = (scratch.join("bundle"), scratch.unique());
    bundle::bundle(&directory, &["/bin/busybox", "sleep", "1000"], |spec| {
        spec["root"]["readonly"] = false.into();
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": [id], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        });
    });
    let runtime = Runtime::ours(&scratch);
    runtime.run_detached(&directory, id);
    for debug in [None, Some("--debug"), None] {
        let arguments = ["exec", id, "/bin/busybox", "mkdir", "/tmp/new"];
        let arguments: Vec<&str> = debug.into_iter().chain(arguments).collect();
        let refused = runtime.run(&arguments);
        assert!(
            refused.code == 1 && refused.stderr.contains("Function not implemented"),
            "{refused}"
        );
        let grep = ["/bin/busybox", "grep", "Seccomp:", "/proc/self/status"];
        let status = runtime.run(&[&["exec", id], &grep[..]].concat()).ok();
        assert_eq!(status.trim(), "Seccomp:\t2");
    }
    runtime.run(&["delete", "--force", id]).ok();
}
