//! Attributes of processes, as a process inside sees them.

use std::fs;

use serde_json::{Value, json};

use crate::{Case, field, read};

/// The first two CPUs that this test may run on.
fn cpus() -> (String, String) {
    let status = read("/proc/self/status");
    let list = field(&status, "Cpus_allowed_list").to_owned();
    let numbers: Vec<u32> = list
        .split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<u32>().expect("a CPU")..=last.parse::<u32>().expect("a CPU")
        })
        .collect();
    assert!(numbers.len() >= 2, "this test needs two CPUs");
    (numbers[0].to_string(), numbers[1].to_string())
}

#[test]
fn a_container_does_not_inherit_the_callers_cpus() {
    let (first, _) = cpus();
    let case = Case::new(&["/bin/grep", "Cpus_allowed_list", "/proc/self/status"], |_| {});
    let own = field(&read("/proc/self/status"), "Cpus_allowed_list").to_owned();
    let seen = case
        .shell(&format!("exec taskset -c {first} $runtime run $id"))
        .ok();
    assert_eq!(field(&seen, "Cpus_allowed_list"), own);
}

#[test]
fn an_executed_process_runs_on_the_cpus_that_were_asked_for() {
    let (first, second) = cpus();
    let case = Case::new(&["/bin/sleep", "1000"], |spec| {
        spec["process"]["execCPUAffinity"] = json!({"initial": first, "final": second});
    });
    case.detached(&["run", "--detach", case.id()]);
    let grep = ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"];
    let mut arguments = vec!["--debug", "exec", case.id()];
    arguments.extend(grep);
    let finished = case.run(&arguments);
    assert_eq!(field(&finished.stdout, "Cpus_allowed_list"), second, "{finished}");
    let mask = 1u64 << first.parse::<u32>().expect("a number");
    assert!(
        finished.stderr.contains(&format!("nsexec: affinity: {mask:#x}")),
        "{finished}"
    );
    // Only the initial one: it stays.
    let process = json!({"cwd": "/", "args": grep, "execCPUAffinity": {"initial": first}});
    let file = case.scratch.join("process.json");
    fs::write(&file, process.to_string()).expect("write");
    let seen = case
        .run(&["exec", "--process", file.to_str().expect("UTF-8"), case.id()])
        .ok();
    assert_eq!(field(&seen, "Cpus_allowed_list"), first);
}

#[test]
fn a_process_file_takes_what_it_does_not_say_from_the_container() {
    let case = Case::new(&["/bin/sleep", "1000"], |spec| {
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
        });
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
        spec["process"]["user"]["umask"] = 0o27.into();
        spec["process"]["noNewPrivileges"] = true.into();
    });
    case.detached(&["run", "--detach", case.id()]);
    let execute = |process: Value| {
        let file = case.scratch.join("process.json");
        fs::write(&file, process.to_string()).expect("write");
        case.run(&["exec", "--process", file.to_str().expect("UTF-8"), case.id()])
            .ok()
    };
    let status = ["/bin/cat", "/proc/self/status"];
    let seen = execute(json!({"cwd": "/", "args": status}));
    assert_eq!(field(&seen, "CapEff"), "0000000000000020");
    assert_eq!(field(&seen, "CapBnd"), "0000000000000020");
    assert_eq!(field(&seen, "Umask"), "0027");
    // This one it says: by not saying it.
    assert_eq!(field(&seen, "NoNewPrivs"), "0");
    let seen = execute(
        json!({"cwd": "/", "args": status, "capabilities": {}, "user": {"uid": 0, "gid": 0, "umask": 63}}),
    );
    assert_eq!(field(&seen, "CapEff"), "0000000000000000");
    assert_eq!(field(&seen, "Umask"), "0077");
    let limits = execute(json!({"cwd": "/", "args": ["/bin/cat", "/proc/self/limits"]}));
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

#[test]
fn a_memory_policy_is_that_of_the_program() {
    let numa_maps = ["/bin/head", "-n", "1", "/proc/self/numa_maps"];
    let case = Case::new(&numa_maps, |spec| {
        spec["linux"]["memoryPolicy"] =
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    });
    let seen = case.run(&["run", case.id()]).ok();
    let policy = seen.split(' ').nth(1).unwrap_or_default();
    assert!(policy.starts_with("bind") && policy.contains("static"), "{seen}");
}

#[test]
fn a_scheduling_policy_that_does_not_go_with_a_choice_of_cpus_is_told() {
    let (first, _) = cpus();
    let case = Case::new(&["/bin/true"], |spec| {
        spec["linux"]["resources"]["cpu"] = json!({"cpus": first});
        spec["process"]["scheduler"] = json!({"policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 1_000_000, "period": 1_000_000});
    });
    let error = case.run(&["run", case.id()]).one_line_error();
    assert!(
        error.contains("process scheduler can't be used together with AllowedCPUs"),
        "{error}"
    );
}

#[test]
fn a_capability_that_cannot_be_ambient_is_a_warning() {
    let case = Case::new(&["/bin/cat", "/proc/self/status"], |spec| {
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN", "CAP_TIME_TRAVEL"],
        });
    });
    let finished = case.run(&["run", case.id()]);
    assert_eq!(finished.code, 0, "{finished}");
    assert!(
        finished
            .stderr
            .contains("can't raise ambient capability CAP_CHOWN: "),
        "{finished}"
    );
    assert!(
        finished
            .stderr
            .contains("ignoring unknown or unavailable capabilities"),
        "{finished}"
    );
    assert_eq!(field(&finished.stdout, "CapAmb"), "0000000000000000");
}
