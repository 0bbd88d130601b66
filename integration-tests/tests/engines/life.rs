//! One container through everything that an engine asks of a runtime.

use std::time::Duration;

use integration_tests::eventually;

use crate::engine::{Engine, IMAGE};

const COUNTING: &str =
    "trap 'echo heard' USR1; trap 'echo bye; exit 0' TERM; echo up; n=0; while :; do sleep 0.05; done";

/// From `create` to `rm`.
pub(crate) fn whole(engine: &impl Engine) {
    let inspect = |format: &str| {
        let ended = engine.run(&["inspect", "--format", format, "life"]);
        ended.ok().trim().to_owned()
    };
    let says = |text: &str, times: usize| {
        eventually(
            &format!("the container says {text} {times} times"),
            Duration::from_secs(20),
            || {
                let said = engine.run(&["logs", "life"]).ok();
                (said.lines().filter(|line| *line == text).count() == times).then_some(())
            },
        );
    };
    let create: &[&str] = &[
        "create",
        "--name",
        "life",
        "--network",
        "none",
        "--memory",
        "64m",
        "--memory-swap",
        "64m",
    ];
    let program: &[&str] = &[IMAGE, "/bin/sh", "-c", COUNTING];
    engine.run(&[create, &engine.limits(), program].concat()).ok();
    engine.run(&["start", "life"]).ok();
    says("up", 1);

    execute(engine);

    engine.run(&["pause", "life"]).ok();
    assert_eq!(inspect("{{.State.Status}}"), "paused");
    engine.run(&["unpause", "life"]).ok();
    assert_eq!(inspect("{{.State.Status}}"), "running");

    engine
        .run(&[
            "update",
            "--memory",
            "128m",
            "--memory-swap",
            "128m",
            "--cpu-shares",
            "512",
            "life",
        ])
        .ok();
    let limits =
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares 2>/dev/null || cat memory.max";
    let said = engine.run(&["exec", "life", "/bin/sh", "-c", limits]).ok();
    assert!(said.starts_with("134217728\n"), "{said}");

    let top = engine.run(&["top", "life"]).ok();
    assert!(top.contains("sleep") && top.contains("/bin/sh"), "{top}");
    let stats = engine
        .run(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.PIDs}} {{.MemUsage}}",
            "life",
        ])
        .ok();
    let pids: u32 = stats
        .split(' ')
        .next()
        .and_then(|pids| pids.parse().ok())
        .unwrap_or_default();
    assert!(pids >= 1 && stats.contains('B'), "{stats}");

    engine.run(&["kill", "--signal", "USR1", "life"]).ok();
    says("heard", 1);
    let pid = inspect("{{.State.Pid}}");
    engine.run(&["restart", "--time", "10", "life"]).ok();
    says("bye", 1);
    says("up", 2);
    assert_ne!(inspect("{{.State.Pid}}"), pid);

    engine.run(&["stop", "--time", "10", "life"]).ok();
    assert_eq!(inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
    engine.run(&["start", "life"]).ok();
    says("up", 3);
    engine.run(&["kill", "life"]).ok();
    eventually("it is killed", Duration::from_secs(20), || {
        (inspect("{{.State.Status}} {{.State.ExitCode}}") == "exited 137").then_some(())
    });
    engine.run(&["rm", "life"]).ok();
    assert_ne!(engine.run(&["inspect", "life"]).code, 0);
}

/// Executed processes, with their own identity, streams and ends.
fn execute(engine: &impl Engine) {
    let exec = |options: &[&str], script: &str| {
        engine.run(&[&["exec"], options, &["life", "/bin/sh", "-c", script]].concat())
    };
    assert_eq!(
        exec(&[], "[ -t 0 ] || echo none; cat /proc/1/comm").ok(),
        "none\nsh\n"
    );
    assert_eq!(exec(&["--tty"], "[ -t 1 ] && echo terminal").ok(), "terminal\n");
    let said = exec(
        &["--user", "1000:2000", "--workdir", "/tmp", "--env", "A=b"],
        "id -u; id -g; pwd; echo $A; grep CapEff /proc/self/status",
    );
    assert_eq!(said.ok(), "1000\n2000\n/tmp\nb\nCapEff:\t0000000000000000\n");
    let privileged = exec(&[], "grep -c Seccomp:.2 /proc/self/status").ok();
    assert_eq!(privileged, "1\n");
    exec(&[], "exit 9").fails_with(9);
    exec(&[], "kill -KILL $$").fails_with(137);
    // docker of this age ends with 126 for every program that cannot be executed, later ones with the shell's 127.
    let missing = engine.run(&["exec", "life", "/nonexistent"]);
    assert!([126, 127].contains(&missing.code), "{missing}");
    assert!(
        missing.to_string().contains("stat /nonexistent: no such file"),
        "{missing}"
    );
    let large = exec(&[], "seq 1 200000 | tail -c 1000000").ok();
    assert_eq!(large.len(), 1_000_000);
    assert!(large.ends_with("\n200000\n"));
}
