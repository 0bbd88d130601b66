//! Layers that would exhaust the host's disk, memory or time.

use std::fs::{self, File};

use super::{archive::Tar, host::Host, refused};
use crate::layer::{Limits, apply, apply::Target};

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
