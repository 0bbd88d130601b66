//! Root file systems that attack what is mounted on them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use integration_tests::{Finished, run};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::json;

use crate::attack::{Attack, mount, without_mount};

fn clear(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).expect("remove"),
        Ok(_) => fs::remove_file(path).expect("remove"),
        Err(_) => {}
    }
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("mkfifo");
}

/// Every place that the runtime itself mounts on or makes, as a link out, a FIFO and a file (CVE-2019-19921,
/// -2023-27561, -2023-28642, -2025-62161): the container is refused or stands, and the host is as before.
#[test]
fn cve_2019_19921_no_place_leads_out() {
    let attack = Attack::new();
    let canary = attack.canary();
    let absolute = canary.to_string_lossy().into_owned();
    let relative = format!("../../../../../../../../..{absolute}");
    let places = [
        "dev",
        "dev/null",
        "dev/console",
        "dev/pts",
        "dev/ptmx",
        "dev/shm",
        "dev/fd",
        "proc",
        "sys",
    ];
    for own_dev in [true, false] {
        attack.configure(&["/bin/sh", "-c", "echo stands"], |spec| {
            if !own_dev {
                without_mount(spec, "/dev");
            }
        });
        for place in places {
            for kind in ["absolute", "relative", "secret", "fifo", "file"] {
                let at = attack.rootfs(place);
                clear(&attack.rootfs("dev"));
                fs::create_dir(attack.rootfs("dev")).expect("mkdir");
                clear(&at);
                match kind {
                    "absolute" => symlink(&absolute, &at).expect("symlink"),
                    "relative" => symlink(&relative, &at).expect("symlink"),
                    "secret" => symlink(format!("{absolute}/secret"), &at).expect("symlink"),
                    "fifo" => fifo(&at),
                    _ => fs::write(&at, "").expect("write"),
                }
                let what = format!("{place} is {kind}, own /dev: {own_dev}");
                let ended = attack.run();
                assert!(ended.code != 0 || ended.stdout == "stands\n", "{what}: {ended}");
                // A link where only procfs and sysfs belong is never followed, not even inside.
                if (place == "proc" || place == "sys") && kind != "fifo" && kind != "file" {
                    assert_ne!(ended.code, 0, "{what}: {ended}");
                }
                attack.lost_nothing(&what);
                clear(&at);
                fs::create_dir_all(attack.rootfs("proc")).expect("mkdir");
                fs::create_dir_all(attack.rootfs("sys")).expect("mkdir");
                // What was followed was followed inside.
                clear(&attack.rootfs(absolute.trim_start_matches('/')));
            }
        }
    }
}

/// The image's `/dev` leads to a directory of the host that was mounted somewhere else, its `/dev` for one: nothing in it
/// is made or replaced.
#[test]
fn a_dev_that_is_a_link_to_a_volume() {
    let attack = Attack::new();
    let canary = attack.canary();
    for name in ["ptmx", "null"] {
        fs::write(canary.join(name), "of the host").expect("write");
    }
    let names = || {
        let entries = fs::read_dir(&canary).expect("canary");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    fs::create_dir(attack.rootfs("volume")).expect("mkdir");
    fs::remove_dir(attack.rootfs("dev")).expect("rmdir");
    symlink("/volume", attack.rootfs("dev")).expect("symlink");
    for nulls in [true, false] {
        if !nulls {
            fs::remove_file(canary.join("null")).expect("remove");
        }
        let before: Vec<_> = before
            .iter()
            .filter(|name| nulls || *name != "null")
            .cloned()
            .collect();
        attack.configure(&["/bin/true"], |spec| {
            mount(
                spec,
                "bind",
                &canary.to_string_lossy(),
                "/volume",
                &["bind", "rw"],
            );
        });
        assert_ne!(attack.run().code, 0);
        assert_eq!(names(), before);
        let ptmx = fs::symlink_metadata(canary.join("ptmx")).expect("stat");
        assert!(ptmx.is_file(), "the host's ptmx was replaced");
    }
}

/// What masks a path is the null device, whatever lies at `/dev/null`.
#[test]
fn cve_2025_31133_a_false_null_device_masks_nothing() {
    let attack = Attack::new();
    let dev = attack.scratch.directory("dev");
    fs::create_dir(dev.join("pts")).expect("mkdir");
    fs::write(attack.rootfs("masked"), "to be hidden").expect("write");
    fs::write(attack.rootfs("false"), "from the image").expect("write");
    for kind in ["link to procfs", "link", "fifo", "file", "other device", "absent"] {
        let null = dev.join("null");
        clear(&null);
        match kind {
            "link to procfs" => symlink("/proc/sys/kernel/core_pattern", &null).expect("symlink"),
            "link" => symlink("/false", &null).expect("symlink"),
            "fifo" => fifo(&null),
            "file" => fs::write(&null, "from the image").expect("write"),
            "other device" => {
                let device = rustix::fs::makedev(1, 5);
                mknodat(
                    CWD,
                    &null,
                    FileType::CharacterDevice,
                    Mode::from_raw_mode(0o666),
                    device,
                )
                .expect("mknod");
            }
            _ => {}
        }
        let script = "stat -c '%F %t:%T' /masked /proc/timer_list; cat /masked";
        attack.configure(&["/bin/sh", "-c", script], |spec| {
            without_mount(spec, "/dev");
            spec["mounts"].as_array_mut().expect("mounts").retain(|mount| {
                !mount["destination"]
                    .as_str()
                    .is_some_and(|at| at.starts_with("/dev"))
            });
            mount(spec, "bind", &dev.to_string_lossy(), "/dev", &["bind", "rw"]);
            spec["linux"]["maskedPaths"] = json!(["/masked", "/proc/timer_list"]);
        });
        let said = attack.run().ok();
        let expected = "character special file 1:3\n";
        assert_eq!(said, expected.repeat(2), "{kind}");
        attack.lost_nothing(kind);
    }
}

/// The terminal is mounted on a file of the container, not on what a link leads to.
#[test]
fn cve_2025_52565_a_console_that_is_a_link() {
    let attack = Attack::new();
    let socket = attack.scratch.join("console.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    fs::write(attack.rootfs("covered"), "not covered").expect("write");
    let secret = attack.canary().join("secret").to_string_lossy().into_owned();
    for target in [
        "/covered",
        "/proc/sysrq-trigger",
        "pts/../../covered",
        secret.as_str(),
    ] {
        let console = attack.rootfs("dev/console");
        clear(&console);
        symlink(target, &console).expect("symlink");
        attack.configure(&["/bin/sleep", "100"], |spec| {
            without_mount(spec, "/dev");
            spec["process"]["terminal"] = true.into();
        });
        let mut command = attack.command(&["create", "--console-socket"]);
        command
            .arg(&socket)
            .arg("--bundle")
            .arg(attack.scratch.join("bundle"));
        let ended = run(command.arg(attack.id()));
        assert_ne!(ended.code, 0, "{target}: {ended}");
        assert!(ended.stderr.contains("console"), "{target}: {ended}");
        attack.lost_nothing(target);
    }
}

/// Mount targets below a volume that the attacker filled (CVE-2021-30465, standing still).
#[test]
fn cve_2021_30465_targets_that_are_links() {
    let attack = Attack::new();
    let volume = attack.scratch.directory("volume");
    let canary = attack.canary().to_string_lossy().into_owned();
    // Seen from the container's root the links lead here.
    let inside = attack.rootfs(canary.trim_start_matches('/'));
    fs::create_dir_all(&inside).expect("mkdir");
    symlink(&canary, volume.join("absolute")).expect("symlink");
    symlink(
        format!("../../../../../../../..{canary}"),
        volume.join("relative"),
    )
    .expect("symlink");
    symlink("/proc", volume.join("procfs")).expect("symlink");
    symlink("/proc/self/root/proc/1/root", volume.join("magic")).expect("symlink");
    for (target, refused) in [
        ("/volume/absolute/made", false),
        ("/volume/relative/made", false),
        ("/volume/procfs", true),
        ("/volume/procfs/sys", true),
        ("/volume/procfs/self/attr", true),
        ("/volume/magic/made", true),
    ] {
        attack.configure(&["/bin/sh", "-c", "echo stands"], |spec| {
            mount(spec, "bind", &volume.to_string_lossy(), "/volume", &["bind"]);
            mount(spec, "tmpfs", "tmpfs", target, &[]);
        });
        let ended = attack.run();
        assert_eq!(ended.code != 0, refused, "{target}: {ended}");
        // Who stands was mounted inside, on what the runtime made there.
        assert!(refused || inside.join("made").is_dir(), "{target}: {ended}");
        attack.lost_nothing(target);
    }
}

/// How often a race is run, and for how long at most; `WHARF_RACE_ROUNDS` asks for more, however long they take.
fn rounds() -> (usize, Duration) {
    match std::env::var("WHARF_RACE_ROUNDS") {
        Ok(rounds) => (rounds.parse().expect("a number of rounds"), Duration::MAX),
        Err(_) => (2000, Duration::from_secs(40)),
    }
}

/// As before, but another process swaps the link and the directory all the time (CVE-2021-30465, CVE-2024-45310).
#[test]
fn cve_2021_30465_targets_that_are_swapped() {
    let attack = Attack::new();
    let volume = attack.scratch.directory("volume");
    fs::create_dir(volume.join("a")).expect("mkdir");
    symlink(attack.canary(), volume.join("b")).expect("symlink");
    let inside = format!("{}/made", attack.canary().display());
    attack.configure(
        &[
            "/bin/sh",
            "-c",
            "cat a/*/* /volume/*/secret 2>/dev/null; echo stands",
        ],
        |spec| {
            mount(spec, "bind", &volume.to_string_lossy(), "/volume", &["bind"]);
            for name in ["one", "two", "three"] {
                mount(spec, "tmpfs", "tmpfs", &format!("/volume/a/{name}"), &[]);
            }
            mount(spec, "tmpfs", "tmpfs", &inside, &[]);
            spec["process"]["cwd"] = "/volume/a/four/five".into();
        },
    );
    let (a, b) = (volume.join("a"), volume.join("b"));
    let done = AtomicBool::new(false);
    let (ended, swaps) = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("swap");
                swaps += 1;
            }
            swaps
        });
        // Nothing is judged here: a panic would leave the swapper running.
        let mut command = attack.command(&["run", "--bundle"]);
        command.arg(attack.scratch.join("bundle")).arg(attack.id());
        let (rounds, limit) = rounds();
        let started = Instant::now();
        let ended: Vec<Finished> = (0..rounds)
            .take_while(|_| started.elapsed() < limit)
            .map(|_| run(&mut command))
            .collect();
        done.store(true, Ordering::Relaxed);
        (ended, swapper.join().expect("the swapper"))
    });
    assert!(
        swaps > 1000 && ended.len() >= 50,
        "the attack was hardly made: {swaps}"
    );
    for ended in &ended {
        // Losing the race is a refusal, winning it a container; neither shows the host.
        assert!(ended.code != 0 || ended.stdout == "stands\n", "{ended}");
    }
    attack.lost_nothing("swapped targets");
}
