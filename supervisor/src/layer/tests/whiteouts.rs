//! Whiteouts: they hide lower layers, and nothing else.

use std::{fs, os::unix::fs::symlink};

use super::{archive::Tar, host::Host, refused};

/// CVE-2026-42306: whiteouts that remove what is not below them.
#[test]
fn whiteouts_of_dots_are_refused() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        refused(
            Host::new().apply(&Tar::default().dir("a").file(name, b"").end()),
            name,
        );
        refused(
            Host::new().apply_upper(&Tar::default().dir("a").file(name, b"").end()),
            name,
        );
    }
}

#[test]
fn whiteouts_remove_what_lower_layers_brought() {
    let host = Host::new();
    let lower = Tar::default()
        .dir("gone")
        .file("gone/a", b"")
        .dir("opaque")
        .file("opaque/old", b"")
        .dir("opaque/sub")
        .file("opaque/sub/old", b"")
        .file("kept", b"old")
        .end();
    host.apply(&lower).unwrap();
    let upper = Tar::default()
        .file("opaque/new", b"new")
        .file("opaque/sub/new", b"new")
        .file(".wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("kept", b"new")
        .file(".wh.kept", b"")
        .file(".wh.never-there", b"")
        .file(".wh..wh.plnk/1.2", b"aufs")
        .end();
    host.apply(&upper).unwrap();
    let at = |name: &str| host.target().join(name);
    assert!(!at("gone").exists());
    assert!(!at("opaque/old").exists() && !at("opaque/sub/old").exists());
    assert!(at("opaque/new").exists() && at("opaque/sub/new").exists());
    assert_eq!(
        fs::read(at("kept")).unwrap(),
        b"new",
        "a whiteout hides lower layers only"
    );
    assert!(!at(".wh..wh.plnk").exists());
}

#[test]
fn a_whiteout_through_a_link_removes_nothing_outside() {
    let host = Host::new();
    symlink(host.outside(), host.target().join("out")).unwrap();
    symlink("../outside", host.target().join("up")).unwrap();
    let archive = Tar::default()
        .file("out/.wh.canary", b"")
        .file("up/.wh.canary", b"")
        .file("up/.wh..wh..opq", b"")
        .end();
    host.apply(&archive).unwrap();
}
