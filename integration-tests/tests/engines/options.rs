//! Options of `run`, each as the process inside sees it, with and without a terminal.

use std::fs;

use integration_tests::Scratch;

use crate::engine::Engine;

/// Options, what the process does, and what it says (lines, in order).
struct Case<'a> {
    options: &'a [&'a str],
    script: &'a str,
    says: &'a [&'a str],
}

const CASES: &[Case<'static>] = &[
    Case {
        options: &["--read-only", "--tmpfs", "/scratch"],
        script: "touch /x 2>&1; touch /scratch/x && echo scratch; touch /dev/shm/x && echo shm",
        says: &["touch: /x: Read-only file system", "scratch", "shm"],
    },
    Case {
        options: &[
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "no-new-privileges",
        ],
        script: "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status",
        says: &["NoNewPrivs:\t1", "Seccomp:\t0"],
    },
    Case {
        options: &["--memory", "64m", "--memory-reservation", "32m"],
        script: "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes 2>/dev/null || \
                 cat memory.max memory.low",
        says: &["67108864", "33554432"],
    },
    Case {
        options: &["--cpus", "0.5", "--cpuset-cpus", "0"],
        script: "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpuset/cpuset.cpus 2>/dev/null || \
                 { cut -d' ' -f1 cpu.max; cat cpuset.cpus; }",
        says: &["50000", "0"],
    },
    Case {
        options: &["--pids-limit", "50"],
        script: "cd /sys/fs/cgroup; cat pids/pids.max 2>/dev/null || cat pids.max",
        says: &["50"],
    },
    Case {
        options: &["--ulimit", "nofile=100:200", "--ulimit", "core=0:0"],
        script: "ulimit -n; ulimit -Hn; ulimit -c",
        says: &["100", "200", "0"],
    },
    Case {
        options: &["--device", "/dev/loop-control:/dev/control:r"],
        script: "(: </dev/control) && echo read; stat -c %t:%T /dev/control; (: >/dev/control) 2>&1",
        says: &[
            "read",
            "a:ed",
            "/bin/sh: can't create /dev/control: Operation not permitted",
        ],
    },
    Case {
        options: &["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"],
        script: "grep ^Cap /proc/self/status",
        says: &[
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000400",
            "CapEff:\t0000000000000400",
            "CapBnd:\t0000000000000400",
            "CapAmb:\t0000000000000000",
        ],
    },
    Case {
        options: &["--cap-add", "SYS_TIME", "--cap-drop", "CHOWN"],
        script: "grep -E '^(CapEff|Seccomp):' /proc/self/status | \
                 while read name mask; do echo $name $((0x$mask >> 25 & 1)) $((0x$mask & 1)); done",
        says: &["CapEff: 1 0", "Seccomp: 0 0"],
    },
    Case {
        options: &[
            "--user",
            "1000:1000",
            "--group-add",
            "2000",
            "--workdir",
            "/home/user",
            "--hostname",
            "inside",
        ],
        script: "id -u; id -g; id -G; pwd; hostname; echo $HOME; umask",
        says: &[
            "1000",
            "1000",
            "1000 2000",
            "/home/user",
            "inside",
            "/home/user",
            "0022",
        ],
    },
    Case {
        options: &["--tmpfs", "/t:size=1m,mode=700", "--shm-size", "2m"],
        script: "for at in /t /dev/shm; do df -k $at | tail -1 | { read a size b; echo $size; }; stat -c %a $at; done",
        says: &["1024", "700", "2048", "1777"],
    },
    Case {
        options: &[
            "--sysctl",
            "net.ipv4.ip_unprivileged_port_start=80",
            "--oom-score-adj",
            "300",
        ],
        script: "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj",
        says: &["80", "300"],
    },
    Case {
        options: &["--env", "A=b c"],
        script: "echo \"$A\"; readlink /proc/self/fd/3; echo $$; cat /proc/1/comm",
        says: &["b c", "1", "sh"],
    },
];

/// Every case, and those that need something of the host.
pub(crate) fn each(engine: &impl Engine, scratch: &Scratch) {
    let mut wrong = Vec::new();
    for case in CASES {
        wrong.extend(holds(engine, case));
    }
    let profile = scratch.join("profile.json");
    let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, rules).expect("write");
    wrong.extend(holds(
        engine,
        &Case {
            options: &["--security-opt", &format!("seccomp={}", profile.display())],
            script: "mkdir /tmp/x 2>&1; grep ^Seccomp: /proc/self/status",
            says: &[
                "mkdir: can't create directory '/tmp/x': Operation not permitted",
                "Seccomp:\t2",
            ],
        },
    ));
    let volume = scratch.directory("volume");
    fs::write(volume.join("file"), "content\n").expect("write");
    wrong.extend(holds(
        engine,
        &Case {
            options: &["--volume", &format!("{}:/volume:ro", volume.display())],
            script: "cat /volume/file; touch /volume/new 2>&1",
            says: &["content", "touch: /volume/new: Read-only file system"],
        },
    ));
    let of_host = |name: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        link.to_string_lossy().into_owned()
    };
    wrong.extend(holds(
        engine,
        &Case {
            options: &["--pid", "host", "--ipc", "host", "--uts", "host"],
            script: "for kind in pid ipc uts; do readlink /proc/self/ns/$kind; done",
            says: &[&of_host("pid"), &of_host("ipc"), &of_host("uts")],
        },
    ));
    wrong.extend(holds(
        engine,
        &Case {
            options: &[],
            script: "for kind in pid ipc uts net mnt; do readlink /proc/self/ns/$kind; done | \
                     while read link; do [ $link != x ] && echo own; done",
            says: &["own"; 5],
        },
    ));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    ends(engine);
}

/// docker's own program as the first process; and what the default profile has.
pub(crate) fn docker_only(engine: &impl Engine) {
    let mut wrong = Vec::new();
    wrong.extend(holds(
        engine,
        &Case {
            options: &["--init"],
            script: "cat /proc/1/comm; grep -E '^(CapEff|Seccomp):' /proc/self/status",
            says: &["docker-init", "CapEff:\t00000000a80425fb", "Seccomp:\t2"],
        },
    ));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A user namespace, which docker has only for all of a daemon; and another program as the first process.
pub(crate) fn podman_only(engine: &impl Engine) {
    let mut wrong = Vec::new();
    wrong.extend(holds(
        engine,
        &Case {
            options: &["--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000"],
            script: "echo $(cat /proc/self/uid_map) $(cat /proc/self/gid_map); id -u; touch /tmp/x && stat -c %u /tmp/x",
            says: &["0 100000 1000 0 200000 1000", "0", "0"],
        },
    ));
    wrong.extend(holds(
        engine,
        &Case {
            options: &["--init", "--init-path", "/usr/bin/docker-init"],
            script: "cat /proc/1/comm",
            says: &["podman-init"],
        },
    ));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `--privileged`, for engines that give what capabilities they have themselves: everywhere.
pub(crate) fn privileged(engine: &impl Engine) {
    let script = "mount -t tmpfs none /tmp && echo mounted; [ -c /dev/kmsg ] && echo kmsg; touch /proc/sys/kernel/x 2>&1";
    let says = "mounted\nkmsg\ntouch: /proc/sys/kernel/x: No such file or directory\n";
    for terminal in TERMINALS {
        let ended = engine.script(&[&["--rm", "--privileged"], *terminal].concat(), script);
        assert_eq!(ended.stdout, says, "{ended}");
    }
}

/// dockerd asks for every capability of the kernel. Where the machine withholds one (some give no CAP_SYS_RESOURCE), the
/// start has to fail, with runc as with ours: then that is asserted, and what `--privileged` does is told by the tests of
/// Podman and containerd, which give the capabilities that there are.
pub(crate) fn privileged_if_possible(engine: &impl Engine) {
    if has_every_capability() {
        return privileged(engine);
    }
    for terminal in TERMINALS {
        let ended = engine.script(&[&["--rm", "--privileged"], *terminal].concat(), "echo started");
        assert!(
            ended.code >= 125
                && ["capabilities", "caps"]
                    .iter()
                    .any(|word| ended.stderr.contains(word)),
            "{ended}"
        );
        assert!(!ended.stdout.contains("started"), "{ended}");
    }
}

fn has_every_capability() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .expect("cap_last_cap")
        .trim()
        .parse()
        .expect("a number");
    let all = format!("CapBnd:\t{:016x}", (1_u64 << (last + 1)) - 1);
    status.contains(&all)
}

/// How a process ends is how `run` ends.
fn ends(engine: &impl Engine) {
    for terminal in TERMINALS {
        let with = |options: &[&'static str]| [options, *terminal].concat();
        engine.script(&with(&["--rm"]), "exit 7").fails_with(7);
        engine
            .script(&with(&["--rm"]), "kill -TERM 1; kill -KILL -1; exit 3")
            .fails_with(3);
        for (program, code) in [("/nonexistent", 127), ("/etc/passwd", 126), ("/etc", 126)] {
            let limits = engine.limits();
            let options = with(&["run", "--rm", "--network", "none"]);
            let ended = engine.run(&[&options, &limits[..], &[crate::engine::IMAGE, program]].concat());
            assert!(ended.stderr.contains(program), "{ended}");
            ended.fails_with(code);
        }
    }
}

const TERMINALS: &[&[&str]] = &[&[], &["--tty"]];

fn holds(engine: &impl Engine, case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for terminal in TERMINALS {
        let script = format!(
            "[ -t 0 ] && [ -t 1 ] && echo terminal; {{ {}\n}} 2>/tmp/errors; cat /tmp/errors >&2 2>/dev/null",
            case.script
        );
        let script = if case.options.contains(&"--read-only") {
            case.script.to_owned()
        } else {
            script
        };
        let ended = engine.script(&[&["--rm"], *terminal, case.options].concat(), &script);
        let said: Vec<String> = ended
            .stdout
            .lines()
            .filter(|line| *line != "terminal")
            .map(|line| {
                line.split(' ')
                    .filter(|word| !word.is_empty())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        if said != case.says {
            wrong.push(format!("{:?} {terminal:?}: {said:?}: {ended}", case.options));
        }
        let is_terminal = ended.stdout.starts_with("terminal\n");
        if !case.options.contains(&"--read-only") && is_terminal == terminal.is_empty() {
            wrong.push(format!("{:?} {terminal:?}: {ended}", case.options));
        }
    }
    wrong
}
