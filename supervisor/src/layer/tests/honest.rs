//! Honest layers arrive whole, in every compression and with every extension of the format.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use tar::EntryType;

use super::{archive::Tar, host::Host};
use crate::{
    digest::Digest,
    layer::{Limits, apply, apply::Target, settle},
};

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
    assert_eq!(applied.diff_id, Digest::of(&archive));
    assert_eq!(applied.size, archive.len() as u64);

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
fn an_archive_may_end_with_its_last_data() {
    let archive = Tar::default().file("a", b"a").file("b", b"bbb").end();
    for end in [1536 + 3, 1536 + 100, 2048, 2560] {
        let host = Host::new();
        let applied = host.apply(&archive[..end]).unwrap();
        assert_eq!(applied.diff_id, Digest::of(&archive[..end]));
        assert_eq!(fs::read(host.target().join("b")).unwrap(), b"bbb", "{end}");
    }
    assert!(Host::new().apply(&archive[..1536 + 2]).is_err());
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

/// A layer that is applied before the one below it is known ends up as if it had been known.
#[test]
fn what_a_layer_leaves_to_lower_ones_can_come_later() {
    let lower = tempfile::tempdir().unwrap();
    for (name, mode) in [("tmp", 0o1777), ("own", 0o700), ("link", 0o711)] {
        fs::create_dir(lower.path().join(name)).unwrap();
        fs::set_permissions(lower.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(lower.path(), fs::Permissions::from_mode(0o751)).unwrap();
    let archive = Tar::default()
        .file("tmp/new/a", b"")
        .file("own/b", b"")
        // Its own word comes late, and counts.
        .dir("own")
        // What was made on the way gives way to a link, which nobody follows afterwards.
        .file("link/c", b"")
        .symlink("link", "tmp")
        .end();
    let target = |host: &Host, lowers: bool| Target::Upper {
        upper: File::open(host.target()).unwrap().into(),
        lowers: match lowers {
            true => vec![File::open(lower.path()).unwrap().into()],
            false => Vec::new(),
        },
    };
    let host = Host::new();
    let applied = apply(&archive[..], 0, target(&host, false), Limits::default()).unwrap();
    let mode = |name: &str| fs::symlink_metadata(host.target().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("own")), (0o755, 0o755));
    settle(target(&host, true), &applied.implied).unwrap();
    assert_eq!(
        (mode("tmp"), mode("tmp/new"), mode("own")),
        (0o1777, 0o755, 0o755)
    );
    assert_eq!(mode(""), 0o751, "the root looks as the one that it covers");
    assert!(host.target().join("link").is_symlink());
    assert_eq!(
        fs::metadata(lower.path().join("link")).unwrap().mode() & 0o7777,
        0o711
    );

    let whole = Tar::default().dir("./").dir("a").file("a/b", b"").end();
    let applied = apply(&whole[..], 0, target(&Host::new(), false), Limits::default()).unwrap();
    assert!(applied.implied.is_empty());
}
