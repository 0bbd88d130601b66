//! Namespaces that are made with maps and offsets, or joined by path, and network devices that are taken over. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration_tests::{Finished, Scratch, binaries, bundle, run};
use serde_json::{Value, json};

struct Runtime<'a> {
    scratch: &'a Scratch,
}

impl Runtime<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::ours("wharf-runtime"));
        command
            .arg("--root")
            .arg(self.scratch.join("state"))
            .args(arguments);
        command
    }

    fn run(&self, bundle: &Path, id: &str) -> Finished {
        run(self.command(&["run", "--bundle"]).arg(bundle).arg(id))
    }

    fn exec(&self, id: &str, command: &[&str]) -> String {
        run(self.command(&["exec", id]).args(command)).ok()
    }

    /// Starts a container that sleeps; answers it and the pid of its first process.
    fn sleeping(&self, bundle: &Path, id: &str) -> Sleeping<'_> {
        let mut command = self.command(&["run", "--detach", "--bundle"]);
        command.arg(bundle).arg(id);
        let output = fs::File::create(bundle.join("output")).expect("the container's output file");
        let status = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output)
            .status()
            .expect("start the runtime");
        let said = fs::read_to_string(bundle.join("output")).unwrap_or_default();
        assert!(status.success(), "{command:?} ended with {status}: {said}");
        let state: Value =
            serde_json::from_str(&run(&mut self.command(&["state", id])).ok()).expect("a state is JSON");
        Sleeping {
            runtime: self,
            id: id.to_owned(),
            pid: state["pid"].as_i64().expect("a pid"),
            said,
        }
    }
}

/// A container that is deleted at the end.
struct Sleeping<'a> {
    runtime: &'a Runtime<'a>,
    id: String,
    pid: i64,
    said: String,
}

impl Sleeping<'_> {
    fn namespace(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.pid))
    }

    fn link(&self, kind: &str) -> String {
        fs::read_link(self.namespace(kind))
            .expect("a namespace")
            .display()
            .to_string()
    }
}

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        let deleted = run(&mut self.runtime.command(&["delete", "--force", &self.id]));
        if !std::thread::panicking() {
            deleted.ok();
        }
    }
}

/// A root file system that users of a user namespace can reach, and that is theirs.
fn prepare(scratch: &Scratch, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let directory = scratch.join(name);
    bundle::bundle(&directory, &["sleep", "1000"], |_| {});
    directory
}

fn namespaces(spec: &mut Value) -> &mut Vec<Value> {
    spec["linux"]["namespaces"].as_array_mut().expect("namespaces")
}

/// Asks for a namespace, in place of another one of its type.
fn ask(spec: &mut Value, kind: &str, path: Option<&Path>) {
    namespaces(spec).retain(|namespace| namespace["type"] != kind);
    let mut asked = json!({"type": kind});
    if let Some(path) = path {
        asked["path"] = path.to_str().expect("UTF-8").into();
    }
    namespaces(spec).push(asked);
}

fn two_ranges(spec: &mut Value) {
    ask(spec, "user", None);
    for (map, host) in [("uidMappings", 100_000), ("gidMappings", 200_000)] {
        spec["linux"][map] = json!([
            {"containerID": 0, "hostID": host, "size": 1000},
            {"containerID": 1000, "hostID": host + 50_000, "size": 10},
        ]);
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

#[test]
fn ids_are_mapped_range_by_range_and_other_groups_are_gone() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let directory = prepare(&scratch, "bundle");
    bundle::configure(&directory, &["sleep", "1000"], two_ranges);
    let container = runtime.sleeping(&directory, scratch.unique());
    let map = runtime.exec(&container.id, &["cat", "/proc/self/uid_map"]);
    assert_eq!(words(&map), ["0", "100000", "1000", "1000", "150000", "10"]);
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).expect("status");
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        words(line.expect(name)).split_off(1)
    };
    assert_eq!(line("Uid:"), ["100000"; 4]);
    assert_eq!(line("Gid:"), ["200000"; 4]);
    assert_eq!(line("Groups:"), [""; 0]);
    let mut command = runtime.command(&["exec", "--user", "1001:1002", &container.id]);
    let ids = run(command.args(["sh", "-c", "id -u; id -g; id -G"])).ok();
    assert_eq!(words(&ids), ["1001", "1002", "1002"]);
    let mut command = runtime.command(&["exec", "--user", "1010", &container.id]);
    let error = run(command.arg("true")).one_line_error();
    assert!(
        error.contains("cannot setuid to unmapped uid 1010 in user namespace"),
        "{error}"
    );
}

#[test]
fn a_user_namespace_is_joined_by_path_and_owns_what_is_made_new() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let first = prepare(&scratch, "first");
    bundle::configure(&first, &["sleep", "1000"], two_ranges);
    let first = runtime.sleeping(&first, &format!("{}-a", scratch.unique()));
    // A name for it that says nothing about a process.
    let bound = scratch.join("userns");
    fs::write(&bound, "").expect("make a file");
    rustix::mount::mount_bind(first.namespace("user"), &bound).expect("bind the namespace");
    let directory = prepare(&scratch, "second");
    for path in [first.namespace("user"), bound.clone()] {
        bundle::configure(&directory, &["sleep", "1000"], |spec| {
            ask(spec, "user", Some(&path));
            spec["hostname"] = "joined".into();
            // In the user namespace that it joins, and so in what that owns.
            for set in ["bounding", "effective", "permitted"] {
                let set = spec["process"]["capabilities"][set]
                    .as_array_mut()
                    .expect("a set");
                set.push("CAP_SYS_ADMIN".into());
            }
        });
        let second = runtime.sleeping(&directory, &format!("{}-b", scratch.unique()));
        assert_eq!(second.link("user"), first.link("user"));
        assert_ne!(second.link("pid"), first.link("pid"));
        let script = "cat /proc/self/uid_map; hostname; hostname other; hostname; ps | wc -l; id -u; id -G";
        let seen = runtime.exec(&second.id, &["sh", "-c", script]);
        // The title, sleep, sh, ps and wc: its procfs is of its own pid namespace, as its host name is its own.
        let expected = "0 100000 1000 1000 150000 10 joined other 5 0 0";
        assert_eq!(words(&seen).join(" "), expected);
    }
    let error = |mapped: u32| {
        bundle::configure(&directory, &["true"], |spec| {
            two_ranges(spec);
            ask(spec, "user", Some(&bound));
            spec["linux"]["uidMappings"][1]["size"] = mapped.into();
        });
        runtime.run(&directory, &format!("{}-c", scratch.unique()))
    };
    let refused = error(11).one_line_error();
    let phrase = "both namespace path and non-matching mapping specified";
    assert!(refused.contains(phrase), "{refused}");
    // What only repeats the namespace's maps is taken, with a warning.
    error(10).ok();
}

#[test]
fn a_file_that_is_no_such_namespace_is_refused() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let directory = prepare(&scratch, "bundle");
    for (kind, path, phrase) in [
        ("uts", "/proc/self/ns/net", "uts namespace /proc/self/ns/net"),
        ("network", "/proc/self/status", "net namespace /proc/self/status"),
        ("ipc", "/nowhere", "ipc namespace /nowhere"),
        ("user", "/proc/self/ns/mnt", "user namespace /proc/self/ns/mnt"),
        ("pid", "ns/pid", "path: must be absolute"),
    ] {
        bundle::configure(&directory, &["true"], |spec| {
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]);
            spec["hostname"] = Value::Null;
            spec["mounts"] = json!([]);
            ask(spec, kind, Some(Path::new(path)));
        });
        let error = runtime.run(&directory, scratch.unique()).one_line_error();
        assert!(error.contains(phrase), "{kind}: {error}");
    }
    assert!(fs::read_dir(scratch.join("state")).map_or(true, |mut left| left.next().is_none()));
}

#[test]
fn the_hosts_own_network_cannot_be_changed_by_another_name() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let directory = prepare(&scratch, "bundle");
    let file = "/proc/sys/net/ipv4/ip_default_ttl";
    let before = fs::read_to_string(file).expect("a sysctl");
    bundle::configure(&directory, &["true"], |spec| {
        ask(spec, "network", Some(Path::new("/proc/self/ns/net")));
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "7"});
    });
    let error = runtime.run(&directory, scratch.unique()).one_line_error();
    assert!(error.contains("not allowed in host network namespace"), "{error}");
    assert_eq!(fs::read_to_string(file).expect("a sysctl"), before);
}

#[test]
fn clocks_are_set_once_and_shared_by_who_joins() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let directory = prepare(&scratch, "first");
    let offsets = json!({"monotonic": {"secs": 86_400}, "boottime": {"secs": 172_800, "nanosecs": 5}});
    bundle::configure(&directory, &["sleep", "1000"], |spec| {
        ask(spec, "time", None);
        spec["linux"]["timeOffsets"] = offsets.clone();
    });
    let first = runtime.sleeping(&directory, &format!("{}-a", scratch.unique()));
    let uptime = |text: &str| -> f64 { words(text)[0].parse().expect("a number") };
    let here = uptime(&fs::read_to_string("/proc/uptime").expect("uptime"));
    let inside = uptime(&runtime.exec(&first.id, &["cat", "/proc/uptime"]));
    assert!(inside >= here + 172_800.0, "{inside} {here}");
    // Also by who has a user namespace of its own, which no program with threads could do by itself.
    for with_user in [false, true] {
        let directory = prepare(&scratch, if with_user { "third" } else { "second" });
        bundle::configure(&directory, &["sleep", "1000"], |spec| {
            if with_user {
                two_ranges(spec);
            }
            ask(spec, "time", Some(&first.namespace("time")));
        });
        let second = runtime.sleeping(&directory, &format!("{}-b", scratch.unique()));
        assert_eq!(second.link("time"), first.link("time"));
        assert_eq!(second.said, "");
        let seen = runtime.exec(&second.id, &["cat", "/proc/self/timens_offsets"]);
        assert_eq!(
            words(&seen),
            ["monotonic", "86400", "0", "boottime", "172800", "5"]
        );
    }
    for (edit, phrase) in [
        (json!({"realtime": {"secs": 1}}), "unknown clock"),
        (
            json!({"monotonic": {"secs": 1, "nanosecs": 1_000_000_000}}),
            "nanosecs",
        ),
    ] {
        bundle::configure(&directory, &["true"], |spec| {
            ask(spec, "time", None);
            spec["linux"]["timeOffsets"] = edit;
        });
        let error = runtime
            .run(&directory, &format!("{}-c", scratch.unique()))
            .one_line_error();
        assert!(error.contains(phrase), "{error}");
    }
}

#[test]
fn a_network_device_moves_with_what_an_administrator_gave_it() {
    let scratch = Scratch::new();
    let directory = prepare(&scratch, "bundle");
    bundle::configure(&directory, &["ip", "addr", "show", "dev", "inside"], |spec| {
        two_ranges(spec);
        spec["linux"]["netDevices"] = json!({"outside": {"name": "inside"}});
    });
    // In a network of the test's own, which takes its devices with it.
    let program = binaries::ours("wharf-runtime");
    let script = "ip link add outside type veth peer name other && ip link set outside mtu 1400 up && \
        ip address add 192.0.2.7/24 dev outside && ip address add 198.51.100.9/24 scope 253 dev outside && \
        ip address add 2001:db8::7/64 nodad dev outside && \
        \"$0\" --root \"$1\" run --bundle \"$2\" \"$3\" && ip -o link";
    let seen = run(Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(&program)
        .arg(scratch.join("state"))
        .arg(&directory)
        .arg(scratch.unique()))
    .ok();
    let (inside, outside) = seen.rsplit_once("1: lo").expect("the host's devices");
    for part in ["mtu 1400", ",UP", "inet 192.0.2.7/24", "inet6 2001:db8::7/64"] {
        assert!(inside.contains(part), "{part}: {seen}");
    }
    assert!(!inside.contains("198.51.100.9"), "{seen}");
    assert!(!outside.contains("outside"), "{seen}");
}

#[test]
fn a_network_device_that_cannot_move_is_named() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let directory = prepare(&scratch, "bundle");
    for (devices, phrase) in [
        (
            json!({"wharf-none": {}}),
            "move network device wharf-none: link not found",
        ),
        (
            json!({"lo": {"name": "a/b"}}),
            "linux.netDevices.lo: invalid network device name",
        ),
    ] {
        bundle::configure(&directory, &["true"], |spec| {
            spec["linux"]["netDevices"] = devices;
        });
        let error = runtime.run(&directory, scratch.unique()).one_line_error();
        assert!(error.contains(phrase), "{error}");
    }
    bundle::configure(&directory, &["true"], |spec| {
        spec["linux"]["netDevices"] = json!({"eth0": {}});
        namespaces(spec).retain(|namespace| namespace["type"] != "network");
    });
    let error = runtime.run(&directory, scratch.unique()).one_line_error();
    assert!(
        error.contains("unable to move network devices without a NET namespace"),
        "{error}"
    );
}

#[test]
fn shares_of_caches_are_refused_where_there_are_none_to_give() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let directory = prepare(&scratch, "bundle");
    bundle::configure(&directory, &["true"], |spec| {
        spec["linux"]["intelRdt"] = json!({"closID": "a/b"});
    });
    let error = runtime.run(&directory, scratch.unique()).one_line_error();
    assert!(
        error.contains("linux.intelRdt.closID: invalid intelRdt.ClosID"),
        "{error}"
    );
    bundle::configure(&directory, &["true"], |spec| {
        spec["linux"]["intelRdt"] = json!({"l3CacheSchema": "L3:0=f", "closID": "wharf-test-none"});
    });
    let finished = runtime.run(&directory, scratch.unique());
    match Path::new("/sys/fs/resctrl/info/L3").exists() {
        true => drop(finished.ok()),
        false => {
            let error = finished.one_line_error();
            assert!(error.contains("Intel RDT"), "{error}");
        }
    }
}

/// A pipe of the host's root belongs to nobody there: it could be written to, but not be opened as `/dev/stdout`.
#[test]
fn the_streams_of_a_foreground_process_can_be_opened_again_in_a_user_namespace() {
    let scratch = Scratch::new();
    let runtime = Runtime { scratch: &scratch };
    let directory = prepare(&scratch, "bundle");
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/stdin";
    let check = |finished: Finished, who: &str| {
        let said = (finished.code, finished.stdout.as_str(), finished.stderr.as_str());
        assert_eq!(said, (0, "out\n", "err\n"), "{who}");
    };
    for user in [0, 5] {
        bundle::configure(&directory, &["sh", "-c", script], |spec| {
            two_ranges(spec);
            spec["process"]["user"] = json!({"uid": user, "gid": 0});
        });
        check(runtime.run(&directory, scratch.unique()), &format!("user {user}"));
    }
    bundle::configure(&directory, &["sleep", "1000"], two_ranges);
    let container = runtime.sleeping(&directory, scratch.unique());
    for user in ["0", "5"] {
        let mut command = runtime.command(&["exec", "--user", user, &container.id, "sh", "-c", script]);
        check(run(&mut command), &format!("executed as user {user}"));
    }
}
