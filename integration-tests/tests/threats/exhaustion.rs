//! Too much of everything: what is read is bounded, what waits does so for a while, and what was begun ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration_tests::{Finished, eventually, leftovers, run};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::attack::Attack;

/// More than any command needs, and less than what is thrown at it, in KiB.
const MEMORY: &str = "400000";

/// Runs it with little memory.
fn bounded(command: &Command) -> Finished {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$@\""), "sh"]);
    let ended = run(shell.arg(command.get_program()).args(command.get_args()));
    assert!(![124, 134, 137, 139].contains(&ended.code), "{ended}");
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    ended
}

fn sparse(path: &Path, length: u64) {
    fs::File::create(path)
        .and_then(|file| file.set_len(length))
        .expect("make a sparse file");
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("mkfifo");
}

/// A record that is none is told by its name, takes no memory, holds nobody up, and does not hide the others.
#[test]
fn a_record_that_is_no_record_is_told() {
    let attack = Attack::new();
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    let good = attack.scratch.join("state").join(attack.id()).join("state.json");
    let good = fs::read(good).expect("read");
    let bad = attack.scratch.directory("state/bad").join("state.json");
    for kind in [
        "empty",
        "garbage",
        "truncated",
        "huge",
        "nested",
        "other types",
        "fifo",
        "link",
        "directory",
    ] {
        match kind {
            "empty" => fs::write(&bad, "").expect("write"),
            "garbage" => fs::write(&bad, [0xff; 4096]).expect("write"),
            "truncated" => fs::write(&bad, &good[..good.len() / 2]).expect("write"),
            "huge" => sparse(&bad, 100 << 30),
            "nested" => fs::write(&bad, "[".repeat(10 << 20)).expect("write"),
            "other types" => fs::write(&bad, r#"{"version":1,"id":7,"pid":"x"}"#).expect("write"),
            "fifo" => fifo(&bad),
            "link" => symlink(
                attack.scratch.join("state").join(attack.id()).join("state.json"),
                &bad,
            )
            .expect("link"),
            _ => fs::create_dir(&bad).expect("mkdir"),
        }
        for arguments in [
            &["state", "bad"][..],
            &["kill", "bad", "KILL"],
            &["delete", "--force", "bad"],
            &["start", "bad"],
            &["exec", "bad", "/bin/true"],
            &["pause", "bad"],
            &["ps", "bad"],
            &["events", "--stats", "bad"],
            &["update", "--pids-limit", "7", "bad"],
        ] {
            let ended = bounded(&attack.command(arguments));
            assert_ne!(ended.code, 0, "{kind}: {ended}");
            assert!(ended.stderr.contains("bad/state.json"), "{kind}: {ended}");
            assert!(ended.stderr.len() < 2000, "{kind}: {ended}");
        }
        let listed = bounded(&attack.command(&["list"]));
        assert!(listed.stdout.contains(attack.id()), "{kind}: {listed}");
        if bad.is_dir() {
            fs::remove_dir(&bad).expect("rmdir");
        } else {
            fs::remove_file(&bad).expect("remove");
        }
    }
    attack.delete();
}

/// A configuration that is too large, too deep or no file is refused; one that is merely large is carried out, or
/// refused by the kernel, and nothing is left of it.
#[test]
fn a_configuration_that_is_too_much_is_refused() {
    let attack = Attack::new();
    let path = attack.scratch.join("bundle/config.json");
    let whole = fs::read_to_string(&path).expect("read");
    let refused = |what: &str, said: &str| {
        let mut command = attack.command(&["run", "--bundle"]);
        let ended = bounded(command.arg(attack.scratch.join("bundle")).arg(attack.id()));
        assert_ne!(ended.code, 0, "{what}: {ended}");
        assert!(
            ended.stderr.contains(said) && ended.stderr.len() < 2000,
            "{what}: {ended}"
        );
        let left = attack.scratch.join("state").join(attack.id());
        assert!(!left.exists(), "{what}");
        assert!(leftovers::cgroups_named(attack.id()).is_empty(), "{what}");
    };
    sparse(&path, 100 << 30);
    refused("100 GiB", "config.json");
    fs::remove_file(&path).expect("remove");
    fifo(&path);
    refused("a FIFO", "config.json");
    fs::remove_file(&path).expect("remove");
    symlink("/dev/zero", &path).expect("symlink");
    refused("endless", "config.json");
    fs::remove_file(&path).expect("remove");
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(1 << 16), close.repeat(1 << 16));
        fs::write(&path, &deep).expect("write");
        refused("deep", "");
        // Also where nobody knows the field, or takes what is there as it is.
        for field in ["annotations", "windows", "unheard-of", "hooks"] {
            let text = whole.trim_end().trim_end_matches('}').trim_end();
            fs::write(&path, format!("{text}, \"{field}\": {deep} }}")).expect("write");
            let ended = attack.run();
            assert!(![134, 139].contains(&ended.code), "{field}: {ended}");
        }
    }
    fs::write(&path, &whole).expect("write");
    attack.configure(&["/bin/true"], |spec| {
        spec["process"]["env"] = (0..100_000)
            .map(|number| format!("V{number}=and so on, and so on"))
            .collect();
    });
    refused("100,000 variables", "argument list too long");
    attack.configure(&["/bin/true"], |spec| {
        spec["linux"]["maskedPaths"] = (0..40_000).map(|number| format!("/masked{number}")).collect();
    });
    attack.run().ok();
    let one = r#"{"destination":"/tmp","type":"tmpfs"}"#;
    let many = format!(r#""mounts": [{one}{}"#, format!(",{one}").repeat(999_999));
    fs::write(&path, whole.replace(r#""mounts": ["#, &format!("{many},"))).expect("write");
    refused("a million mounts", "larger than");
    attack.configure(&["/bin/true"], |spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.extend((0..500).map(|_| json!({"destination": "/tmp", "type": "tmpfs"})));
    });
    attack.run().ok();
}

/// Whatever can be created can also be looked at and deleted, though the record holds more than the configuration.
#[test]
fn a_container_with_megabytes_of_annotations_can_be_deleted() {
    let attack = Attack::new();
    attack.configure(&["/bin/sleep", "100"], |spec| {
        let value: Value = "x".repeat(9_300_000).into();
        spec["annotations"] = json!({"org.example.large": value});
    });
    let mut command = attack.command(&["run", "--detach", "--bundle"]);
    command.arg(attack.scratch.join("bundle")).arg(attack.id());
    let created = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if created.expect("the runtime starts").success() {
        run(&mut attack.command(&["delete", "--force", attack.id()])).ok();
    }
    assert!(!attack.scratch.join("state").join(attack.id()).exists());
    assert!(leftovers::cgroups_named(attack.id()).is_empty());
}

/// CVE-2022-31030's family: gigabytes, or no end, where accounts are looked up.
#[test]
fn an_account_file_without_an_end_is_read_to_a_point() {
    let attack = Attack::new();
    for file in ["etc/passwd", "etc/group"] {
        for kind in ["sparse", "one line", "endless", "fifo", "directory", "link out"] {
            let path = attack.rootfs(file);
            fs::remove_file(&path).expect("remove");
            match kind {
                "sparse" => sparse(&path, 100 << 30),
                "one line" => fs::write(&path, "x".repeat(8 << 20)).expect("write"),
                "endless" => symlink("/dev/zero", &path).expect("symlink"),
                "fifo" => fifo(&path),
                "directory" => fs::create_dir(&path).expect("mkdir"),
                _ => symlink("/proc/self/root/etc/passwd", &path).expect("symlink"),
            }
            let started = Instant::now();
            attack.configure(&["/bin/sh", "-c", "echo $HOME"], |spec| {
                spec["process"]["env"] = json!(["PATH=/bin"]);
                spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            });
            let mut command = attack.command(&["run", "--bundle"]);
            let ended = bounded(command.arg(attack.scratch.join("bundle")).arg(attack.id()));
            assert_eq!(ended.ok(), "/\n", "{file}: {kind}");
            assert!(started.elapsed() < Duration::from_secs(5), "{file}: {kind}");
            if path.is_dir() {
                fs::remove_dir(&path).expect("rmdir");
            } else {
                fs::remove_file(&path).expect("remove");
            }
            fs::write(&path, "").expect("write");
        }
    }
}

/// Two hundred at once in a container that is killed under them: each ends, by itself or with it, and nothing is left.
#[test]
fn a_flood_of_execs_ends_with_the_container() {
    let attack = Attack::new();
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    let mut execs: Vec<_> = (0..200)
        .map(|_| {
            let mut command = attack.command(&["exec", attack.id(), "/bin/sleep", "100"]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().expect("start")
        })
        .collect();
    eventually("some of them run", Duration::from_secs(15), || {
        let ps = run(&mut attack.command(&["ps", "--format", "json", attack.id()]));
        let pids: Vec<i32> = serde_json::from_str(&ps.stdout).unwrap_or_default();
        (pids.len() > 20).then_some(())
    });
    run(&mut attack.command(&["delete", "--force", attack.id()])).ok();
    let mut open = execs.len();
    eventually("all of them end", Duration::from_secs(20), || {
        execs.retain_mut(|exec| exec.try_wait().expect("wait").is_none());
        open = execs.len();
        execs.is_empty().then_some(())
    });
    assert_eq!(open, 0);
    assert!(leftovers::cgroups_named(attack.id()).is_empty());
    assert!(!attack.scratch.join("state").join(attack.id()).exists());
}

/// A program that forks as fast as it can does not outrun its end, with a pid namespace of its own or without.
#[test]
fn a_fork_bomb_is_deleted() {
    let attack = Attack::new();
    for own_pids in [true, false] {
        let bomb =
            "echo ready; trap '' TERM; b() { b & b & sleep 0.01; b; }; while :; do b 2>/dev/null; done";
        attack.configure(&["/bin/sh", "-c", bomb], |spec| {
            spec["linux"]["resources"]["pids"] = json!({"limit": 150});
            if !own_pids {
                let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
                namespaces.retain(|namespace| namespace["type"] != "pid");
            }
        });
        attack.start();
        attack.says("ready");
        let started = Instant::now();
        run(&mut attack.command(&["delete", "--force", attack.id()])).ok();
        assert!(started.elapsed() < Duration::from_secs(12));
        assert!(
            leftovers::cgroups_named(attack.id()).is_empty(),
            "own pids: {own_pids}"
        );
        assert!(!attack.scratch.join("state").join(attack.id()).exists());
    }
}

/// Who listens but never answers holds up a creation for a while only, and nothing is left of it.
#[test]
fn a_socket_that_nobody_serves_does_not_hold_a_creation_up() {
    let attack = Attack::new();
    let path = attack.scratch.join("full.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    // Its queue has one place, which is taken.
    rustix::net::listen(&listener, 0).expect("listen");
    let _taken = std::os::unix::net::UnixStream::connect(&path).expect("connect");
    for (flag, terminal) in [("--console-socket", true), ("--pidfd-socket", false)] {
        attack.configure(&["/bin/true"], |spec| {
            spec["process"]["terminal"] = terminal.into();
        });
        let mut command = attack.command(&["create", flag]);
        command
            .arg(&path)
            .arg("--bundle")
            .arg(attack.scratch.join("bundle"));
        let ended = run(command.arg(attack.id()));
        assert!(![0, 124, 137].contains(&ended.code), "{flag}: {ended}");
        assert!(ended.stderr.contains("full.sock"), "{flag}: {ended}");
        assert!(!attack.scratch.join("state").join(attack.id()).exists());
    }
}

/// What a hook says is kept up to a point: neither memory nor the log grows with it.
#[test]
fn a_hook_that_says_too_much_is_cut_short() {
    let attack = Attack::new();
    let log = attack.scratch.join("log");
    for (kind, path) in [
        ("createRuntime", "/usr/bin/yes"),
        ("createContainer", "/usr/bin/yes"),
        ("startContainer", "/bin/yes"),
    ] {
        attack.configure(&["/bin/true"], |spec| {
            spec["hooks"] = json!({kind: [{"path": path, "args": ["yes"], "timeout": 10}]});
        });
        let mut command = attack.command(&["--log"]);
        command.arg(&log).args(["run", "--bundle"]);
        let ended = bounded(command.arg(attack.scratch.join("bundle")).arg(attack.id()));
        assert_ne!(ended.code, 0, "{kind}: {ended}");
        assert!(
            ended.stderr.contains("y; y") && ended.stderr.len() < 20_000,
            "{kind}: {ended}"
        );
        assert!(!attack.scratch.join("state").join(attack.id()).exists(), "{kind}");
    }
    assert!(fs::metadata(&log).expect("stat").len() < 60_000);
}

/// Events that nobody reads wait with their writer, which does not grow, and ends when the reader goes.
#[test]
fn events_that_nobody_reads_take_no_memory() {
    let attack = Attack::new();
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    let mut command = Command::new(&attack.program);
    command.arg("--root").arg(attack.scratch.join("state"));
    command.args(["events", "--interval", "1ms", attack.id()]);
    let mut events = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let field = |name: &str| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", events.id())).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_ascii_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    let stalled = || {
        let wchan = fs::read_to_string(format!("/proc/{}/syscall", events.id())).unwrap_or_default();
        // write(1, …)
        wchan.starts_with("1 0x1 ").then_some(())
    };
    eventually("its pipe is full", Duration::from_secs(15), stalled);
    let before = field("VmRSS");
    assert!(before > 0 && before < 60_000, "{before} KiB");
    run(&mut attack.command(&["delete", "--force", attack.id()])).ok();
    drop(events.stdout.take());
    eventually("it ends with its reader", Duration::from_secs(5), || {
        events.try_wait().expect("wait")
    });
}
