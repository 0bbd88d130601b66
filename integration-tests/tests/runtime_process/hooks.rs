//! Hooks: where each kind runs, with which privileges, and what becomes of a container whose hook fails.

use std::fs;

use serde_json::{Value, json};

use crate::{Case, field, read};

/// A hook that runs a script with the shell at `shell`.
fn script(shell: &str, text: &str) -> Value {
    json!([{"path": shell, "args": ["sh", "-c", text], "env": ["PATH=/bin:/usr/bin"]}])
}

#[test]
fn a_start_container_hook_has_no_more_privileges_than_the_program() {
    let status = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status";
    let case = Case::new(&["/bin/sh", "-c", status], |spec| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [2000]});
        spec["process"]["noNewPrivileges"] = true.into();
        spec["process"]["capabilities"] =
            json!({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}],
        });
        spec["hooks"]["startContainer"] = script(
            "/bin/sh",
            &format!("{status} > /tmp/hook; readlink /proc/self/ns/pid >> /tmp/hook"),
        );
    });
    let program = case.run(&["run", case.id()]).ok();
    let hook = read(case.rootfs("tmp/hook"));
    assert_eq!(field(&program, "CapBnd"), "0000000000000020");
    assert_eq!(field(&program, "Seccomp"), "2");
    let (told, namespace) = hook.trim().rsplit_once('\n').expect("two parts");
    assert_eq!(told.trim(), program.trim());
    let host = fs::read_link("/proc/self/ns/pid").expect("own namespace");
    assert_ne!(namespace, host.to_string_lossy());
}

#[test]
fn hooks_are_told_the_state_as_it_is_where_they_run() {
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    let case = Case::new(&["/bin/true"], |spec| {
        spec["annotations"] = json!({"a": "b\"c"});
        spec["hooks"]["startContainer"] = script("/bin/sh", "cat > /tmp/startContainer");
    });
    let reports = case.scratch.directory("reports");
    let config = case.bundle().join("config.json");
    let mut spec: Value = serde_json::from_str(&read(&config)).expect("JSON");
    for kind in kinds {
        let path = reports.join(kind);
        spec["hooks"][kind] = script("/bin/sh", &format!("cat > {}", path.display()));
    }
    fs::write(&config, spec.to_string()).expect("write config.json");
    let pid_file = case.scratch.join("pid");
    let mut run = case.command(&["run", "--pid-file"]);
    integration_tests::run(run.arg(&pid_file).arg(case.id())).ok();
    let host_pid: Value = read(&pid_file).parse::<i64>().expect("a pid").into();
    let report = |kind: &str| -> Value {
        let path = match kind {
            "startContainer" => case.rootfs("tmp/startContainer"),
            kind => reports.join(kind),
        };
        serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{kind}: {error}"))
    };
    for (kind, status, pid) in [
        ("prestart", "creating", &host_pid),
        ("createRuntime", "creating", &host_pid),
        ("createContainer", "creating", &json!(1)),
        ("startContainer", "created", &json!(1)),
        ("poststart", "running", &host_pid),
        ("poststop", "stopped", &Value::Null),
    ] {
        let state = report(kind);
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(&state["pid"], pid, "{kind}");
        assert_eq!(state["id"], case.id(), "{kind}");
        assert_eq!(state["annotations"]["a"], "b\"c", "{kind}");
        assert_eq!(
            state["bundle"],
            case.bundle().to_string_lossy().as_ref(),
            "{kind}"
        );
    }
}

#[test]
fn hooks_run_in_the_namespaces_and_on_the_root_that_the_specification_says() {
    let case = Case::new(&["/bin/true"], |_| {});
    let reports = case.scratch.directory("reports");
    let config = case.bundle().join("config.json");
    let mut spec: Value = serde_json::from_str(&read(&config)).expect("JSON");
    for kind in ["createRuntime", "createContainer"] {
        // The host's programs, and a path of the host's, in either case.
        let path = reports.join(kind);
        let text = format!("readlink /proc/self/ns/uts > {0}; pwd >> {0}", path.display());
        spec["hooks"][kind] = script("/bin/sh", &text);
    }
    fs::write(&config, spec.to_string()).expect("write config.json");
    case.run(&["run", case.id()]).ok();
    let host = fs::read_link("/proc/self/ns/uts").expect("own namespace");
    let report =
        |kind: &str| -> Vec<String> { read(reports.join(kind)).lines().map(str::to_owned).collect() };
    assert_eq!(report("createRuntime")[0], host.to_string_lossy());
    let inside = report("createContainer");
    assert_ne!(inside[0], host.to_string_lossy());
    assert_eq!(inside[1], case.rootfs("").to_string_lossy().trim_end_matches('/'));
}

#[test]
fn a_hook_that_fails_is_named_with_what_it_said_and_nothing_is_left() {
    let failing = "echo to the user; echo why >&2; exit 3";
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
    ] {
        let case = Case::new(&["/bin/sleep", "1000"], |spec| {
            spec["hooks"][kind] = json!([
                {"path": "/bin/true"},
                {"path": "/bin/sh", "args": ["sh", "-c", failing]},
            ]);
        });
        let error = case.run(&["run", case.id()]).one_line_error();
        let expected = format!("error running {kind} hook #1: /bin/sh: exit status 3: to the user; why");
        assert!(error.contains(&expected), "{error}");
        assert!(
            case.run(&["state", case.id()])
                .fails_with(1)
                .contains("does not exist")
        );
        assert_eq!(
            integration_tests::leftovers::cgroups_named(case.id()),
            Vec::<std::path::PathBuf>::new()
        );
    }
}

#[test]
fn a_poststop_hook_that_fails_is_a_warning_and_the_next_one_runs() {
    let case = Case::new(&["/bin/true"], |spec| {
        spec["hooks"]["poststop"] = json!([
            {"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 1"]},
            {"path": "/bin/touch", "args": ["touch", "done"]},
        ]);
    });
    let finished = case.run(&["run", case.id()]);
    assert_eq!(finished.code, 0, "{finished}");
    assert!(
        finished
            .stderr
            .contains("level=warning msg=\"error running poststop hook #0: /bin/sh: exit status 1: no\""),
        "{finished}"
    );
    assert!(case.bundle().join("done").exists());
}

#[test]
fn a_hook_in_the_container_that_takes_too_long_is_killed() {
    let case = Case::new(&["/bin/true"], |spec| {
        spec["hooks"]["startContainer"] =
            json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
    });
    let error = case.run(&["run", case.id()]).one_line_error();
    assert!(
        error.contains("startContainer hook #0: /bin/sleep: did not end within 1 s"),
        "{error}"
    );
}

#[test]
fn a_start_container_hook_without_an_environment_has_the_programs() {
    let case = Case::new(&["/bin/true"], |spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
        spec["hooks"]["startContainer"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo $ONE $HOME > /tmp/env"]}]);
        spec["hooks"]["createContainer"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo \"[$ONE$HOME]\" > tmp/outer"]}]);
    });
    case.run(&["run", case.id()]).ok();
    assert_eq!(read(case.rootfs("tmp/env")), "two /root\n");
    assert_eq!(read(case.rootfs("tmp/outer")), "[]\n");
}

#[test]
fn a_hook_gets_none_of_the_runtimes_descriptors() {
    let case = Case::new(&["/bin/true"], |spec| {
        spec["hooks"]["startContainer"] = script("/bin/sh", "ls /proc/self/fd > /tmp/fds");
    });
    // The caller's 5 is not close-on-exec, and not declared.
    case.shell("exec 5</etc/hostname; exec $runtime run $id").ok();
    // The fourth is of ls itself, which reads the directory.
    assert_eq!(read(case.rootfs("tmp/fds")), "0\n1\n2\n3\n");
}

#[test]
fn cve_2019_5736_a_start_container_hook_does_not_reach_the_runtimes_file() {
    let case = Case::new(&["/bin/true"], |spec| {
        spec["hooks"]["startContainer"] = json!([{"path": "/trap"}]);
    });
    // A script whose interpreter is the runtime itself, in `start`, which no process of the container's was before.
    fs::write(case.rootfs("trap"), "#!/proc/self/exe\n").expect("write the trap");
    fs::set_permissions(
        case.rootfs("trap"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("chmod");
    let before = fs::read(&case.program).expect("read the program");
    case.detached(&["create", case.id()]);
    let pid = case.state()["pid"].as_i64().expect("a pid");
    // What the child half, and so each process that it makes, runs from.
    let exe = format!("/proc/{pid}/exe");
    let opened = fs::OpenOptions::new().write(true).open(&exe);
    let refused = opened.expect_err("the runtime's file must not be writable");
    assert!(
        [Some(libc::EROFS), Some(libc::ETXTBSY), Some(libc::EPERM)].contains(&refused.raw_os_error()),
        "{refused}"
    );
    let mount = rustix::fs::statvfs(exe.as_str()).expect("statvfs");
    let memory = fs::read_link(&exe)
        .expect("readlink")
        .to_string_lossy()
        .contains("memfd:");
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) || memory);
    let error = case.run(&["start", case.id()]).fails_with(1);
    assert!(error.contains("startContainer hook #0"), "{error}");
    assert_eq!(fs::read(&case.program).expect("read the program"), before);
}
