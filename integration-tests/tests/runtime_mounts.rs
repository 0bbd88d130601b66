//! The mounts of `wharf-runtime`'s containers, as a process inside finds them in `/proc/self/mountinfo`.
//!
//! What needs a kernel that knows `mount_setattr` has `needs_5_12` in its name: the pass with the feature `old-kernel`
//! leaves it out.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::{Finished, Scratch, binaries, bundle, leftovers, run};
use serde_json::{Value, json};

/// A bundle, and the runtime that runs it.
struct Box {
    scratch: Scratch,
}

impl Box {
    fn new() -> Box {
        let scratch = Scratch::new();
        // The root user of a user namespace is anybody on the host.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        bundle::bundle(&scratch.join("bundle"), &["/bin/true"], |_| {});
        Box { scratch }
    }

    fn bundle(&self) -> PathBuf {
        self.scratch.join("bundle")
    }

    fn rootfs(&self, path: &str) -> PathBuf {
        self.scratch.join("bundle/rootfs").join(path)
    }

    /// Gives the root file system to the root user of [`user_namespace`].
    fn remap(&self) {
        run(Command::new("chown")
            .args(["-R", "100000:100000"])
            .arg(self.rootfs("")))
        .ok();
    }

    fn configure(&self, arguments: &[&str], edit: impl FnOnce(&mut Value)) {
        fs::remove_file(self.bundle().join("config.json")).expect("remove config.json");
        bundle::configure(&self.bundle(), arguments, edit);
    }

    fn run(&self, flags: &[&str]) -> Finished {
        let mut command = Command::new(binaries::ours("wharf-runtime"));
        command.arg("--root").arg(self.scratch.join("state")).arg("run");
        run(command
            .args(flags)
            .arg("--bundle")
            .arg(self.bundle())
            .arg(self.scratch.unique()))
    }

    /// Runs `sh -c script` with more mounts.
    fn sh(&self, script: &str, mounts: &[Value], edit: impl FnOnce(&mut Value)) -> Finished {
        self.configure(&["/bin/sh", "-c", script], |spec| {
            let list = spec["mounts"].as_array_mut().expect("mounts");
            list.extend(mounts.iter().cloned());
            edit(spec);
        });
        self.run(&[])
    }

    /// A tmpfs of the host with these options, at a directory of the test's own.
    fn tmpfs(&self, name: &str, options: &str) -> PathBuf {
        let point = self.scratch.directory(name);
        let mount = |arguments: &[&str]| run(Command::new("mount").args(arguments).arg(&point)).ok();
        mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs"]);
        mount(&["-o", &format!("bind,remount,{options}")]);
        point
    }
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"type": "bind", "source": source, "destination": destination, "options": options})
}

/// The container's ids are the host's from 100000 on.
fn user_namespace(spec: &mut Value) {
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
}

/// The options of each mount point, as the last line about it tells them.
fn options_at<'a>(table: &'a str, point: &str) -> Vec<&'a str> {
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {point}: {table}"));
    line.split(' ').nth(5).unwrap_or_default().split(',').collect()
}

const TABLE: &str = "cat /proc/self/mountinfo";

#[test]
fn a_bind_mount_has_the_flags_that_were_named_and_no_other() {
    let container = Box::new();
    let source = container.tmpfs("source", "nosuid,nodev,noexec,noatime,ro");
    let table = container
        .sh(
            TABLE,
            &[
                bind(&source, "/kept", &["bind"]),
                bind(&source, "/named", &["bind", "nosuid"]),
                bind(&source, "/cleared", &["bind", "rw", "exec"]),
                bind(&source, "/times", &["bind", "ro", "strictatime", "nodiratime"]),
                bind(&source, "/links", &["bind", "nosymfollow", "z"]),
            ],
            |_| {},
        )
        .ok();
    for (point, expected) in [
        ("/kept", &["noatime", "nodev", "noexec", "nosuid", "ro"][..]),
        ("/named", &["noatime", "nosuid", "rw"]),
        ("/cleared", &["noatime", "rw"]),
        ("/times", &["nodiratime", "ro"]),
        ("/links", &["noatime", "nosymfollow", "rw"]),
    ] {
        let mut found = options_at(&table, point);
        found.sort_unstable();
        assert_eq!(found, expected, "{point}");
    }
}

/// What the host locks stays locked; asking for the contrary is an error, not a silent difference.
#[test]
fn flags_of_the_host_stay_in_a_user_namespace() {
    let container = Box::new();
    container.remap();
    let source = container.tmpfs("source", "nosuid,nodev,noatime,ro");
    let with = |options: &[&str]| container.sh(TABLE, &[bind(&source, "/mnt", options)], user_namespace);
    let table = with(&["bind", "noexec"]).ok();
    let found = options_at(&table, "/mnt");
    for flag in ["nosuid", "nodev", "noexec", "noatime", "ro"] {
        assert!(found.contains(&flag), "{flag}: {found:?}");
    }
    for asked in ["rw", "suid", "dev", "strictatime", "nodiratime"] {
        let refused = with(&["bind", asked]).fails_with(1);
        assert!(refused.contains("/mnt"), "{asked}: {refused}");
    }
    // The one that the test made.
    assert_eq!(leftovers::mounts_below(&container.bundle()).len(), 0);
}

#[test]
fn recursive_flags_reach_every_mount_below_needs_5_12() {
    let container = Box::new();
    let source = container.tmpfs("source", "rw");
    container.tmpfs("source/below", "rw");
    let table = container
        .sh(
            TABLE,
            &[
                bind(&source, "/top", &["rbind", "ro"]),
                bind(&source, "/all", &["rbind", "rro", "rnoexec", "rnoatime"]),
            ],
            |_| {},
        )
        .ok();
    let at = |point| options_at(&table, point);
    assert!(at("/top").contains(&"ro") && at("/top/below").contains(&"rw"));
    for point in ["/all", "/all/below"] {
        for flag in ["ro", "noexec", "noatime"] {
            assert!(at(point).contains(&flag), "{point} is not {flag}: {table}");
        }
    }
}

#[test]
fn a_tmpfs_takes_over_mode_and_content_of_its_target() {
    let container = Box::new();
    let target = container.rootfs("data/sub");
    fs::create_dir_all(&target).expect("mkdir");
    fs::write(container.rootfs("data/file"), "of the image").expect("write");
    chown(container.rootfs("data/file"), Some(1000), Some(1000)).expect("chown");
    symlink("/etc/passwd", container.rootfs("data/link")).expect("symlink");
    for (path, mode) in [("data", 0o750), ("data/sub", 0o777), ("data/file", 0o645)] {
        fs::set_permissions(container.rootfs(path), fs::Permissions::from_mode(mode)).expect("chmod");
    }
    let script = "cd /data && cat file && echo && stat -c '%n %a %u' . file sub && readlink link; \
        touch new 2>&1 || true; ls /empty; stat -c %a /empty /made; cat /proc/self/mountinfo";
    let tmpfs = |destination: &str, options: &[&str]| json!({"type": "tmpfs", "source": "tmpfs", "destination": destination, "options": options});
    fs::create_dir(container.rootfs("empty")).expect("mkdir");
    fs::write(container.rootfs("empty/hidden"), "").expect("write");
    let said = container
        .sh(
            script,
            &[
                tmpfs("/data", &["tmpcopyup", "ro", "nosuid"]),
                tmpfs("/empty", &["mode=700"]),
                tmpfs("/made/on/the/way", &[]),
                tmpfs("/made", &["mode=1777", "ro"]),
            ],
            |_| {},
        )
        .ok();
    assert!(
        said.starts_with(
            "of the image\n. 750 0\nfile 645 1000\nsub 777 0\n/etc/passwd\ntouch: new: Read-only file system\n\
             700\n1777\n"
        ),
        "{said}"
    );
    assert!(options_at(&said, "/data").contains(&"ro"));
    assert!(options_at(&said, "/made").contains(&"ro"));
    // The image is as it was.
    assert!(container.rootfs("data/file").exists());
    assert_eq!(
        container
            .rootfs("made/on/the/way")
            .metadata()
            .expect("made")
            .mode()
            & 0o7777,
        0o755
    );
}

#[test]
fn targets_are_made_where_dangling_links_lead_inside() {
    let container = Box::new();
    let file = container.scratch.join("file");
    fs::write(&file, "bound\n").expect("write");
    let directory = container.scratch.directory("directory");
    fs::write(directory.join("inside"), "bound too\n").expect("write");
    symlink("/far/away", container.rootfs("jump")).expect("symlink");
    symlink("/jump/hosts", container.rootfs("etc/hosts")).expect("symlink");
    symlink("../../../../../up", container.rootfs("etc/up")).expect("symlink");
    let host_path = container.rootfs("by/host/path");
    let said = container
        .sh(
            "cat /far/away/hosts /up/inside /by/host/path /missing/dir/file",
            &[
                bind(&file, "/etc/hosts", &["bind"]),
                bind(&directory, "/etc/up", &["bind"]),
                bind(&file, &host_path.to_string_lossy(), &["bind"]),
                bind(&file, "/missing/dir/file", &["bind", "ro"]),
            ],
            |_| {},
        )
        .ok();
    assert_eq!(said, "bound\nbound too\nbound\nbound\n");
    assert!(!container.scratch.join("up").exists());
    // The root itself is no target, not even by a link.
    symlink("/", container.rootfs("root-link")).expect("symlink");
    let refused = container.sh("true", &[bind(&directory, "/root-link", &["bind"])], |_| {});
    assert!(
        refused.fails_with(1).contains("the root itself"),
        "a mount over the root"
    );
}

/// Directories that the container's root user may not enter, and sources within what was mounted before.
#[test]
fn a_source_that_only_the_host_may_reach() {
    let container = Box::new();
    container.remap();
    let closed = container.scratch.directory("closed/source");
    fs::write(closed.join("file"), "reached\n").expect("write");
    let lock = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("chmod");
    lock(&container.scratch.join("closed"));
    let mounts = [
        bind(&closed, "/first", &["rbind"]),
        bind(&container.rootfs("first"), "/second", &["rbind"]),
    ];
    let said = container.sh("cat /second/file", &mounts, user_namespace);
    assert_eq!(said.ok(), "reached\n");
    let missing = bind(&container.scratch.join("closed/nothing"), "/first", &["bind"]);
    let refused = container.sh("true", &[missing], user_namespace).fails_with(1);
    assert!(refused.contains("closed/nothing"), "{refused}");
}

#[test]
fn ids_are_mapped_per_mount_needs_5_12() {
    let container = Box::new();
    let source = container.tmpfs("source", "rw");
    let below = container.tmpfs("source/below", "rw");
    for directory in [&source, &below] {
        let file = directory.join("file");
        fs::write(&file, "").expect("write");
        chown(&file, Some(100), Some(200)).expect("chown");
    }
    let map = |inside: u32, outside: u32| json!([{"containerID": inside, "hostID": outside, "size": 10}]);
    let mapped = |destination: &str, word: &str| {
        let mut mount = bind(&source, destination, &["rbind", word]);
        mount["uidMappings"] = map(100, 101_000);
        mount["gidMappings"] = map(200, 102_000);
        mount
    };
    let script = "stat -c '%n %u:%g' /*/file /*/below/file";
    let mounts = [mapped("/one", "idmap"), mapped("/all", "ridmap")];
    assert_eq!(
        container.sh(script, &mounts, |_| {}).ok(),
        "/all/file 101000:102000\n/one/file 101000:102000\n\
         /all/below/file 101000:102000\n/one/below/file 100:200\n"
    );
    let mut mounts = mounts.to_vec();
    mounts.push(bind(&source, "/own", &["rbind", "idmap"]));
    container.remap();
    assert_eq!(
        container.sh(script, &mounts, user_namespace).ok(),
        "/all/file 1000:2000\n/one/file 1000:2000\n/own/file 100:200\n\
         /all/below/file 1000:2000\n/one/below/file 65534:65534\n/own/below/file 65534:65534\n"
    );
}

#[test]
fn options_too_long_for_the_new_call_are_given_to_the_old_one() {
    let container = Box::new();
    let mut layers = Vec::new();
    for index in 0..8 {
        let layer = container
            .scratch
            .directory(format!("{}-{index}", "layer".repeat(12)));
        fs::write(layer.join(format!("file{index}")), "").expect("write");
        layers.push(layer.to_string_lossy().into_owned());
    }
    let overlay = json!({"type": "overlay", "source": "overlay", "destination": "/merged",
        "options": [format!("lowerdir={}", layers.join(":")), "nosuid", "ro"]});
    let said = container
        .sh("ls /merged; cat /proc/self/mountinfo", &[overlay], |_| {})
        .ok();
    assert!(
        said.starts_with("file0\nfile1\nfile2\nfile3\nfile4\nfile5\nfile6\nfile7\n"),
        "{said}"
    );
    let found = options_at(&said, "/merged");
    assert!(found.contains(&"nosuid") && found.contains(&"ro"), "{found:?}");
    // Several options in one word are as good as one each.
    let tmpfs =
        json!({"type": "tmpfs", "source": "tmpfs", "destination": "/two", "options": ["mode=710,size=1m"]});
    let said = container.sh("stat -c %a /two; df -k /two | tail -n1", &[tmpfs], |_| {});
    let said = said.ok();
    assert!(said.starts_with("710\n") && said.contains("1024"), "{said}");
}

#[test]
fn what_is_masked_is_masked_once_and_cannot_be_written() {
    let container = Box::new();
    for directory in ["one", "two", "plain"] {
        fs::create_dir(container.rootfs(directory)).expect("mkdir");
        fs::write(container.rootfs(directory).join("secret"), "secret").expect("write");
    }
    symlink("/two", container.rootfs("link")).expect("symlink");
    let script = "cat /one/secret /two/secret 2>/dev/null; cat /plain/secret; stat -c %d /one /two; \
        touch /two/x 2>&1; touch /plain/x 2>&1; cat /proc/self/mountinfo";
    let said = container.sh(script, &[], |spec| {
        let masked = ["/one", "/one/", "/link", "/plain/secret", "/nowhere"];
        spec["linux"]["maskedPaths"]
            .as_array_mut()
            .expect("masked")
            .extend(masked.map(Value::from));
        let readonly = spec["linux"]["readonlyPaths"].as_array_mut().expect("readonly");
        readonly.extend(["/plain", "/plain/../plain"].map(Value::from));
        spec["root"]["readonly"] = false.into();
    });
    let said = said.ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], lines[1], "masked directories share one file system");
    assert_eq!(
        lines[2..4],
        [
            "touch: /two/x: Read-only file system",
            "touch: /plain/x: Read-only file system"
        ]
    );
    for point in ["/one", "/two", "/plain", "/plain/secret"] {
        let count = said
            .lines()
            .filter(|line| line.split(' ').nth(4) == Some(point))
            .count();
        assert_eq!(count, 1, "{point}: {said}");
    }
}

#[test]
fn proc_and_sys_are_mounted_on_directories_of_their_own() {
    let container = Box::new();
    for place in ["proc", "sys"] {
        let at = container.rootfs(place);
        fs::remove_dir(&at).expect("rmdir");
        symlink("/tmp", &at).expect("symlink");
        // That of `/proc` is the first of all, and fails while the groups are made: what is told does not depend on who is first.
        for _ in 0..40 {
            let refused = container.run(&[]).fails_with(1);
            assert!(
                refused.contains("must be mounted on ordinary directory"),
                "{refused}"
            );
        }
        fs::remove_file(&at).expect("remove");
        fs::create_dir(&at).expect("mkdir");
    }
    // With data, as the kernel has it.
    let said = container.sh("ls /proc/sys /proc/cpuinfo; ls -d /proc/self", &[], |spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        let proc = mounts
            .iter_mut()
            .find(|mount| mount["destination"] == "/proc")
            .expect("/proc");
        proc["options"] = json!(["subset=pid"]);
    });
    assert!(
        said.stdout.contains("/proc/self") && said.stderr.contains("/proc/cpuinfo"),
        "{said}"
    );
}

/// Without `pivot_root` the old root stays below the new one: a bare procfs of the host must not.
#[test]
fn a_moved_root_leaves_no_procfs_of_the_host() {
    let container = Box::new();
    container.configure(&["/bin/sh", "-c", TABLE], |_| {});
    let table = container.run(&["--no-pivot"]).ok();
    let whole: Vec<&str> = table
        .lines()
        .filter(|line| line.contains(" - proc ") && line.split(' ').nth(3) == Some("/"))
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    assert_eq!(whole, ["/proc"], "{table}");
    container.configure(&["/bin/true"], |spec| {
        spec["linux"]["rootfsPropagation"] = "private".into();
    });
    let refused = container.run(&["--no-pivot"]).fails_with(1);
    assert!(refused.contains("is not safe without pivot_root"), "{refused}");
}

#[test]
fn a_container_in_the_host_s_mount_namespace_leaves_its_mounts_only_when_it_ran() {
    let container = Box::new();
    let below = || leftovers::mounts_below(container.scratch.path()).len();
    let host = |spec: &mut Value| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "mount");
    };
    let refused = container.sh("true", &[], host).fails_with(1);
    assert!(
        refused.contains("unable to restrict sys entries without a private MNT namespace"),
        "{refused}"
    );
    let plain = |spec: &mut Value| {
        host(spec);
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    };
    let missing = bind(&container.scratch.join("nothing"), "/mnt", &["bind"]);
    container.sh("true", &[missing], plain).fails_with(1);
    assert_eq!(below(), 0);
    assert_eq!(
        container
            .sh("pwd; ls -d /bin; readlink /proc/self/ns/mnt", &[], plain)
            .ok(),
        format!(
            "/\n/bin\n{}\n",
            fs::read_link("/proc/self/ns/mnt").expect("own").display()
        )
    );
    // As with runc: who asks for the host's mounts gets them.
    assert_ne!(below(), 0);
    run(Command::new("umount")
        .args(["-R", "--lazy"])
        .arg(container.rootfs("")))
    .ok();
    assert_eq!(below(), 0);
}

#[test]
fn the_root_spreads_what_was_asked_for() {
    let container = Box::new();
    let propagation = |kind: Option<&str>| {
        let said = container.sh(TABLE, &[], |spec| {
            if let Some(kind) = kind {
                spec["linux"]["rootfsPropagation"] = kind.into();
            }
        });
        let said = said.ok();
        let root = said.lines().find(|line| line.split(' ').nth(4) == Some("/"));
        root.expect("a root")
            .split(' ')
            .skip(6)
            .take_while(|field| *field != "-")
            .map(|field| field.split(':').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(!propagation(None).contains(&"shared".to_owned()));
    assert!(!propagation(Some("private")).contains(&"shared".to_owned()));
    assert_eq!(propagation(Some("shared")), ["shared"]);
    assert_eq!(propagation(Some("unbindable")), ["unbindable"]);
}

#[test]
fn a_mount_is_changed_by_a_later_one() {
    let container = Box::new();
    let source = container.tmpfs("source", "rw");
    let said = container
        .sh(
            &format!("{TABLE}; df -k /size | tail -n1"),
            &[
                bind(&source, "/mnt", &["bind"]),
                json!({"destination": "/mnt", "options": ["bind", "remount", "ro", "nosuid"]}),
                json!({"type": "tmpfs", "source": "tmpfs", "destination": "/size", "options": ["size=4m"]}),
                json!({"type": "tmpfs", "destination": "/size", "options": ["remount", "size=1m"]}),
            ],
            |_| {},
        )
        .ok();
    let found = options_at(&said, "/mnt");
    assert!(found.contains(&"ro") && found.contains(&"nosuid"), "{found:?}");
    assert!(said.lines().last().unwrap_or_default().contains("1024"), "{said}");
}

#[test]
fn what_a_bind_mount_cannot_mean_is_told() {
    let it = Box::new();
    let source = it.scratch.directory("source");
    let mount =
        json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "size=1m"]});
    let said = it.sh("test -d /mnt", &[mount], |_| {});
    assert!(
        said.code == 0 && said.stderr.contains("size=1m has no meaning for a bind mount"),
        "{said}"
    );
}
