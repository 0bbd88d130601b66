//! `wharfd fsck`: everything has an owner who is told, what has none is found and removed, what is missing is forgotten so
//! that it can be made again, and running containers are left alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::image::{Compression, Layout};
use integration_tests::wharf::Wharfd;
use integration_tests::{Finished, Scratch, binaries, leftovers, run};
use serde_json::{Value, json};

fn fsck(wharfd: &Wharfd, arguments: &[&str]) -> Finished {
    let home = wharfd.home();
    run(Command::new(binaries::ours("wharfd"))
        .arg("--root")
        .arg(home.join("root"))
        .arg("--state")
        .arg(home.join("state"))
        .arg("--address")
        .arg(wharfd.socket())
        .arg("fsck")
        .args(arguments))
}

fn report(wharfd: &Wharfd, arguments: &[&str]) -> (i32, Value) {
    let finished = fsck(wharfd, &[&["--format", "json"], arguments].concat());
    let report = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"));
    (finished.code, report)
}

fn import(wharfd: &Wharfd, scratch: &Scratch) {
    let tree = scratch.directory("layer");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy("/bin/busybox", tree.join("bin/sh")).unwrap();
    let mut layout = Layout::new(&scratch.join("layout"));
    layout.layer_of(&tree, Compression::Gzip);
    layout.tag("1", &json!({"Cmd": ["/bin/sh"]}));
    let archive = scratch.join("image.tar");
    run(Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(layout.path())
        .arg("."))
    .ok();
    run(wharfd
        .ctr()
        .args(["images", "import", "--base-name", "t"])
        .arg(&archive))
    .ok();
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn what_belongs_to_nobody_is_found_and_removed() {
    let scratch = Scratch::new();
    let mut wharfd = Wharfd::start(&scratch);
    import(&wharfd, &scratch);
    let refused = fsck(&wharfd, &[]);
    assert!(
        refused.code == 8 && refused.stderr.contains("in use by process"),
        "{refused}"
    );
    let name = |which: &str| format!("{which}-{}", scratch.unique());
    for which in ["lives", "dies"] {
        let arguments = [
            "run",
            "-d",
            "t:1",
            &name(which),
            "/bin/sh",
            "-c",
            "while :; do read x < /dev/zero; done",
        ];
        run(wharfd.ctr().args(arguments)).ok();
    }
    wharfd.kill9();
    let state = wharfd.home().join("state");
    let shim = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains(&name("dies")) && line.contains("-bundle") && line.contains(state.to_str().unwrap())
        })
        .expect("the shim of a running container");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(shim).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();

    let root = wharfd.home().join("root");
    fs::create_dir_all(root.join("snapshots/overlay/999/fs")).unwrap();
    fs::create_dir_all(root.join("snapshots/native/998")).unwrap();
    fs::create_dir_all(root.join("content/ingest/left")).unwrap();
    fs::write(root.join("content/blobs/sha256").join("a".repeat(64)), "left").unwrap();
    let before = (
        count(&root.join("snapshots/overlay")),
        count(&root.join("content/blobs/sha256")),
    );
    let (code, dry) = report(&wharfd, &["--dry-run"]);
    assert_eq!(code, 4, "{dry}");
    let kinds = |report: &Value| {
        let mut kinds: Vec<String> = report["faults"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["kind"].as_str().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(
        kinds(&dry),
        ["blob", "bundle", "ingest", "mount", "snapshot", "snapshot"]
    );
    let after = (
        count(&root.join("snapshots/overlay")),
        count(&root.join("content/blobs/sha256")),
    );
    assert_eq!(after, before, "a dry run changes nothing");
    let owners: Vec<&str> = dry["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["owner"].as_str().unwrap())
        .collect();
    let lives = format!("default/{} (its shim runs)", name("lives"));
    assert!(owners.contains(&lives.as_str()), "{owners:?}");
    assert!(
        owners.contains(&format!("default/overlayfs/{}", name("lives")).as_str()),
        "{owners:?}"
    );

    let (code, repaired) = report(&wharfd, &[]);
    assert_eq!((code, kinds(&repaired)), (1, kinds(&dry)), "{repaired}");
    assert_eq!(count(&root.join("snapshots/overlay")), before.0 - 1);
    assert!(!state.join("tasks/default").join(name("dies")).exists());
    assert_eq!(leftovers::mounts_below(&state).len(), 1);
    let text = fsck(&wharfd, &[]);
    assert!(text.code == 0 && text.stdout.ends_with("no faults\n"), "{text}");

    wharfd.restart();
    let tasks = run(wharfd.ctr().args(["tasks", "ls"])).ok();
    assert!(
        tasks.contains("RUNNING") && tasks.contains(&name("lives")) && !tasks.contains(&name("dies")),
        "{tasks}"
    );
    run(wharfd.ctr().args(["tasks", "rm", "--force", &name("lives")])).ok();
}

#[test]
fn what_is_missing_or_damaged_is_forgotten_and_can_be_made_again() {
    let scratch = Scratch::new();
    let mut wharfd = Wharfd::start(&scratch);
    import(&wharfd, &scratch);
    wharfd.kill9();
    let root = wharfd.home().join("root");
    let blobs = root.join("content/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
    for entry in fs::read_dir(root.join("snapshots/overlay")).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let (code, found) = report(&wharfd, &["--dry-run"]);
    assert_eq!(
        (code, found["faults"].as_array().unwrap().len()),
        (4, 1),
        "{found}"
    );
    let (code, found) = report(&wharfd, &["--dry-run", "--verify"]);
    assert_eq!(
        (code, found["faults"].as_array().unwrap().len()),
        (4, 2),
        "{found}"
    );
    let (code, repaired) = report(&wharfd, &["--verify"]);
    assert_eq!(code, 1, "{repaired}");
    assert!(!largest.exists());
    wharfd.restart();
    run(wharfd
        .ctr()
        .args(["images", "import", "--base-name", "t"])
        .arg(scratch.join("image.tar")))
    .ok();
    let name = format!("again-{}", scratch.unique());
    let said = run(wharfd
        .ctr()
        .args(["run", "--rm", "t:1", &name, "/bin/sh", "-c", "echo whole"]))
    .ok();
    assert_eq!(said.trim(), "whole");
}

#[test]
fn where_no_instance_is_nothing_is_made() {
    let scratch = Scratch::new();
    let root = scratch.join("none");
    let refused = run(Command::new(binaries::ours("wharfd"))
        .args(["fsck", "--root"])
        .arg(&root)
        .arg("--state")
        .arg(scratch.join("state")));
    assert!(
        refused.code == 8 && refused.stderr.contains("not found"),
        "{refused}"
    );
    assert!(!root.exists());
}
