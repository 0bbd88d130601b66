//! Layers that try to get out of their snapshot.

use std::fs;
use std::os::unix::fs::MetadataExt;

use integration_tests::{Scratch, leftovers};

use crate::archive::Tar;
use crate::supervisor::Supervisor;
use crate::whiteouts::committed;

/// Each hostile layer, on a first snapshot and on one with a parent: refused or contained, and the host untouched.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_stay_in_their_snapshot() {
    let scratch = Scratch::new();
    let supervisor = Supervisor::start(&scratch).await;
    let canary = scratch.directory("canary");
    fs::write(canary.join("file"), "untouched").unwrap();
    let outside = canary.to_str().unwrap();
    let base = supervisor.prepare("").await;
    supervisor
        .apply(&Tar::default().dir("lib").file("lib/a", b"a").end(), base)
        .await
        .unwrap();

    let up = "../".repeat(30);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "dots",
            Tar::default()
                .file(&format!("{}{outside}/new", "../".repeat(20)), b"evil")
                .end(),
        ),
        (
            "link then write",
            Tar::default()
                .symlink("out", outside)
                .file("out/file", b"evil")
                .file("out/new", b"")
                .end(),
        ),
        (
            "relative link",
            Tar::default()
                .symlink("out", &format!("{up}{outside}"))
                .file("out/file", b"evil")
                .end(),
        ),
        (
            "link through proc",
            Tar::default()
                .symlink("out", "/proc/self/root")
                .file(&format!("out{outside}/file"), b"evil")
                .end(),
        ),
        (
            "hard link out",
            Tar::default().hard_link("h", &format!("{outside}/file")).end(),
        ),
        (
            "hard link by dots",
            Tar::default()
                .hard_link("h", &format!("{up}{outside}/file"))
                .end(),
        ),
        (
            "hard link through link",
            Tar::default()
                .symlink("out", outside)
                .hard_link("h", "out/file")
                .end(),
        ),
        (
            "chmod through link",
            Tar::default()
                .symlink("l", &format!("{outside}/file"))
                .hard_link("h", "l")
                .end(),
        ),
        (
            "whiteout through link",
            Tar::default()
                .symlink("out", outside)
                .file("out/.wh.file", b"")
                .end(),
        ),
        (
            "opaque through link",
            Tar::default()
                .symlink("out", outside)
                .file("out/.wh..wh..opq", b"")
                .end(),
        ),
        ("whiteout of dots", Tar::default().file(".wh...", b"").end()),
        (
            "directory over link",
            Tar::default()
                .symlink("out", outside)
                .dir("out")
                .file("out/file", b"evil")
                .end(),
        ),
        (
            "device over file",
            Tar::default().node("lib/a", 1, 3).file("lib/a/b", b"").end(),
        ),
    ];
    for (what, archive) in &cases {
        for parent in [false, true] {
            let mounts = if parent {
                committed(&supervisor).await
            } else {
                supervisor.prepare("").await
            };
            let outcome = supervisor.apply(archive, mounts).await;
            let refused = [
                "dots",
                "hard link by dots",
                "whiteout of dots",
                "hard link out",
                "device over file",
            ];
            if refused.contains(what) {
                assert!(outcome.is_err(), "{what} was accepted");
            }
            assert_eq!(
                fs::read_to_string(canary.join("file")).unwrap(),
                "untouched",
                "{what}"
            );
            assert_eq!(fs::metadata(canary.join("file")).unwrap().nlink(), 1, "{what}");
            assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "{what}");
        }
    }
    assert!(leftovers::mounts_below(scratch.path()).is_empty());
}
