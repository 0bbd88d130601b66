//! Procfs as an attacker arranges it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use integration_tests::run;
use serde_json::json;

use crate::attack::{Attack, grant, mount, without_mount};

/// CVE-2025-52881: what the runtime does in a container does not go through the container's own `/proc`.
#[test]
fn cve_2025_52881_exec_needs_no_proc_of_the_container() {
    let attack = Attack::new();
    let script = "mount -t tmpfs none /proc && mkdir -p /proc/self/attr/apparmor /proc/self/fd /proc/thread-self/attr &&
         for f in attr/exec attr/current attr/apparmor/exec cgroup status uid_map; do
           mkfifo /proc/self/$f; done
         cp /bin/busybox /proc/self/exe
         echo ready; sleep 100";
    let busybox = attack.rootfs("bin/mkfifo");
    std::os::unix::fs::symlink("busybox", busybox).expect("link an applet");
    attack.configure(&["/bin/sh", "-c", script], |spec| {
        grant(spec, "CAP_SYS_ADMIN");
    });
    attack.start();
    attack.says("ready");
    let said = attack.exec(&["--user", "1000:1000"], &["/bin/id", "-u"]).ok();
    assert_eq!(said, "1000\n");
    attack.delete();
}

/// A sysctl is written to a procfs of the runtime's own, also when another file system covers the container's.
#[test]
fn a_sysctl_goes_to_the_kernel_and_nowhere_else() {
    let attack = Attack::new();
    let host = || fs::read_to_string("/proc/sys/kernel/domainname").expect("read");
    let before = host();
    attack.configure(&["/bin/cat", "/proc/sys/kernel/domainname"], |spec| {
        spec["linux"]["sysctl"] = serde_json::json!({"kernel.domainname": "inside"});
    });
    assert_eq!(attack.run().ok(), "inside\n");
    assert_eq!(host(), before);
    for name in [
        "kernel.core_pattern",
        "kernel.domainname.",
        "net/../kernel/core_pattern",
        "vm.swappiness",
    ] {
        attack.configure(&["/bin/true"], |spec| {
            spec["linux"]["sysctl"] = serde_json::json!({name: "|/x"});
        });
        assert_ne!(attack.run().code, 0, "{name}");
    }
}

/// CVE-2021-41103: the state is root's alone, whatever the umask.
#[test]
fn the_state_is_closed_whatever_the_umask() {
    let attack = Attack::new();
    attack.configure(&["/bin/sleep", "100"], |_| {});
    let mut command = std::process::Command::new("sh");
    let runtime = attack.command(&["create", "--bundle"]);
    command.args(["-c", "umask 0; exec \"$@\" >/dev/null 2>&1", "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.arg(attack.scratch.join("bundle")).arg(attack.id());
    integration_tests::run(&mut command).ok();
    let mode = |path: &str| {
        let metadata = fs::symlink_metadata(attack.scratch.join("state").join(path));
        metadata.expect("stat").permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o711);
    assert_eq!(mode(attack.id()), 0o700);
    assert_eq!(mode(&format!("{}/state.json", attack.id())), 0o600);
    attack.delete();
}

/// CVE-2019-16884: what is mounted at or below `/proc` from elsewhere makes of a label, or of what is masked, what it likes.
#[test]
fn cve_2019_16884_only_a_procfs_lies_at_proc() {
    let attack = Attack::new();
    let fake = attack.scratch.directory("fake");
    fs::create_dir_all(fake.join("self/attr/apparmor")).expect("mkdir");
    fs::create_dir_all(fake.join("sys/kernel")).expect("mkdir");
    for file in [
        "self/attr/exec",
        "self/attr/apparmor/exec",
        "self/attr/current",
        "sys/kernel/domainname",
    ] {
        fs::write(fake.join(file), "untouched").expect("write");
    }
    for (link, to) in [
        ("link", "/proc"),
        ("up", "../../proc"),
        ("attr", "/proc/self/attr"),
        ("sys-link", "/proc/sys"),
    ] {
        std::os::unix::fs::symlink(to, attack.rootfs(link)).expect("symlink");
    }
    for target in [
        "/proc",
        "/proc/",
        "//proc/.",
        "/sys/../proc",
        "/link",
        "/up",
        "/proc/self",
        "/proc/thread-self",
        "/proc/self/attr",
        "/proc/1/attr",
        "/proc/sys",
        "/proc/sys/kernel",
        "/link/self/attr",
        "/attr",
        "/sys-link",
        "/link/../proc/sys",
    ] {
        for own_proc in [true, false] {
            for kind in ["bind", "tmpfs"] {
                attack.configure(&["/bin/sh", "-c", "echo stands"], |spec| {
                    if !own_proc {
                        without_mount(spec, "/proc");
                    }
                    match kind {
                        "bind" => mount(spec, "bind", &fake.to_string_lossy(), target, &["bind", "rw"]),
                        _ => mount(spec, "tmpfs", "tmpfs", target, &[]),
                    }
                    spec["linux"]["sysctl"] = json!({"kernel.domainname": "inside"});
                    spec["linux"]["maskedPaths"] = json!([]);
                    spec["linux"]["readonlyPaths"] = json!([]);
                });
                let ended = attack.run();
                // Without a procfs a link leads to a directory of the image, where anything may lie.
                let elsewhere = !own_proc
                    && !target.trim_start_matches('/').starts_with("proc")
                    && target != "/sys/../proc";
                assert!(
                    ended.code != 0 || elsewhere,
                    "{kind} {target}, own /proc: {own_proc}: {ended}"
                );
                let clean = |file: &str| fs::read_to_string(fake.join(file)).expect("read") == "untouched";
                assert!(
                    clean("self/attr/exec") && clean("sys/kernel/domainname"),
                    "{target}"
                );
            }
        }
    }
}

/// As runc: a label of a module that is not there is not given, so there is no process.
#[test]
fn a_label_that_cannot_be_given_is_an_error() {
    let attack = Attack::new();
    let has = |path: &str| std::path::Path::new(path).exists();
    let asked = [
        (
            "apparmorProfile",
            "no-such-profile",
            has("/sys/kernel/security/apparmor"),
        ),
        (
            "selinuxLabel",
            "system_u:system_r:no_such_t:s0",
            has("/sys/fs/selinux/enforce"),
        ),
    ];
    for (field, label, module) in asked {
        attack.configure(&["/bin/sh", "-c", "echo stands"], |spec| {
            spec["process"][field] = label.into();
        });
        let ended = attack.run();
        assert!(ended.code != 0 && ended.stdout.is_empty(), "{field}: {ended}");
        // With the module it is the kernel that knows no such label.
        assert!(module || ended.stderr.contains(field), "{ended}");
    }
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    for flags in [
        ["--apparmor", "no-such-profile"],
        ["--process-label", "u:r:no_such_t:s0"],
    ] {
        let ended = attack.exec(&flags, &["/bin/echo", "stands"]);
        assert!(ended.code != 0 && ended.stdout.is_empty(), "{ended}");
    }
    attack.delete();
    // A SELinux label too goes to a procfs of the runtime's own, when the module seems to be there.
    if asked[1].2 {
        return;
    }
    let script = "mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/thread-self/attr &&
         for f in self/attr/exec thread-self/attr/exec self/attr/current; do echo untouched >/proc/$f; done
         echo ready; sleep 100";
    attack.configure(&["/bin/sh", "-c", script], |spec| grant(spec, "CAP_SYS_ADMIN"));
    attack.start();
    attack.says("ready");
    let exec = attack.command(&["exec", "--process-label", "a:b:c:s0", attack.id(), "/bin/true"]);
    let view = attack.scratch.directory("sys-fs");
    let with_selinux =
        "mount -t tmpfs none $0 && mkdir $0/cgroup $0/selinux && mount --rbind /sys/fs/cgroup $0/cgroup &&
         echo 1 >$0/selinux/enforce && mount --rbind $0 /sys/fs && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", with_selinux]).arg(&view);
    let ended = run(command.arg(exec.get_program()).args(exec.get_args()));
    assert!(
        ended.code != 0 && ended.stderr.contains("set the label a:b:c:s0"),
        "{ended}"
    );
    let files = [
        "/proc/self/attr/exec",
        "/proc/thread-self/attr/exec",
        "/proc/self/attr/current",
    ];
    let said = attack.exec(&[], &[&["/bin/cat"], &files[..]].concat()).ok();
    assert_eq!(said, "untouched\n".repeat(3));
    attack.delete();
}

/// CVE-2023-25809: root of a user namespace, of the same id as the host's, finds no control group of the host's that it can
/// write to.
#[test]
fn cve_2023_25809_no_group_of_the_host_can_be_written() {
    let attack = Attack::new();
    let name = attack.id().to_owned();
    let script = format!(
        "for d in $(find /sys/fs/cgroup -maxdepth 4 -type d 2>/dev/null); do
           mkdir $d/{name}-made 2>/dev/null && echo made in $d
           (: >>$d/cgroup.procs) 2>/dev/null && echo opened $d/cgroup.procs
         done
         echo looked"
    );
    for own_cgroups in [true, false] {
        for sys in ["sysfs", "rbind"] {
            attack.configure(&["/bin/sh", "-c", &script], |spec| {
                let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
                namespaces.retain(|namespace| namespace["type"] != "cgroup" && namespace["type"] != "user");
                namespaces.push(json!({"type": "user"}));
                if own_cgroups {
                    namespaces.push(json!({"type": "cgroup"}));
                }
                for map in ["uidMappings", "gidMappings"] {
                    spec["linux"][map] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                }
                if sys == "rbind" {
                    // As a user's configuration has it.
                    let mounts = spec["mounts"].as_array_mut().expect("mounts");
                    let at = mounts
                        .iter()
                        .position(|mount| mount["destination"] == "/sys")
                        .expect("/sys");
                    mounts[at] = json!({"destination": "/sys", "type": "none", "source": "/sys",
                        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
                }
            });
            let ended = attack.run();
            let made = integration_tests::leftovers::cgroups_named(&format!("{name}-made"));
            for group in &made {
                fs::remove_dir(group).expect("rmdir");
            }
            assert!(made.is_empty(), "own cgroups: {own_cgroups}, {sys}: {made:?}");
            assert_eq!(
                ended.stdout, "looked\n",
                "own cgroups: {own_cgroups}, {sys}: {ended}"
            );
        }
    }
}
