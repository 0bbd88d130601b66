//! `ctr` with another snapshotter: images are unpacked there, containers run on it and are committed from it; what is told
//! about the snapshotters is true.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::containerd::ctr;
use integration_tests::image::{Compression, Layout};
use integration_tests::{Finished, Scratch, binaries, run};
use serde_json::json;

use crate::subject::{Filesystem, Subject};

/// A one-layer image with busybox, imported as `test/busybox:1` for `snapshotter`.
fn import(subject: &Subject, scratch: &Scratch, snapshotter: &str) {
    let tree = scratch.directory("layer");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    let _exists = fs::hard_link(tree.join("bin/busybox"), tree.join("bin/sh"));
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
    call(
        subject,
        &[
            "images",
            "import",
            "--snapshotter",
            snapshotter,
            "--base-name",
            "test/busybox",
            archive.to_str().unwrap(),
        ],
    )
    .ok();
}

fn call(subject: &Subject, arguments: &[&str]) -> Finished {
    run(ctr(&subject.socket, "default").args(arguments))
}

async fn runs_on(subject: &Subject, scratch: &Scratch, snapshotter: &str) {
    import(subject, scratch, snapshotter);
    let listed = call(subject, &["snapshots", "--snapshotter", snapshotter, "ls"]).ok();
    assert!(listed.contains("Committed"), "{listed}");
    let id = format!("c-{snapshotter}-{}", std::process::id());
    let script = "echo hello > /made; echo from inside";
    let arguments = [
        "run",
        "--snapshotter",
        snapshotter,
        "test/busybox:1",
        &id,
        "/bin/sh",
        "-c",
        script,
    ];
    assert_eq!(call(subject, &arguments).ok().trim(), "from inside");
    let archive = call(subject, &["snapshots", "--snapshotter", snapshotter, "diff", &id]);
    // Not text: what it tells is looked at as an archive.
    let digest = layer_of(subject, scratch, snapshotter, &id);
    assert!(digest.contains("made"), "{digest} {archive}");
    call(subject, &["containers", "rm", &id]).ok();
    let rest = call(subject, &["snapshots", "--snapshotter", snapshotter, "ls"]).ok();
    assert!(!rest.contains(&id), "{rest}");
}

/// The names in the layer that `ctr snapshots diff` prints.
fn layer_of(subject: &Subject, scratch: &Scratch, snapshotter: &str, id: &str) -> String {
    let file = scratch.join("diff.tar.gz");
    let out = fs::File::create(&file).unwrap();
    let status = ctr(&subject.socket, "default")
        .args(["snapshots", "--snapshotter", snapshotter, "diff", id])
        .stdout(out)
        .status()
        .unwrap();
    assert!(status.success());
    run(Command::new("tar").arg("-tf").arg(&file)).ok()
}

#[tokio::test]
async fn containers_run_on_native() {
    let scratch = Scratch::new();
    let subject = Subject::wharfd(&scratch, "wharfd", "").await;
    runs_on(&subject, &scratch, "native").await;
    runs_on(&subject, &scratch, "overlayfs").await;
}

#[tokio::test]
async fn containers_run_on_btrfs() {
    let scratch = Scratch::new();
    let _disk = Filesystem::btrfs(&scratch, "wharfd/root");
    let subject = Subject::wharfd(&scratch, "wharfd", "").await;
    runs_on(&subject, &scratch, "btrfs").await;
}

#[tokio::test]
async fn containers_run_on_an_external_one() {
    let scratch = Scratch::new();
    let other = Subject::wharfd(&scratch, "other", "").await;
    let subject = Subject::wharfd(&scratch, "wharfd", &other.as_proxy("native")).await;
    runs_on(&subject, &scratch, "native").await;
}

#[tokio::test]
async fn the_list_of_plugins_tells_the_truth() {
    let scratch = Scratch::new();
    let file = "disabled_plugins = [\"io.containerd.snapshotter.v1.native\"]\n\
                [proxy_plugins.far]\ntype = \"snapshot\"\naddress = \"/nobody/listens\"\n";
    let subject = Subject::wharfd(&scratch, "wharfd", file).await;
    let list = call(&subject, &["plugins", "ls"]).ok();
    let state = |name: &str| {
        let line = list.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("io.containerd.snapshotter.v1") && words.next() == Some(name)
        });
        line.map(|line| line.split_whitespace().last().unwrap().to_owned())
    };
    assert_eq!(state("overlayfs").as_deref(), Some("ok"), "{list}");
    assert_eq!(state("native"), None);
    assert_eq!(state("far").as_deref(), Some("ok"));
    // Where the tests run there is no btrfs, unless one is made.
    assert_eq!(state("btrfs").as_deref(), Some(expected_btrfs(scratch.path())));
    let refused = call(&subject, &["snapshots", "--snapshotter", "native", "ls"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("not loaded"),
        "{refused}"
    );
    let refused = call(&subject, &["snapshots", "--snapshotter", "far", "prepare", "k"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("unavailable"),
        "{refused}"
    );
    let path = subject.socket.with_file_name("bad.toml");
    for (text, said) in [
        (
            "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]",
            "neither a snapshotter",
        ),
        (
            "[proxy_plugins.x]\ntype = \"content\"\naddress = \"/x\"",
            "content",
        ),
        (
            "[proxy_plugins.x]\ntype = \"snapshot\"\naddress = \"x\"",
            "absolute",
        ),
        (
            "[proxy_plugins.native]\ntype = \"snapshot\"\naddress = \"/x\"",
            "built-in",
        ),
        (
            "[plugins.\"io.containerd.snapshotter.v1.overlayfs\"]\nmount_options = [\"upperdir=/\"]",
            "upperdir",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let home = scratch.join("refused");
        let refused = run(Command::new(binaries::ours("wharfd"))
            .arg("--config")
            .arg(&path)
            .arg("--root")
            .arg(home.join("root"))
            .arg("--state")
            .arg(home.join("state"))
            .arg("--address")
            .arg(home.join("sock")))
        .one_line_error();
        assert!(refused.contains(said), "{text}: {refused}");
    }
}

fn expected_btrfs(path: &Path) -> &'static str {
    let found = run(Command::new("stat").args(["-f", "-c", "%T"]).arg(path)).ok();
    if found.trim() == "btrfs" { "ok" } else { "skip" }
}
