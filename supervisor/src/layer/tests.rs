//! Layers applied to a directory: the honest ones, and a corpus of those that try to get out of it or to exhaust the host.
//!
//! Every test keeps a canary beside the target and looks at it afterwards. None needs root.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use tar::{EntryType, Header};

use super::apply::{Applied, Target};
use super::{Limits, apply};
use crate::{
    Kind,
    digest::Digest,
    error::{Error, Result},
};

/// A host directory with a canary and a target beside it.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("target")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/canary"), "untouched").unwrap();
        fs::set_permissions(
            directory.path().join("outside/canary"),
            fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        Self { directory }
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn apply(&self, archive: &[u8]) -> Result<Applied> {
        let target = Target::Complete(File::open(self.target()).unwrap().into());
        let outcome = apply(archive, archive.len() as u64, target, Limits::default());
        self.check_canary();
        outcome
    }

    fn apply_upper(&self, archive: &[u8]) -> Result<Applied> {
        let target = Target::Upper {
            upper: File::open(self.target()).unwrap().into(),
            lowers: vec![File::open(self.outside()).unwrap().into()],
        };
        let outcome = apply(archive, archive.len() as u64, target, Limits::default());
        self.check_canary();
        outcome
    }

    fn check_canary(&self) {
        let names: Vec<_> = fs::read_dir(self.outside())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["canary"], "something was created or removed outside");
        assert_eq!(
            fs::read_to_string(self.outside().join("canary")).unwrap(),
            "untouched"
        );
        let metadata = fs::metadata(self.outside().join("canary")).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o640, 1));
        let mut beside: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["outside", "target"]);
    }
}

/// Builds archives, also those that no honest writer makes.
#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    fn member(
        mut self,
        name: &str,
        kind: EntryType,
        link: &str,
        data: &[u8],
        adjust: impl Fn(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        adjust(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(name, EntryType::Regular, "", data, |_| {})
    }

    fn dir(self, name: &str) -> Self {
        self.member(name, EntryType::Directory, "", b"", |header| {
            header.set_mode(0o755);
        })
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.member(name, EntryType::Symlink, target, b"", |_| {})
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(name, EntryType::Link, target, b"", |_| {})
    }

    /// A PAX header for the member that follows.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            data.extend(format!("{length} {key}=").bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.member("pax", EntryType::XHeader, "", &data, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

fn refused(outcome: Result<Applied>, entry: &str) -> Error {
    let error = outcome.expect_err("the layer was accepted");
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    assert!(
        error.to_string().contains(entry),
        "{error} does not name {entry:?}"
    );
    error
}

#[test]
fn an_honest_layer_arrives_whole() {
    let host = Host::new();
    let archive = Tar::default()
        .dir("./")
        .dir("etc/")
        .file("etc/hosts", b"127.0.0.1 localhost\n")
        .member("bin/su", EntryType::Regular, "", b"#!", |header| {
            header.set_mode(0o4755);
        })
        .symlink("etc/link", "../bin/su")
        .hard_link("etc/hosts2", "etc/hosts")
        .member("run/pipe", EntryType::Fifo, "", b"", |header| {
            header.set_mode(0o622);
        })
        .pax(&[("mtime", b"1234567890.123456789"), ("path", b"/etc/./deep//name")])
        .file("ignored", b"pax")
        .end();
    let applied = host.apply(&archive).unwrap();
    assert_eq!(
        applied,
        Applied {
            diff_id: Digest::of(&archive),
            size: archive.len() as u64
        }
    );

    let at = |name: &str| host.target().join(name);
    assert_eq!(fs::read(at("etc/hosts")).unwrap(), b"127.0.0.1 localhost\n");
    assert_eq!(
        fs::metadata(at("etc/hosts")).unwrap().ino(),
        fs::metadata(at("etc/hosts2")).unwrap().ino()
    );
    assert_eq!(fs::metadata(at("bin/su")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::read_link(at("etc/link")).unwrap(), Path::new("../bin/su"));
    assert_eq!(fs::symlink_metadata(at("run/pipe")).unwrap().mode(), 0o010_622);
    let deep = fs::metadata(at("etc/deep/name")).unwrap();
    assert_eq!((deep.mtime(), deep.mtime_nsec()), (1_234_567_890, 123_456_789));
    // Directories have their times although files were created in them later; those that the layer lacks are 0755.
    assert_eq!(fs::metadata(at("etc")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(at("")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(at("run")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn every_compression_gives_the_same_diff_id() {
    let archive = Tar::default().file("a", &[7; 100_000]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    for compressed in [
        archive.clone(),
        gzip.finish().unwrap(),
        zstd::stream::encode_all(&archive[..], 1).unwrap(),
    ] {
        let host = Host::new();
        assert_eq!(host.apply(&compressed).unwrap().diff_id, Digest::of(&archive));
        assert_eq!(fs::read(host.target().join("a")).unwrap(), [7; 100_000]);
    }
}

#[test]
fn bytes_behind_the_archive_belong_to_the_diff_id() {
    let mut archive = Tar::default().file("a", b"a").end();
    archive.extend_from_slice(b"trailing");
    assert_eq!(Host::new().apply(&archive).unwrap().diff_id, Digest::of(&archive));
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in [
        "../outside/canary",
        "a/../../outside/new",
        "/../outside/new",
        "..",
    ] {
        refused(Host::new().apply(&Tar::default().file(name, b"evil").end()), name);
        refused(
            Host::new().apply_upper(&Tar::default().file(name, b"evil").end()),
            name,
        );
    }
}

#[test]
fn absolute_names_stay_below_the_root() {
    let host = Host::new();
    host.apply(&Tar::default().file("/tmp/wharf-absolute", b"x").end())
        .unwrap();
    assert!(host.target().join("tmp/wharf-absolute").exists());
}

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

#[test]
fn directories_the_layer_lacks_look_like_those_they_cover() {
    let host = Host::new();
    let lower = tempfile::tempdir().unwrap();
    fs::create_dir(lower.path().join("tmp")).unwrap();
    fs::set_permissions(lower.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let target = Target::Upper {
        upper: File::open(host.target()).unwrap().into(),
        lowers: vec![
            File::open(host.outside()).unwrap().into(),
            File::open(lower.path()).unwrap().into(),
        ],
    };
    let archive = Tar::default().file("tmp/a", b"").file("other/b", b"").end();
    apply(&archive[..], 0, target, Limits::default()).unwrap();
    assert_eq!(
        fs::metadata(host.target().join("tmp")).unwrap().mode() & 0o7777,
        0o1777
    );
    assert_eq!(
        fs::metadata(host.target().join("other")).unwrap().mode() & 0o7777,
        0o755
    );
}

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
fn long_names_of_both_kinds_are_read() {
    let long = "d/".repeat(60) + &"n".repeat(200);
    let host = Host::new();
    let archive = Tar::default()
        .member(
            "././@LongLink",
            EntryType::GNULongName,
            "",
            format!("{long}\0").as_bytes(),
            |_| {},
        )
        .file("cut", b"gnu")
        .pax(&[("linkpath", long.as_bytes())])
        .hard_link("short", "cut")
        .end();
    host.apply(&archive).unwrap();
    assert_eq!(fs::read(host.target().join("short")).unwrap(), b"gnu");
    assert_eq!(fs::read(host.target().join(long)).unwrap(), b"gnu");
}

#[test]
fn pax_sparse_files_have_their_holes() {
    let map = b"2\n4096\n5\n1048576\n3\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"helloend");
    let archive = Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"16777216"),
        ])
        .file("GNUSparseFile.0/real", &data)
        .pax(&[("GNU.sparse.map", b"0,1,10,2"), ("GNU.sparse.size", b"20")])
        .file("old", b"abc")
        .end();
    let host = Host::new();
    host.apply(&archive).unwrap();
    let real = fs::read(host.target().join("real")).unwrap();
    assert_eq!(real.len(), 16 << 20);
    assert_eq!(
        (&real[4096..4101], &real[1_048_576..1_048_579]),
        (&b"hello"[..], &b"end"[..])
    );
    assert!(real[..4096].iter().all(|byte| *byte == 0));
    assert!(
        fs::metadata(host.target().join("real")).unwrap().blocks() < 1000,
        "the holes were written"
    );
    assert_eq!(
        fs::read(host.target().join("old")).unwrap(),
        b"a\0\0\0\0\0\0\0\0\0bc\0\0\0\0\0\0\0\0"
    );
}

#[test]
fn a_sparse_bomb_is_refused() {
    let archive = Tar::default()
        .pax(&[
            ("GNU.sparse.map", b"0,0"),
            ("GNU.sparse.size", b"9000000000000000000"),
        ])
        .file("bomb", b"")
        .end();
    refused(Host::new().apply(&archive), "bomb");
}

#[test]
fn a_decompression_bomb_is_refused() {
    // 64 MiB of one file in some kilobytes of zstd, against limits scaled down so that the test does not write a GiB.
    let archive = Tar::default().file("bomb", &vec![0; 64 << 20]).end();
    let compressed = zstd::stream::encode_all(&archive[..], 3).unwrap();
    let host = Host::new();
    let target = Target::Complete(File::open(host.target()).unwrap().into());
    let limits = Limits {
        base_bytes: 1 << 20,
        ..Limits::default()
    };
    let error = apply(&compressed[..], compressed.len() as u64, target, limits).unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    assert!(fs::metadata(host.target().join("bomb")).unwrap().len() < 64 << 20);
}

#[test]
fn the_number_of_entries_is_bounded() {
    let mut tar = Tar::default();
    for index in 0..20 {
        tar = tar.dir(&format!("d{index}"));
    }
    let archive = tar.end();
    for limits in [
        Limits {
            entries: 10,
            ..Limits::default()
        },
        Limits {
            directory_names: 20,
            ..Limits::default()
        },
    ] {
        let host = Host::new();
        let target = Target::Complete(File::open(host.target()).unwrap().into());
        assert!(apply(&archive[..], archive.len() as u64, target, limits).is_err());
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
        // Wrong checksums would hide the rest.
        for start in (0..archive.len()).step_by(512) {
            let block = &mut archive[start..start + 512];
            if &block[257..262] == b"ustar" {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        drop(host.apply(&archive));
    }
}
