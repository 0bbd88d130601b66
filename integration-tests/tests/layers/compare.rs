//! What a tree is, and whether it is the one that umoci unpacks.

use std::path::Path;
use std::process::Command;

use integration_tests::{binaries, run};
use serde_json::Value;
use wharf_proto::containerd::types::Mount;

/// Mounts a snapshot, read-only.
pub(crate) fn attach(mount: &Mount, target: &Path) {
    let mut options = mount.options.clone();
    if mount.r#type == "overlay" {
        options.push("ro".into());
    }
    let kind = if mount.r#type == "bind" {
        "none"
    } else {
        &mount.r#type
    };
    run(Command::new("mount")
        .args(["-t", kind, "-o", &options.join(","), &mount.source])
        .arg(target))
    .ok();
}

/// The tree below `directory` as the probe reports it.
pub(crate) fn probe(directory: &Path) -> Value {
    let text = run(Command::new(binaries::ours("probe")).arg("tree").arg(directory)).ok();
    serde_json::from_str(&text).unwrap()
}

/// The digest of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    sha2::Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}

/// The tree that umoci unpacks the image `tag` to.
pub(crate) fn umoci(layout: &Path, tag: &str, bundle: &Path) -> Value {
    run(Command::new(binaries::peer("umoci"))
        .args(["unpack", "--image"])
        .arg(format!("{}:{tag}", layout.display()))
        .arg(bundle))
    .ok();
    probe(&bundle.join("rootfs"))
}

#[track_caller]
pub(crate) fn assert_same(ours: &Value, theirs: &Value) {
    let (ours, theirs) = (ours.as_object().unwrap(), theirs.as_object().unwrap());
    assert!(ours.len() > 10, "an empty tree compares equal to anything");
    for (path, entry) in theirs {
        assert_eq!(ours.get(path), Some(entry), "{path}");
    }
    for path in ours.keys() {
        assert!(theirs.contains_key(path), "{path} should not be there");
    }
}
