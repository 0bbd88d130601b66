//! `wharf-runtime checkpoint` and `restore`: with Debian's criu on Debian's kernel, in the guest; and on the host, where there may be
//! no criu that works, everything that ends before criu does something, or when it fails.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::{Finished, Scratch, binaries, bundle, guest, leftovers, run};

/// A container that runs, and the runtime.
struct Box {
    scratch: Scratch,
}

impl Box {
    fn new() -> Box {
        let scratch = Scratch::new();
        bundle::bundle(&scratch.join("bundle"), &["/bin/sleep", "1000"], |_| {});
        Box { scratch }
    }

    /// One that runs.
    fn started() -> Box {
        let made = Box::new();
        made.start("run");
        made
    }

    /// With streams that nobody waits for.
    fn start(&self, command: &str) {
        let mut command = self.command(&[command, "--bundle", "bundle"]);
        if command.get_args().any(|argument| argument == "run") {
            command.arg("--detach");
        }
        let command = command.arg(self.scratch.unique());
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(Stdio::null()).status();
        assert!(status.expect("start the runtime").success());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::ours("wharf-runtime"));
        command
            .arg("--root")
            .arg(self.scratch.join("state"))
            .args(arguments);
        command.current_dir(self.scratch.path());
        command
    }

    /// With the container's name at the end.
    fn run(&self, arguments: &[&str]) -> Finished {
        run(self.command(arguments).arg(self.scratch.unique()))
    }

    fn status(&self) -> String {
        let state = self.run(&["state"]).ok();
        let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
        state["status"].as_str().expect("a status").to_owned()
    }

    /// A program in criu's place.
    fn fake(&self, script: &str) -> PathBuf {
        let path = self.scratch.join("criu");
        fs::write(&path, script).expect("write a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        path
    }

    /// One that is version 3.17.1, and fails at everything else.
    fn failing(&self) -> PathBuf {
        let asked = self.scratch.join("asked");
        self.fake(&format!(
            "#!/bin/sh\nhead -c 1 <&3 >/dev/null\nif mkdir {} 2>/dev/null; then printf '\\010\\012\\020\\001\\122\\006\\010\\003\\020\\021\\040\\001' >&3; exit\nfi\n\
             cd /proc/self/fd/4\nprintf 'one\\ntwo\\nError (x.c:1): no vdso\\n' > dump.log\n\
             cp dump.log restore.log\nprintf '\\010\\001\\020\\000\\070\\007' >&3\nexit 1\n",
            asked.display()
        ))
    }

    fn nothing_is_left(&self) {
        let id = self.scratch.unique();
        assert_eq!(leftovers::cgroups_named(id), Vec::<PathBuf>::new());
        assert_eq!(
            leftovers::mounts_below(self.scratch.path()),
            Vec::<PathBuf>::new()
        );
        assert!(!self.scratch.join("state").join(id).exists());
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        let _ = self.run(&["delete", "--force"]);
        leftovers::remove_cgroups_named(self.scratch.unique());
    }
}

#[test]
fn without_criu_a_checkpoint_is_refused_and_the_container_runs_on() {
    let container = Box::started();
    let error = container
        .run(&["--criu", "no-such-criu", "checkpoint"])
        .fails_with(1);
    assert!(
        error.contains(
            r#"CRIU version check failed: exec: \"no-such-criu\": executable file not found in $PATH"#
        ),
        "{error}"
    );
    assert_eq!(container.status(), "running");
    assert!(!container.scratch.join("checkpoint").exists());
    let bundle = container.scratch.join("bundle");
    let error = run(container
        .command(&["--criu", "no-such-criu", "restore", "--bundle"])
        .arg(&bundle)
        .arg("another"))
    .fails_with(1);
    assert!(error.contains("CRIU version check failed: exec: "), "{error}");
}

#[test]
fn what_criu_fails_with_is_told_with_its_log_and_the_container_runs_on() {
    let container = Box::started();
    let criu = container.failing();
    let criu = criu.to_str().expect("UTF-8");
    let error = container
        .run(&["--criu", criu, "checkpoint", "--work-path", "work"])
        .fails_with(1);
    // The statistics and the log are in the work directory, but this criu knows none.
    let log = container.scratch.join("checkpoint/dump.log");
    assert!(error.contains("criu failed: type DUMP errno 7; see "), "{error}");
    fs::remove_dir(container.scratch.join("asked")).expect("forget the first request");
    let error = container.run(&["--criu", criu, "checkpoint"]).fails_with(1);
    for expected in [
        format!("criu failed: type DUMP errno 7; see {}", log.display()),
        format!(r#"msg="--- Quoting \"{}\"""#, log.display()),
        "msg=1:one".to_owned(),
        r#"msg="3:Error (x.c:1): no vdso""#.to_owned(),
    ] {
        assert!(
            error.contains(&expected) || error.contains(&expected.replace("msg=1:one", "msg=\"1:one\"")),
            "{expected}: {error}"
        );
    }
    assert_eq!(container.status(), "running");
    let modes = |name: &str| {
        fs::metadata(container.scratch.join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(modes("checkpoint"), 0o700);
    assert_eq!(modes("work"), 0o700);
    assert_eq!(modes("checkpoint/descriptors.json"), 0o600);
    let descriptors = fs::read_to_string(container.scratch.join("checkpoint/descriptors.json"));
    assert_eq!(
        descriptors.expect("read"),
        r#"["/dev/null","/dev/null","/dev/null"]"#
    );
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let container = Box::new();
    let images = container.scratch.directory("checkpoint");
    fs::write(images.join("descriptors.json"), "[]").expect("write");
    let criu = container.failing();
    let criu = criu.to_str().expect("UTF-8");
    let error = container
        .run(&["--criu", criu, "restore", "--detach", "--bundle", "bundle"])
        .fails_with(1);
    assert!(
        error.contains("criu failed: type RESTORE errno 7; see "),
        "{error}"
    );
    container.nothing_is_left();
    // What a creation makes in a root file system a restore makes too.
    assert!(container.scratch.join("bundle/rootfs/proc").is_dir());
}

#[test]
fn a_checkpoint_of_somebody_elses_leads_nowhere() {
    let container = Box::new();
    let images = container.scratch.directory("checkpoint");
    let canary = container.scratch.join("canary");
    fs::write(&canary, "here").expect("write");
    let criu = container.failing();
    let restore = || {
        fs::remove_dir(container.scratch.join("asked")).ok();
        let criu = criu.to_str().expect("UTF-8");
        let error = container
            .run(&["--criu", criu, "restore", "--detach", "--bundle", "bundle"])
            .fails_with(1);
        container.nothing_is_left();
        assert_eq!(fs::read_to_string(&canary).expect("read"), "here");
        error
    };
    for name in ["restore.log", "pages-1.img", "descriptors.json", "stats-restore"] {
        fs::write(images.join("descriptors.json"), "[]").expect("write");
        let link = images.join(name);
        fs::remove_file(&link).ok();
        symlink(&canary, &link).expect("link");
        let error = restore();
        assert!(error.contains("is no plain file"), "{name}: {error}");
        fs::remove_file(&link).expect("remove");
    }
    for (text, problem) in [
        (r#"["file:pipe:[1]"]"#.to_owned(), "is no pipe's name"),
        ("{".to_owned(), "is no list"),
        (
            format!("[{}\"\"]", "\"\",".repeat(40_000)),
            "is longer than 64 KiB",
        ),
    ] {
        fs::write(images.join("descriptors.json"), text).expect("write");
        let error = restore();
        assert!(error.contains(problem), "{problem}: {error}");
    }
}

#[test]
fn flags_are_checked_before_anything_is_done() {
    let container = Box::started();
    for (flags, problem) in [
        (
            &["--manage-cgroups-mode", "none"][..],
            "invalid manage-cgroups-mode value",
        ),
        (&["--empty-ns", "pid"], r#"namespace \"pid\" is not supported"#),
        (
            &["--page-server", "host"],
            "Use --page-server ADDRESS:PORT to specify page server",
        ),
        (&["--page-server", "host:x"], "Invalid port number"),
        (&["--status-fd", "999"], "invalid --status-fd argument 999"),
        (&["--parent-path", "/tmp"], "--parent-path must be relative"),
    ] {
        let error = container.run(&[&["checkpoint"], flags].concat()).fails_with(1);
        assert!(error.contains(problem), "{flags:?}: {error}");
    }
    assert!(!container.scratch.join("checkpoint").exists());
    let error = run(&mut container.command(&["restore", "--lsm-mount-context"])).fails_with(1);
    assert!(
        error.contains("flag needs an argument: --lsm-mount-context"),
        "{error}"
    );
    let created = Box::new();
    created.start("create");
    let error = created.run(&["checkpoint"]).fails_with(1);
    assert!(
        error.contains("Container cannot be checkpointed in created state"),
        "{error}"
    );
}

/// In a guest with Debian's criu and `/bundle`; `ticks` waits until the container's counter in a file has gone on.
fn in_guest(script: &str) -> String {
    let scratch = Scratch::new();
    let home = scratch.directory("bundle");
    let counter = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done";
    bundle::configure(&home, &["/bin/sh", "-c", counter], |spec| {
        spec["root"]["readonly"] = false.into();
        // Debian's criu does not save it, and what has lost it would not be let run.
        spec["process"]["noNewPrivileges"] = false.into();
        // The cloud kernel's modules with which criu would lock a network are not here.
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "network");
        spec["hooks"]["createRuntime"] = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat >> /tmp/hooks; echo >> /tmp/hooks"]}]);
    });
    let mut programs = vec![binaries::ours("wharf-runtime"), home.join("config.json")];
    // criu packs what is in a tmpfs with flags that busybox does not know.
    programs.extend(["criu", "tar"].map(binaries::peer));
    let programs: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let prelude = r#"
set -e
mkdir -p /bundle/rootfs/bin /bundle/rootfs/proc /bundle/rootfs/sys /bundle/rootfs/dev /bundle/rootfs/tmp
cp /bin/busybox /bundle/rootfs/bin/
for name in sh sleep cat; do ln -s busybox /bundle/rootfs/bin/$name; done
cp /job/config.json /bundle/
cd /
runtime() { wharf-runtime "$@"; }
count() { local now=$(cat /bundle/rootfs/tmp/count 2>/dev/null); echo ${now:-0}; }
ticks() { local from=${1:-$(count)} tries=0; while [ "$(count)" -le "$from" ]; do tries=$((tries+1)); [ $tries -lt 300 ]; sleep 0.1; done; }
status() { runtime state "$1" 2>/dev/null | sed -n 's/.*"status": "\(.*\)".*/\1/p'; }
"#;
    guest::run_in_guest_with_filters(
        &scratch,
        &programs,
        &format!("{prelude}{script}"),
        Duration::from_secs(230),
    )
}

#[test]
fn containers_in_the_guest_are_saved_and_go_on() {
    let script = r#"
runtime run --detach --bundle /bundle box < /dev/null > /dev/null 2>&1
ticks
runtime exec box /bin/sh -c 'sleep 1000 < /dev/null > /dev/null 2>&1 &'
runtime checkpoint --leave-running --image-path /tmp/first box || { tail -30 /tmp/first/dump.log; exit 1; }
echo left running $(status box)
ticks
runtime checkpoint --image-path /tmp/second --work-path /tmp/work box
echo gone $(status box) $(ls /run/wharf-runtime) $(find /sys/fs/cgroup -name box)
before=$(count)
runtime restore --detach --bundle /bundle --image-path /tmp/second --work-path /tmp/work --pid-file /tmp/pid box \
    < /dev/null > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }
echo restored $(status box) $(cat /tmp/out)
ticks $before
echo it goes on
echo pid is $(runtime state box | grep -c "\"pid\": $(cat /tmp/pid),")
runtime exec box /bin/cat /proc/self/cgroup | sed 's/^/group /'
echo processes $(runtime exec box /bin/busybox ps | grep -c 'sleep 1000')
echo hooks $(grep -c '"status":"creating"' /tmp/hooks)
ls -1 /tmp/work
runtime kill box KILL
tries=0; while [ "$(status box)" != stopped ]; do tries=$((tries+1)); [ $tries -lt 100 ]; sleep 0.1; done
runtime delete box
echo left $(ls /run/wharf-runtime) $(find /sys/fs/cgroup -name box) $(grep wharf-runtime /proc/mounts)
"#;
    let output = in_guest(script);
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    for expected in [
        "left running running",
        "gone",
        "restored running",
        "it goes on",
        "pid is 1",
        "group 0::/box",
        "processes 1",
        "hooks 2",
        "restore.log",
        "left",
    ] {
        assert!(lines.contains(&expected), "{expected}:\n{output}");
    }
}
