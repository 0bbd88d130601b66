//! Names and paths that are the caller's: ids, root file systems, files that are written, groups.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::{eventually, leftovers, run};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::attack::{Attack, without_mount};

/// What is no name is refused by every command, and nothing is made or removed for it.
#[test]
fn an_id_is_a_name_and_no_path() {
    let attack = Attack::new();
    let state = attack.scratch.directory("state");
    fs::create_dir(attack.scratch.join("other")).expect("mkdir");
    fs::write(attack.scratch.join("other/state.json"), "{}").expect("write");
    let long = "x".repeat(1025);
    let absolute = attack.scratch.join("other").to_string_lossy().into_owned();
    for id in [
        "", ".", "..", "../other", "a/b", "a\nb", "a b", "~a", "%s", &long, &absolute,
    ] {
        for arguments in [
            &["create", "--bundle", "BUNDLE"][..],
            &["run", "--bundle", "BUNDLE"],
            &["state"],
            &["start"],
            &["kill"],
            &["exec"],
            &["delete", "--force"],
            &["update", "--pids-limit", "7"],
        ] {
            let bundle = attack.scratch.join("bundle").to_string_lossy().into_owned();
            let arguments: Vec<&str> = arguments
                .iter()
                .map(|argument| {
                    if *argument == "BUNDLE" {
                        bundle.as_str()
                    } else {
                        argument
                    }
                })
                .collect();
            let mut command = attack.command(&arguments);
            command.args(["--", id]);
            if arguments[0] == "exec" {
                command.arg("/bin/true");
            }
            let ended = run(&mut command);
            assert!(![0, 124, 137].contains(&ended.code), "{id:?}: {ended}");
        }
    }
    let left: Vec<_> = fs::read_dir(state).expect("the state root").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(attack.scratch.join("other/state.json").exists());
}

/// A bundle whose `rootfs` is a link is one whose container could have any directory of the host as its root.
#[test]
fn a_root_that_is_a_link_is_no_root() {
    let attack = Attack::new();
    let bundle = attack.scratch.join("bundle");
    fs::rename(bundle.join("rootfs"), attack.scratch.join("real")).expect("rename");
    symlink(attack.scratch.join("real"), bundle.join("rootfs")).expect("symlink");
    let ended = attack.run();
    assert!(
        ended.code != 0
            && ended
                .stderr
                .contains("invalid rootfs: not an absolute path, or a symlink"),
        "{ended}"
    );
    symlink(attack.scratch.path(), bundle.join("up")).expect("symlink");
    for path in ["rootfs/", "up/real", "up/../real"] {
        attack.configure(&["/bin/true"], |spec| spec["root"]["path"] = path.into());
        assert_ne!(attack.run().code, 0, "{path}");
    }
    // Up by name is no link.
    attack.configure(&["/bin/true"], |spec| spec["root"]["path"] = "../real".into());
    attack.run().ok();
}

/// The host's own root as a container's: what is made, covered and replaced for the container is so in its own namespace
/// only. The host here has a `/dev` of its own: should this fail, it is not the machine's that is lost.
#[test]
fn the_hosts_root_as_a_root_changes_nothing_there() {
    const NODES: &str = "mount -t tmpfs none /dev && mkdir /dev/pts /dev/shm /dev/mqueue &&
        ln -s /proc/self/fd /dev/fd && ln -s fd/0 /dev/stdin && ln -s fd/1 /dev/stdout && ln -s fd/2 /dev/stderr &&
        for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 ptmx:5:2; do
          IFS=: read -r name major minor <<E
$n
E
          mknod -m 666 /dev/$name c $major $minor
        done
        look() { stat -c '%n %F %i %t:%T %a' /dev/*; grep -c ' /dev' /proc/self/mountinfo; }
        before=$(look)
        \"$@\" </dev/null || exit
        [ \"$(look)\" = \"$before\" ] || { look; exit 99; }";
    let attack = Attack::new();
    for (read_only, own_dev) in [(true, true), (false, true), (false, false)] {
        attack.configure(&["/bin/sh", "-c", "cat /dev/null && echo stands"], |spec| {
            spec["root"]["path"] = "/".into();
            spec["root"]["readonly"] = read_only.into();
            if !own_dev {
                without_mount(spec, "/dev");
            }
        });
        let runtime = attack.command(&["run", "--bundle"]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", NODES, "sh"]);
        command.arg(runtime.get_program()).args(runtime.get_args());
        let ended = run(command.arg(attack.scratch.join("bundle")).arg(attack.id()));
        assert_eq!(ended.stdout, "stands\n", "own /dev: {own_dev}: {ended}");
        assert_eq!(ended.code, 0, "{ended}");
        attack.lost_nothing("the host as a root");
    }
}

/// A pid file goes where its name is, not to what somebody has put there.
#[test]
fn a_pid_file_is_not_written_through_a_link() {
    let attack = Attack::new();
    let directory = attack.scratch.directory("pids");
    let secret = attack.canary().join("secret");
    let (path, hidden) = (directory.join("pid"), directory.join(".pid"));
    for kind in ["link", "hidden link", "hidden hard link", "hidden fifo"] {
        match kind {
            "link" => symlink(&secret, &path).expect("symlink"),
            "hidden link" => symlink(&secret, &hidden).expect("symlink"),
            "hidden hard link" => fs::hard_link(&secret, &hidden).expect("link"),
            _ => mknodat(CWD, &hidden, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("mkfifo"),
        }
        let mut command = attack.command(&["run", "--pid-file"]);
        command
            .arg(&path)
            .arg("--bundle")
            .arg(attack.scratch.join("bundle"));
        run(command.arg(attack.id())).ok();
        let text = fs::read_to_string(&path).expect("the pid file");
        assert!(text.parse::<u32>().is_ok(), "{kind}: {text}");
        // The hard link was one more name of it for a while.
        attack.lost_nothing(kind);
        fs::remove_file(&path).expect("remove");
    }
}

/// The group of an executed process is one below the container's.
#[test]
fn no_group_of_exec_leads_out_of_the_containers() {
    let attack = Attack::new();
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    let own = attack.exec(&[], &["/bin/cat", "/proc/self/cgroup"]).ok();
    for group in ["..", "../..", "a/../../..", "/../../", "./..", "x/../.."] {
        let ended = attack.exec(&["--cgroup", group], &["/bin/cat", "/proc/self/cgroup"]);
        // Cleaned as a path from the container's own group on, that is where some of them end.
        assert!(ended.code != 0 || ended.stdout == own, "{group}: {ended}");
    }
    attack.delete();
}

/// Two that start, and many that delete at once: one starts, and nothing is left.
#[test]
fn of_many_at_once_one_starts_and_nothing_is_left() {
    let attack = Attack::new();
    attack.configure(&["/bin/sh", "-c", "echo started; sleep 100"], |_| {});
    for _ in 0..10 {
        let output = fs::File::create(attack.scratch.join("output")).expect("output");
        let mut command = attack.command(&["create", "--bundle"]);
        command.arg(attack.scratch.join("bundle")).arg(attack.id());
        let status = command
            .stdout(output.try_clone().expect("dup"))
            .stderr(output)
            .status();
        assert!(status.expect("create").success());
        let at_once = |arguments: &[&str]| -> Vec<i32> {
            let started: Vec<_> = (0..6)
                .map(|_| {
                    let mut command = attack.command(arguments);
                    command.stdout(Stdio::null());
                    command.stderr(Stdio::null()).spawn().expect("start")
                })
                .collect();
            let codes = started
                .into_iter()
                .map(|mut child| child.wait().expect("wait").code());
            codes.map(|code| code.unwrap_or(255)).collect()
        };
        let codes = at_once(&["start", attack.id()]);
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        let said = eventually("it says so", Duration::from_secs(10), || {
            Some(fs::read_to_string(attack.scratch.join("output")).expect("read"))
                .filter(|said| !said.is_empty())
        });
        assert_eq!(said, "started\n");
        let codes = at_once(&["delete", "--force", attack.id()]);
        assert_eq!(codes, [0; 6]);
        let left = leftovers::cgroups_named(attack.id());
        assert!(left.is_empty(), "{left:?}");
        let left = fs::read_dir(attack.scratch.join("state")).expect("state").count();
        assert_eq!(left, 0);
    }
}
