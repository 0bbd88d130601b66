//! The default profile, tried from inside: through `syscall`, through i386's `int 0x80`, and with x32's marker.

use integration_tests::binaries;
use serde_json::Value;
use wharf_engine::container::config::seccomp;

use crate::attack::Attack;

const EPERM: i64 = -1;
const ENOSYS: i64 = -38;
const AF_UNIX: &str = "1";
const AF_ALG: &str = "38";
const AF_VSOCK: &str = "40";
const NEW_USER: &str = "268435456";

/// What the kernel answers to one call of a container; `None` when the call ended it.
fn answer(attack: &Attack, call: &[&str]) -> Option<i64> {
    let mut arguments = vec!["/bin/probe", "call"];
    arguments.extend(call);
    attack.configure(&arguments, |spec| {
        spec["process"]["noNewPrivileges"] = true.into();
        if attack.canary().join("profile").exists() {
            spec["linux"]["seccomp"] = seccomp::profile(&[]);
        }
    });
    let finished = attack.run();
    let report: Value = match finished.code {
        0 => serde_json::from_str(&finished.stdout).expect("the probe prints JSON"),
        code if code > 128 => return None,
        _ => panic!("{finished}"),
    };
    report["answer"].as_i64()
}

/// Calls that containers do not need, by entry and number.
fn unneeded() -> Vec<Vec<&'static str>> {
    let mut calls = vec![
        // A socket of a family that kernels have had holes in.
        vec!["x86_64", "41", AF_ALG, "5", "0"],
        vec!["x86_64", "41", AF_VSOCK, "1", "0"],
        vec!["x32", "41", AF_ALG, "5", "0"],
        vec!["i386", "359", AF_ALG, "5", "0"],
        vec!["i386", "359", AF_VSOCK, "1", "0"],
        vec!["i386", "102", "1", "@38,5,0"],
        vec!["i386", "102", "1", "@40,1,0"],
        // A user namespace by clone's flags.
        vec!["x86_64", "56", NEW_USER],
        vec!["x32", "56", NEW_USER],
        vec!["i386", "120", NEW_USER],
    ];
    // keyctl, userfaultfd, io_uring_setup, bpf, unshare, mount, open_by_handle_at, perf_event_open, kexec_load, pivot_root.
    for (native, i386) in [
        ("250", "288"),
        ("323", "374"),
        ("425", "425"),
        ("321", "357"),
        ("272", "310"),
        ("165", "21"),
        ("304", "342"),
        ("298", "336"),
        ("246", "283"),
        ("155", "217"),
    ] {
        calls.push(vec!["x86_64", native]);
        calls.push(vec!["i386", i386]);
        // kexec_load has another number with x32.
        if native != "246" {
            calls.push(vec!["x32", native]);
        }
    }
    calls
}

#[test]
fn cve_2026_31431_no_entry_leads_to_what_containers_do_not_need() {
    let attack = Attack::new();
    // Without a profile the calls reach the kernel: it has other reasons to refuse some, but not this one for all.
    let socketcall = ["i386", "102", "1", "@38,5,0"];
    let before = answer(&attack, &socketcall);
    assert_ne!(before, Some(EPERM), "the attack is not made");
    std::fs::write(attack.canary().join("profile"), "").expect("switch the profile on");
    for call in unneeded() {
        assert_eq!(answer(&attack, &call), Some(EPERM), "{call:?}");
    }
    // No filter can look into clone3's structure; libc takes ENOSYS for an old kernel.
    assert_eq!(answer(&attack, &["x86_64", "435", "0", "0"]), Some(ENOSYS));
    assert_eq!(answer(&attack, &["i386", "435", "0", "0"]), Some(ENOSYS));
    // A peer with libseccomp compares the pointer with the family, and lets every family through.
    let mut peer = attack;
    peer.program = binaries::peer("runc");
    assert_eq!(answer(&peer, &socketcall), before, "the peer falls to it");
}

#[test]
fn programs_of_other_architectures_still_work_behind_the_default_profile() {
    let attack = Attack::new();
    std::fs::write(attack.canary().join("profile"), "").expect("switch the profile on");
    for call in [
        &["x86_64", "39"][..],
        &["x86_64", "41", AF_UNIX, "1", "0"],
        // getpid, socket, socketcall(SYS_SOCKETPAIR), and a clone without namespaces is a fork.
        &["i386", "20"],
        &["i386", "359", AF_UNIX, "1", "0"],
        &["i386", "102", "8", "@1,1,0,0"],
    ] {
        let answer = answer(&attack, call).expect("it lives");
        // The last one has no place for its two descriptors: EFAULT is the kernel's own answer.
        assert!(answer >= 0 || answer == -14, "{call:?}: {answer}");
    }
    // x32 is built into few kernels; the filter is asked before the kernel says so.
    let x32 = answer(&attack, &["x32", "39"]).expect("it lives");
    assert!(x32 > 0 || x32 == ENOSYS, "{x32}");
}
