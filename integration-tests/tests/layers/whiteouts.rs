//! Layers that hide what is below them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use integration_tests::Scratch;
use wharf_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use wharf_proto::containerd::services::snapshots::v1::{CommitSnapshotRequest, PrepareSnapshotRequest};
use wharf_proto::containerd::types::Mount;

use crate::archive::Tar;
use crate::compare::{attach, probe, sha256};
use crate::supervisor::{Supervisor, scoped, unique};

/// Whiteouts in an upper directory are overlayfs's own, in whichever order the layer has them.
#[tokio::test(flavor = "multi_thread")]
async fn whiteouts_become_overlayfs_own() {
    let scratch = Scratch::new();
    let supervisor = Supervisor::start(&scratch).await;
    let mounts = committed(&supervisor).await;
    let upper = mounts[0]
        .options
        .iter()
        .find_map(|option| option.strip_prefix("upperdir="))
        .unwrap();
    let upper = PathBuf::from(upper);
    let archive = Tar::default()
        .file("lib/.wh.a", b"")
        .dir("after")
        .file("after/new", b"")
        .file(".wh.after", b"")
        .file(".wh.before", b"")
        .dir("before")
        .file("before/new", b"")
        .dir("marked")
        .file("marked/.wh..wh..opq", b"")
        .end();
    let applied = supervisor.apply(&archive, mounts.clone()).await.unwrap();
    assert_eq!(
        (applied.digest, applied.size),
        (sha256(&archive), archive.len() as i64)
    );
    let whiteout = fs::symlink_metadata(upper.join("lib/a")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    let target = scratch.directory("mounted");
    attach(&mounts[0], &target);
    let seen = probe(&target);
    let names: Vec<&str> = seen.as_object().unwrap().keys().map(String::as_str).collect();
    for gone in ["lib/a", "after/old", "before/old", "marked/old"] {
        assert!(
            !names.iter().any(|name| name.trim_start_matches('/') == gone),
            "{gone} shows through: {names:?}"
        );
    }
    for there in ["after/new", "before/new"] {
        assert!(
            names.iter().any(|name| name.trim_start_matches('/') == there),
            "{there} is hidden: {names:?}"
        );
    }
}

/// A writable snapshot on one with `lib/a`, and files that a layer can hide.
pub(crate) async fn committed(supervisor: &Supervisor) -> Vec<Mount> {
    let key = unique("base");
    let name = unique("committed");
    let mut client = SnapshotsClient::new(supervisor.channel.clone());
    let request = PrepareSnapshotRequest {
        snapshotter: "overlayfs".into(),
        key: key.clone(),
        ..PrepareSnapshotRequest::default()
    };
    let mounts = client.prepare(scoped(request)).await.unwrap().into_inner().mounts;
    let mut tar = Tar::default().dir("lib").file("lib/a", b"a");
    for directory in ["after", "before", "marked"] {
        tar = tar.dir(directory).file(&format!("{directory}/old"), b"old");
    }
    supervisor.apply(&tar.end(), mounts).await.unwrap();
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".into(),
        key,
        name: name.clone(),
        ..Default::default()
    };
    client.commit(scoped(request)).await.unwrap();
    supervisor.prepare(&name).await
}
