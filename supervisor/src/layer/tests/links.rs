//! Symbolic and hard links: none is a way out.

use std::{fs, os::unix::fs::symlink};

use tar::EntryType;

use super::{archive::Tar, host::Host, refused};

/// CVE-2025-62518, CVE-2026-41567 and many before: a link, then a write through it.
#[test]
fn a_link_leads_nowhere_outside() {
    let host = Host::new();
    let outside = host.outside();
    let outside = outside.to_str().unwrap();
    let archive = Tar::default()
        .symlink("absolute", outside)
        .file("absolute/canary", b"evil")
        .symlink("relative", "../outside")
        .file("relative/new", b"evil")
        .symlink("up", "../../../../../../../../../../tmp")
        .file("up/wharf-new", b"evil")
        .end();
    host.apply(&archive).unwrap();
    // Each landed where it would have after a chroot.
    assert!(
        host.target()
            .join(outside.trim_start_matches('/'))
            .join("canary")
            .exists()
    );
    assert!(host.target().join("outside/new").exists());
    assert!(host.target().join("tmp/wharf-new").exists());
}

#[test]
fn a_link_at_the_end_is_replaced_not_followed() {
    let host = Host::new();
    let canary = host.outside().join("canary");
    symlink(&canary, host.target().join("link")).unwrap();
    symlink(&canary, host.target().join("mode")).unwrap();
    symlink(host.outside(), host.target().join("dir")).unwrap();
    let archive = Tar::default()
        .file("link", b"evil")
        .member("mode", EntryType::Fifo, "", b"", |header| header.set_mode(0o777))
        .dir("dir")
        .file("dir/new", b"mine")
        .end();
    host.apply(&archive).unwrap();
    assert_eq!(fs::read(host.target().join("link")).unwrap(), b"evil");
    assert!(fs::symlink_metadata(host.target().join("dir")).unwrap().is_dir());
}

/// A link swapped in for a directory that the extractor has open must not be used from memory.
#[test]
fn a_directory_replaced_by_a_link_is_looked_up_again() {
    let host = Host::new();
    let archive = Tar::default()
        .dir("dir")
        .file("dir/one", b"1")
        .symlink("dir", "../outside")
        .file("dir/two", b"2")
        .end();
    host.apply(&archive).unwrap();
    assert_eq!(fs::read(host.target().join("outside/two")).unwrap(), b"2");
    assert!(!host.target().join("dir/one").exists());
}

#[test]
fn hard_links_reach_only_what_is_inside() {
    for target in [
        "../outside/canary",
        "/../outside/canary",
        "a/../../outside/canary",
    ] {
        refused(
            Host::new().apply(&Tar::default().hard_link("stolen", target).end()),
            "stolen",
        );
    }
    let host = Host::new();
    let outside = host.outside().join("canary");
    let outside = outside.to_str().unwrap();
    assert!(
        host.apply(&Tar::default().hard_link("stolen", outside).end())
            .is_err()
    );
    // Through a link in the archive, and to a link itself: neither is followed out.
    assert!(
        host.apply(
            &Tar::default()
                .symlink("out", "../outside")
                .hard_link("stolen", "out/canary")
                .end()
        )
        .is_err()
    );
    let host = Host::new();
    let chmod = Tar::default()
        .symlink("link", outside)
        .member("stolen", EntryType::Link, "link", b"", |header| {
            header.set_mode(0o777);
        })
        .end();
    host.apply(&chmod).unwrap();
    assert!(
        fs::symlink_metadata(host.target().join("stolen"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn a_hard_link_to_itself_keeps_the_file() {
    let host = Host::new();
    host.apply(
        &Tar::default()
            .file("a", b"data")
            .hard_link("a", "a")
            .hard_link("b", "a")
            .hard_link("b", "a")
            .end(),
    )
    .unwrap();
    assert_eq!(fs::read(host.target().join("b")).unwrap(), b"data");
}
