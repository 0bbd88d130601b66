//! Archives that contradict themselves, that are none, or that set what is not theirs.

use std::fs;

use tar::{EntryType, Header};

use super::{archive::Tar, host::Host};
use crate::{Kind, layer::fuzzed::generate::mended};

/// CVE-2025-62518 (TARmageddon) and CVE-2026-17106: two sizes for one member. Only the PAX one counts.
#[test]
fn a_header_hidden_in_data_is_not_an_entry() {
    let inner = Tar::default().file("smuggled", b"evil").end();
    let archive = Tar::default()
        .pax(&[
            ("SCHILY.xattr.user.x", b"a\nb"),
            ("size", inner.len().to_string().as_bytes()),
        ])
        .member("nested.tar", EntryType::Regular, "", &inner, |header| {
            header.set_size(0);
        })
        .end();
    let host = Host::new();
    host.apply(&archive).unwrap();
    assert!(!host.target().join("smuggled").exists());
    assert_eq!(fs::read(host.target().join("nested.tar")).unwrap(), inner);
}

#[test]
fn sizes_of_what_has_no_data_are_not_believed() {
    let archive = Tar::default()
        .member("link", EntryType::Symlink, "x", b"", |header| {
            header.set_size(512);
        })
        .file("next", b"next")
        .end();
    let host = Host::new();
    host.apply(&archive).unwrap();
    assert_eq!(fs::read(host.target().join("next")).unwrap(), b"next");
}

#[test]
fn malformed_archives_are_refused() {
    let huge = |header: &mut Header| header.set_size(u64::MAX >> 1);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "cut data",
            Tar::default().file("a", &[1; 2000]).end()[..1500].to_vec(),
        ),
        ("cut header", Tar::default().file("a", b"").end()[..300].to_vec()),
        (
            "size out of range",
            Tar::default()
                .member("a", EntryType::Regular, "", b"", huge)
                .end(),
        ),
        (
            "unknown type",
            Tar::default()
                .member("a", EntryType::new(b'V'), "", b"", |_| {})
                .end(),
        ),
        (
            "huge PAX header",
            Tar::default()
                .member("a", EntryType::XHeader, "", b"", |h| h.set_size(1 << 40))
                .end(),
        ),
        (
            "huge long name",
            Tar::default()
                .member("a", EntryType::GNULongName, "", b"", |h| h.set_size(1 << 40))
                .end(),
        ),
        (
            "uid out of range",
            Tar::default()
                .member("a", EntryType::Regular, "", b"", |h| h.set_uid(1 << 32))
                .end(),
        ),
        (
            "uid that means none",
            Tar::default().pax(&[("uid", b"4294967295")]).file("a", b"").end(),
        ),
        ("garbage", vec![0x42; 4096]),
        ("empty link", Tar::default().symlink("a", "").end()),
        ("endless extensions", {
            let mut tar = Tar::default();
            for _ in 0..100 {
                tar = tar.pax(&[("path", b"x")]);
            }
            tar.file("a", b"").end()
        }),
        ("size zero block", {
            let mut bytes = vec![0; 512];
            bytes.extend(Tar::default().file("a", b"").end());
            bytes
        }),
    ];
    for (what, archive) in cases {
        let error = Host::new().apply(&archive).expect_err(what);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{what}: {error}");
    }
}

#[test]
fn trusted_attributes_are_not_the_layers_to_set() {
    let host = Host::new();
    let archive = Tar::default()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/outside"),
            ("SCHILY.xattr.user.ok", b"1\n2"),
        ])
        .file("a", b"")
        .end();
    host.apply(&archive).unwrap();
    let mut value = [0; 64];
    let path = host.target().join("a");
    match rustix::fs::getxattr(&path, "user.ok", &mut value[..]) {
        Ok(length) => assert_eq!(&value[..length], b"1\n2"),
        // Not every file system has user attributes.
        Err(error) => assert_eq!(error, rustix::io::Errno::OPNOTSUPP),
    }
    assert!(rustix::fs::getxattr(&path, "trusted.overlay.redirect", &mut value[..]).is_err());
}

proptest::proptest! {
    /// Whatever the bytes are: an answer, no panic, and nothing outside.
    #[test]
    fn any_bytes_are_survived(
        seed in proptest::collection::vec((0usize..4096, proptest::prelude::any::<u8>()), 0..40),
    ) {
        let host = Host::new();
        let mut archive = Tar::default()
            .dir("a")
            .pax(&[("path", b"a/../b"), ("size", b"3"), ("SCHILY.xattr.user.x", b"y")])
            .file("a/f", b"abc")
            .symlink("l", "../outside")
            .hard_link("h", "l")
            .end();
        for (position, byte) in seed {
            let position = position % archive.len();
            archive[position] = byte;
        }
        drop(host.apply(&mended(archive)));
    }
}
