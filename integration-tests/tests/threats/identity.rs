//! Who a process is: ids, groups, capabilities, read from inside.

use std::process::Command;

use integration_tests::{Finished, run};
use serde_json::{Value, json};

use crate::attack::Attack;

fn status(finished: Finished) -> Value {
    let report: Value = serde_json::from_str(&finished.ok()).expect("the probe prints JSON");
    report["status"].clone()
}

/// The four ids of a line of `/proc/self/status`.
fn ids(status: &Value, line: &str) -> Vec<u32> {
    let text = status[line].as_str().expect("a line of ids");
    text.split_whitespace()
        .map(|id| id.parse().expect("an id"))
        .collect()
}

/// The family of CVE-2024-40635 and CVE-2026-30892: a number that wraps, or means something else, makes root.
#[test]
fn cve_2024_40635_no_number_becomes_root() {
    let attack = Attack::new();
    for (uid, gid) in [(1_u32, 2_u32), (1 << 31, 1 << 31), (u32::MAX - 1, u32::MAX - 1)] {
        attack.configure(&["/bin/probe", "identity"], |spec| {
            spec["process"]["user"] = json!({"uid": uid, "gid": gid});
        });
        let status = status(attack.run());
        assert_eq!(ids(&status, "Uid"), [uid; 4]);
        assert_eq!(ids(&status, "Gid"), [gid; 4]);
    }
    for user in [
        json!({"uid": u32::MAX, "gid": 1}),
        json!({"uid": 1, "gid": u32::MAX}),
        json!({"uid": 1, "gid": 1, "additionalGids": [u32::MAX]}),
        json!({"uid": 1_u64 << 32, "gid": 1}),
        json!({"uid": -1, "gid": 1}),
    ] {
        attack.configure(&["/bin/probe", "identity"], |spec| {
            spec["process"]["user"] = user.clone();
        });
        let ended = attack.run();
        assert!(ended.code != 0 && ended.stdout.is_empty(), "{user}: {ended}");
    }
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    for (user, uid, gid) in [("1", 1, 0), ("1:2", 1, 2), ("2147483648:1", 1 << 31, 1)] {
        let status = status(attack.exec(&["--user", user], &["/bin/probe", "identity"]));
        assert_eq!(ids(&status, "Uid"), [uid; 4], "{user}");
        assert_eq!(ids(&status, "Gid"), [gid; 4], "{user}");
    }
    for user in [
        "4294967295",
        "1:4294967295",
        "4294967296",
        "-1",
        "",
        "1:",
        "root",
        "1:2:3",
    ] {
        let ended = attack.exec(&[&format!("--user={user}")], &["/bin/probe", "identity"]);
        assert!(ended.code != 0 && ended.stdout.is_empty(), "{user:?}: {ended}");
    }
    attack.delete();
}

/// CVE-2022-24769 and CVE-2022-29162: nothing is inheritable unless asked for, also in what is executed later.
#[test]
fn cve_2022_24769_nothing_is_inheritable_unless_asked() {
    let attack = Attack::new();
    for uid in [0, 1000] {
        attack.configure(&["/bin/probe", "identity"], |spec| {
            spec["process"]["user"] = json!({"uid": uid, "gid": 0});
            spec["process"]["capabilities"]["inheritable"] = json!([]);
            spec["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
        });
        // The caller has some itself.
        let mut command = Command::new("setpriv");
        let runtime = attack.command(&["run", "--bundle"]);
        command.args(["--inh-caps", "+kill,+net_admin", "--groups", "4,24"]);
        command.arg(runtime.get_program()).args(runtime.get_args());
        let status = status(run(command.arg(attack.scratch.join("bundle")).arg(attack.id())));
        assert_eq!(status["CapInh"], "0000000000000000", "{uid}: {status}");
        assert_eq!(status["CapAmb"], "0000000000000000", "{uid}: {status}");
        assert_eq!(status["Groups"], "", "the caller's groups: {status}");
        if uid != 0 {
            assert_eq!(status["CapEff"], "0000000000000000", "{status}");
        }
    }
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    for flags in [
        &[][..],
        &["--cap", "CAP_NET_ADMIN"],
        &["--user", "1000", "--cap", "CAP_NET_ADMIN"],
    ] {
        let status = status(attack.exec(flags, &["/bin/probe", "identity"]));
        assert_eq!(status["CapInh"], "0000000000000000", "{flags:?}: {status}");
        assert_eq!(status["CapAmb"], "0000000000000000", "{flags:?}: {status}");
        assert_eq!(status["NoNewPrivs"], "1", "{flags:?}: {status}");
    }
    attack.delete();
}
