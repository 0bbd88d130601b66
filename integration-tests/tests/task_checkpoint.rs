//! Checkpoints of tasks: with Debian's criu on Debian's kernel, in the guest, an image of a running container and a container
//! made from it; and on a machine without criu, a refusal after which everything is as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use integration_tests::containerd::ctr;
use integration_tests::daemon::Daemon;
use integration_tests::{Scratch, binaries, bundle, eventually, guest, image, run};

#[test]
fn a_task_becomes_an_image_and_goes_on_elsewhere() {
    let scratch = Scratch::new();
    let layout = image::busybox(&scratch.join("layout"));
    let archive = scratch.join("image.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(layout.path())
        .arg("-cf")
        .arg(&archive)
        .arg("."))
    .ok();
    let mut programs: Vec<PathBuf> = ["wharfd", "containerd-shim-wharf-v2"].map(binaries::ours).into();
    programs.push(archive);
    // criu packs what is in a tmpfs with flags that busybox does not know.
    programs.extend(["ctr", "criu", "tar"].map(binaries::peer));
    let programs: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let script = r#"
set -e
cd /
mkdir -p /tmp/w /etc
touch /etc/hosts /etc/resolv.conf
wharfd --root /tmp/w/root --state /tmp/w/state --address /tmp/w/sock > /tmp/w/log 2>&1 &
ctr() { command ctr --address /tmp/w/sock "$@"; }
tries=0; until ctr version > /dev/null 2>&1; do tries=$((tries+1)); [ $tries -lt 100 ] || { cat /tmp/w/log; exit 1; }; sleep 0.2; done
ctr images import --base-name docker.io/tests/box /job/image.tar > /dev/null
status() { ctr tasks ls | sed -n "s/^$1 .* \([A-Z]*\) *$/\1/p"; }
count() { ctr tasks exec --exec-id "e$RANDOM" "$1" /bin/cat /tmp/count; }
later() { local from=$2 tries=0 now; while now=$(count $1); [ "$now" -le "$from" ]; do tries=$((tries+1)); [ $tries -lt 50 ]; sleep 0.2; done; }
ctr run --detach --net-host --allow-new-privs docker.io/tests/box:latest one /bin/sh -c 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done'
sleep 1
ctr containers checkpoint --task --image --rw one docker.io/tests/saved:1 || { cat /tmp/w/log; find /tmp/w/state -name dump.log -exec tail -20 {} \; ; exit 1; }
echo runs on: $(status one)
before=$(count one)
echo left over: $(ls /tmp/w/root/checkpoints)
ctr tasks kill --signal KILL one
tries=0; until [ "$(status one)" = STOPPED ]; do tries=$((tries+1)); [ $tries -lt 100 ]; sleep 0.1; done
ctr containers rm one
ctr containers restore --live two docker.io/tests/saved:1 > /tmp/w/restored 2>&1 &
tries=0; until [ "$(status two)" = RUNNING ]; do tries=$((tries+1)); [ $tries -lt 100 ] || { cat /tmp/w/restored /tmp/w/log; exit 1; }; sleep 0.2; done
now=$(count two)
[ "$now" -gt 5 ] && [ "$now" -le $((before + 100)) ] && echo counts on
later two $now
echo it goes on
ctr tasks kill --signal KILL two
tries=0; until [ -z "$(status two)" ] || [ "$(status two)" = STOPPED ]; do tries=$((tries+1)); [ $tries -lt 100 ]; sleep 0.1; done
ctr containers rm two || true
echo bundles: $(ls /tmp/w/state/tasks/default)
"#;
    let output = guest::run_in_guest_with_filters(&scratch, &programs, script, Duration::from_secs(230));
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    for expected in [
        "runs on: RUNNING",
        "left over:",
        "counts on",
        "it goes on",
        "bundles:",
    ] {
        assert!(lines.contains(&expected), "{expected}:\n{output}");
    }
}

#[test]
fn without_criu_a_checkpoint_is_refused_and_the_task_runs_on() {
    let scratch = Scratch::new();
    let home = scratch.directory("wharfd");
    let socket = home.join("sock");
    let mut command = Command::new(binaries::ours("wharfd"));
    command
        .arg("--root")
        .arg(home.join("root"))
        .arg("--state")
        .arg(home.join("state"));
    command
        .arg("--address")
        .arg(&socket)
        .env("PATH", scratch.directory("empty"));
    let _daemon = Daemon::start(&mut command, &home.join("log"), || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let root = scratch.directory("root");
    bundle::busybox_root(&root);
    let ctr = |arguments: &[&str]| run(ctr(&socket, scratch.unique()).args(arguments));
    let root = root.to_str().expect("a UTF-8 path");
    ctr(&["run", "--detach", "--rootfs", root, "one", "/bin/sleep", "1000"]).ok();
    let named = scratch.join("images");
    for arguments in [
        vec!["tasks", "checkpoint", "one"],
        vec![
            "tasks",
            "checkpoint",
            "--image-path",
            named.to_str().expect("UTF-8"),
            "one",
        ],
    ] {
        let refused = ctr(&arguments);
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains("criu"), "{}", refused.stderr);
    }
    assert!(ctr(&["tasks", "ls"]).ok().contains("RUNNING"));
    let left = fs::read_dir(home.join("root/checkpoints")).expect("the place of checkpoints");
    assert_eq!(left.count(), 0);
    ctr(&["tasks", "kill", "--signal", "KILL", "one"]).ok();
    eventually("the task is deleted", Duration::from_secs(20), || {
        (ctr(&["tasks", "rm", "one"]).code == 0).then_some(())
    });
    ctr(&["containers", "rm", "one"]).ok();
}
