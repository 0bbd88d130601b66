//! Each option of `run`, by its effect.

use std::fs;
use std::path::PathBuf;

use crate::instance::Instance;

#[test]
fn environment_directory_user_and_names_are_as_asked() {
    let instance = Instance::start();
    let file = instance.scratch.join("env");
    fs::write(&file, "# comment\nFROM_FILE=a b\nOVERRIDDEN=file\n").expect("write the env file");
    let file = file.to_str().expect("a UTF-8 path");
    let options = ["--env-file", file, "-e", "OVERRIDDEN=flag", "-e", "EMPTY="];
    let output = instance.run(&options, &["env"]).ok();
    for line in [
        "FROM_FILE=a b",
        "OVERRIDDEN=flag",
        "EMPTY=",
        "PATH=/bin:/usr/bin",
        "HOME=/root",
    ] {
        assert!(output.lines().any(|have| have == line), "{line} in {output}");
    }
    let arguments = instance.run_arguments(&["--rm", "-e", "PASSED_ON", "-e", "NOT_SET"], &["env"]);
    let mut command = instance.wharf.command(&arguments);
    let output = integration_tests::run(command.env("PASSED_ON", "1").env_remove("NOT_SET")).ok();
    assert!(
        output.contains("PASSED_ON=1\n") && !output.contains("NOT_SET"),
        "{output}"
    );

    assert_eq!(instance.run(&["-w", "/home/user"], &["pwd"]).ok(), "/home/user\n");
    let ids = |user: &str| {
        instance
            .run(&["-u", user], &["sh", "-c", "id -u; id -g; id -G"])
            .ok()
    };
    assert_eq!(ids("user"), "1000\n1000\n1000 2000\n");
    assert_eq!(ids("1000:2000"), "1000\n2000\n2000\n");
    assert_eq!(ids("4321"), "4321\n0\n0\n");
    let output = instance
        .run(
            &["--hostname", "harbour"],
            &["sh", "-c", "hostname; cat /etc/hostname"],
        )
        .ok();
    assert_eq!(output, "harbour\nharbour\n");
    assert_eq!(instance.run(&["-h", "short"], &["hostname"]).ok(), "short\n");
    assert_eq!(instance.run(&["--entrypoint", "echo"], &["-n", "x"]).ok(), "x");
    let output = instance
        .run(&["--entrypoint", "sh"], &["-c", "echo $0 $1", "zero", "one"])
        .ok();
    assert_eq!(output, "zero one\n");
}

#[test]
fn files_of_the_host_are_mounted_as_asked() {
    let instance = Instance::start();
    let shared = instance.scratch.directory("shared");
    fs::write(shared.join("in"), "from outside").expect("write");
    let volume = |mode: &str| format!("{}:/shared{mode}", shared.display());

    instance
        .run(&["-v", &volume("")], &["cp", "/shared/in", "/shared/out"])
        .ok();
    assert_eq!(
        fs::read_to_string(shared.join("out")).expect("read"),
        "from outside"
    );
    let error = instance
        .run(&["-v", &volume(":ro")], &["touch", "/shared/no"])
        .fails_with(1);
    assert!(error.contains("Read-only file system"), "{error}");
    assert!(!shared.join("no").exists());

    // A path from here, as the command's own directory has it.
    let arguments = instance.run_arguments(&["--rm", "-v", "./shared:/shared"], &["cat", "/shared/in"]);
    let mut command = instance.wharf.command(&arguments);
    assert_eq!(
        integration_tests::run(command.current_dir(instance.scratch.path())).ok(),
        "from outside"
    );

    let error = instance.run(&["--read-only"], &["touch", "/no"]).fails_with(1);
    assert!(error.contains("Read-only file system"), "{error}");
    let script = "touch /scratch/yes && ! touch /no 2>/dev/null && echo only there";
    let output = instance
        .run(&["--read-only", "--tmpfs", "/scratch"], &["sh", "-c", script])
        .ok();
    assert_eq!(output, "only there\n");
}

#[test]
fn memory_and_processes_are_limited() {
    let instance = Instance::start();
    let allocate = ["dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1"];
    instance
        .run(&["-m", "32m", "--memory-swap", "32m"], &allocate)
        .fails_with(137);
    instance.run(&["-m", "256m"], &allocate).ok();

    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all";
    let finished = instance.run(&["--pids-limit", "6"], &["sh", "-c", script]);
    assert!(
        finished.stderr.contains("can't fork") && !finished.stdout.contains("all"),
        "{finished}"
    );
    let finished = instance.run(&["--pids-limit", "60"], &["sh", "-c", script]);
    assert_eq!(finished.ok(), "all\n");
}

#[test]
fn cpus_are_limited() {
    let instance = Instance::start();
    instance.detached("half", &["--cpus", "0.5"], &["sleep", "1000"]);
    let pid = instance.inspect("half", "{{.State.Pid}}");
    let (quota, period) = cpu_quota(&pid);
    assert_eq!(quota * 2, period, "half a CPU");
}

/// The CPU quota and period of a process's cgroup, on whichever hierarchy has the controller.
fn cpu_quota(pid: &str) -> (u64, u64) {
    let number = |text: &str| {
        text.trim()
            .parse::<u64>()
            .unwrap_or_else(|_| panic!("{text:?} is no number"))
    };
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process's cgroups");
    for line in cgroups.lines() {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else {
            continue;
        };
        if controllers.split(',').any(|controller| controller == "cpu") {
            let directory = PathBuf::from(format!("/sys/fs/cgroup/cpu{path}"));
            let read = |name: &str| number(&fs::read_to_string(directory.join(name)).expect("a limit"));
            return (read("cpu.cfs_quota_us"), read("cpu.cfs_period_us"));
        }
        if controllers.is_empty() {
            let file = format!("/sys/fs/cgroup{path}/cpu.max");
            if let Ok(text) = fs::read_to_string(file) {
                let (quota, period) = text.trim().split_once(' ').expect("two numbers");
                return (number(quota), number(period));
            }
        }
    }
    panic!("no cpu controller in {cgroups}");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let instance = Instance::start();
    let held = |options: &[&str]| {
        let output = instance
            .run(options, &["sh", "-c", "grep CapEff /proc/self/status"])
            .ok();
        let digits = output.split_whitespace().last().unwrap_or_default().to_string();
        u64::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let (chown, net_admin) = (1_u64 << 0, 1_u64 << 12);
    let usual = held(&[]);
    assert!(usual & chown != 0 && usual & net_admin == 0, "{usual:x}");
    assert_eq!(
        held(&["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"]),
        (usual | net_admin) & !chown
    );
    assert_eq!(held(&["--cap-drop", "ALL"]), 0);
}
