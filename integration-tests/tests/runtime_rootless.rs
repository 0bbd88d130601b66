//! `wharf-runtime` for users without privileges. The tests are root, and become such a user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::{Finished, Scratch, binaries, bundle, run};
use serde_json::{Value, json};

const USER: u32 = 1000;

/// A bundle of the user's, and the programs where the user can reach them.
struct User {
    scratch: Scratch,
    program: PathBuf,
    bundle: PathBuf,
}

impl User {
    fn new() -> User {
        let scratch = Scratch::new();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let program = scratch.join("wharf-runtime");
        fs::copy(binaries::ours("wharf-runtime"), &program).expect("copy the runtime");
        let bundle = scratch.directory("bundle");
        bundle::busybox_root(&bundle.join("rootfs"));
        for directory in ["home", "run"] {
            give(&scratch.directory(directory));
        }
        run(Command::new("chown").arg("-R").arg(USER.to_string()).arg(&bundle)).ok();
        let user = User {
            scratch,
            program,
            bundle,
        };
        run(user
            .command()
            .args(["spec", "--rootless", "--bundle"])
            .arg(&user.bundle))
        .ok();
        user.configure(&["sleep", "1000"], |_| {});
        user
    }

    fn configure(&self, arguments: &[&str], edit: impl FnOnce(&mut Value)) {
        bundle::configure(&self.bundle, arguments, edit);
    }

    /// The runtime, run by the user.
    fn command(&self) -> Command {
        let mut command = self.become_user();
        command.arg(&self.program);
        command
    }

    fn become_user(&self) -> Command {
        let mut command = Command::new("setpriv");
        let id = USER.to_string();
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .env("XDG_RUNTIME_DIR", self.scratch.join("run"))
            .env("HOME", self.scratch.join("home"))
            .env("USER", "somebody")
            .current_dir(self.scratch.join("home"));
        command
    }

    fn runtime(&self, arguments: &[&str]) -> Finished {
        run(self.command().args(arguments))
    }

    fn run_bundle(&self) -> Finished {
        run(self
            .command()
            .args(["run", "--bundle"])
            .arg(&self.bundle)
            .arg(self.id()))
    }

    fn id(&self) -> &str {
        self.scratch.unique()
    }

    fn state(&self) -> PathBuf {
        self.scratch.join("run/wharf-runtime")
    }

    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.state())
            .expect("the state root")
            .flatten()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).expect("chown");
}

fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

#[test]
fn a_user_maps_itself_and_cannot_change_groups() {
    let user = User::new();
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; cat /dev/null && echo null";
    user.configure(&["sh", "-c", script], |_| {});
    let seen = user.run_bundle().ok();
    assert_eq!(words(&seen), ["0", "0", "0", "1000", "1", "deny", "null"]);
    // The directory's sticky bit keeps it from being tidied away.
    let mode = fs::metadata(user.state())
        .expect("the state root")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o1700);
    user.assert_nothing_left();
}

#[test]
fn the_life_of_a_container_of_a_users() {
    let user = User::new();
    user.configure(&["sh", "-c", "sleep 1000"], |_| {});
    let mut create = user.command();
    create
        .args(["create", "--bundle"])
        .arg(&user.bundle)
        .arg(user.id());
    let output = fs::File::create(user.scratch.join("output")).expect("an output file");
    let status = create
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone().expect("dup"))
        .stderr(output)
        .status()
        .expect("start the runtime");
    let said = fs::read_to_string(user.scratch.join("output")).unwrap_or_default();
    assert!(status.success(), "{said}");
    // While it waits, too.
    assert_eq!(words(&user.runtime(&["exec", user.id(), "id", "-u"]).ok()), ["0"]);
    user.runtime(&["start", user.id()]).ok();
    let state: Value = serde_json::from_str(&user.runtime(&["state", user.id()]).ok()).expect("JSON");
    assert_eq!(state["status"], "running");
    let listed = user.runtime(&["list", "-q"]).ok();
    assert_eq!(words(&listed), [user.id()]);
    // The process that is executed has the container's pid namespace, and is what its exit code says.
    let seen = user.runtime(&["exec", user.id(), "sh", "-c", "echo $$ $PPID; exit 7"]);
    assert_eq!(seen.code, 7, "{seen}");
    assert_eq!(words(&seen.stdout)[1], "0");
    let error = user
        .runtime(&["exec", "--user", "5", user.id(), "id"])
        .one_line_error();
    assert!(
        error.contains("cannot setuid to unmapped uid 5 in user namespace"),
        "{error}"
    );
    let error = user.runtime(&["pause", user.id()]).one_line_error();
    assert!(error.contains("cgroups not configured for container"), "{error}");
    user.runtime(&["kill", user.id(), "KILL"]).ok();
    user.runtime(&["delete", "--force", user.id()]).ok();
    user.assert_nothing_left();
}

#[test]
fn what_takes_privileges_is_refused_by_its_name() {
    let user = User::new();
    let before = fs::read(user.bundle.join("config.json")).expect("config.json");
    let refused = |edit: &dyn Fn(&mut Value), phrase: &str| {
        fs::write(user.bundle.join("config.json"), &before).expect("write config.json");
        user.configure(&["true"], |spec| edit(spec));
        let error = user.run_bundle().one_line_error();
        assert!(error.contains(phrase), "{phrase}: {error}");
        user.assert_nothing_left();
    };
    refused(
        &|spec| {
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
            spec["linux"]["uidMappings"] = json!([]);
            spec["linux"]["gidMappings"] = json!([]);
        },
        "rootless container requires user namespaces",
    );
    refused(
        &|spec| spec["process"]["user"]["additionalGids"] = json!([7]),
        "cannot set any additional groups in a rootless container",
    );
    refused(
        &|spec| {
            spec["mounts"].as_array_mut().expect("mounts").push(
                json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["uid=5"]}),
            );
        },
        "cannot specify uid=5 mount option for rootless container",
    );
    refused(
        &|spec| spec["linux"]["resources"] = json!({"pids": {"limit": 7}}),
        "cannot set pids limit: container could not join or create cgroup",
    );
    refused(
        &|spec| spec["linux"]["cgroupsPath"] = "/wharf-test-not-allowed".into(),
        "permission denied",
    );
    // Ids that nobody gave to this user.
    refused(
        &|spec| {
            let ranges = spec["linux"]["uidMappings"].as_array_mut().expect("uidMappings");
            ranges.push(json!({"containerID": 1, "hostID": 1, "size": 1}));
        },
        "newuidmap",
    );
}

#[test]
fn ranges_that_were_given_to_a_user_are_mapped_by_newuidmap() {
    let user = User::new();
    let file = |name: &str, text: &str| {
        fs::write(user.scratch.join(name), text).expect("write an account file");
    };
    file(
        "passwd",
        "root:x:0:0::/root:/bin/sh\nsomebody:x:1000:1000::/:/bin/sh\n",
    );
    file("subuid", "somebody:300000:1000\n");
    file("subgid", "somebody:400000:1000\n");
    user.configure(
        &[
            "sh",
            "-c",
            "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g",
        ],
        |spec| {
            for (map, host) in [("uidMappings", 300_000), ("gidMappings", 400_000)] {
                let ranges = spec["linux"][map].as_array_mut().expect("a map");
                ranges.push(json!({"containerID": 1, "hostID": host, "size": 1000}));
            }
            spec["process"]["user"] = json!({"uid": 5, "gid": 6});
        },
    );
    // The host's own files stay as they are: these are seen in a mount namespace only.
    let script = "for name in passwd subuid subgid; do touch /etc/$name; mount --bind \"$0/$name\" /etc/$name; done; \
        exec setpriv --reuid 1000 --regid 1000 --clear-groups \"$@\"";
    let seen = run(Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(user.scratch.path())
        .arg(&user.program)
        .env("XDG_RUNTIME_DIR", user.scratch.join("run"))
        .args(["run", "--bundle"])
        .arg(&user.bundle)
        .arg(user.id()))
    .ok();
    let uid = ["0", "1000", "1", "1", "300000", "1000"];
    let gid = ["0", "1000", "1", "1", "400000", "1000"];
    assert_eq!(words(&seen), [&uid[..], &gid[..], &["5", "6"]].concat());
}

#[test]
fn root_of_a_user_namespace_runs_what_root_runs() {
    let user = User::new();
    fs::remove_file(user.bundle.join("config.json")).expect("remove config.json");
    user.configure(
        &["sh", "-c", "id -u; id -G; ps | wc -l; cat /proc/self/uid_map"],
        |spec| {
            // A group that is not mapped here.
            for mount in spec["mounts"].as_array_mut().expect("mounts") {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
            // It may not be set here, as little as devices may be limited.
            spec["process"]["user"]["additionalGids"] = json!([7]);
        },
    );
    let mut command = user.become_user();
    command
        .args(["unshare", "--user", "--map-root-user"])
        .arg(&user.program)
        .args(["run", "--bundle"])
        .arg(&user.bundle)
        .arg(user.id());
    let finished = run(&mut command);
    assert!(finished.stderr.contains("does not allow setgroups"), "{finished}");
    let seen = finished.ok();
    assert_eq!(words(&seen)[0], "0");
    // Its own pid namespace: the title, sh, ps and wc.
    assert!(words(&seen).ends_with(&["4", "0", "1000", "1"]), "{seen}");
    user.assert_nothing_left();
}

#[test]
fn the_first_process_is_ended_by_who_owns_it_and_by_nobody_else() {
    let user = User::new();
    let output = fs::File::create(user.scratch.join("output")).expect("an output file");
    let status = user
        .command()
        .args(["run", "--detach", "--bundle"])
        .arg(&user.bundle)
        .arg(user.id())
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone().expect("dup"))
        .stderr(output)
        .status()
        .expect("start the runtime");
    assert!(
        status.success(),
        "{}",
        fs::read_to_string(user.scratch.join("output")).unwrap_or_default()
    );
    let mut other = Command::new("setpriv");
    other
        .args(["--reuid", "1001", "--regid", "1001", "--clear-groups"])
        .arg(&user.program)
        .arg("--root")
        .arg(user.state());
    run(other.args(["kill", user.id(), "KILL"])).fails_with(1);
    let state: Value = serde_json::from_str(&user.runtime(&["state", user.id()]).ok()).expect("JSON");
    assert_eq!(state["status"], "running");
    user.runtime(&["delete", "--force", user.id()]).ok();
    user.assert_nothing_left();
}
