//! The image that the tests pull and import, and its archive.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::image::{Compression, Layout};
use integration_tests::{Scratch, run};
use serde_json::json;

use crate::supervisor::unique;

/// What every tool reads.
pub(crate) const GZIP: [Compression; 3] = [Compression::Gzip, Compression::Gzip, Compression::Gzip];

/// Three layers with everything that layers do; the compressions differ.
pub(crate) fn image(scratch: &Scratch, compressions: [Compression; 3]) -> Layout {
    let mut layout = Layout::new(&scratch.join(unique("layout")));
    let trees = unique("trees");
    let tree = scratch.directory(format!("{trees}/1"));
    for directory in ["etc", "bin", "gone/deep", "opaque/old", "replaced", "var/sticky"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(tree.join("bin/su"), vec![7; 300_000]).unwrap();
    fs::set_permissions(tree.join("bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(tree.join("bin/su"), tree.join("bin/su-too")).unwrap();
    fs::write(tree.join("bin/ping"), "capable").unwrap();
    run(Command::new("setcap")
        .arg("cap_net_raw=ep")
        .arg(tree.join("bin/ping")))
    .ok();
    fs::write(tree.join("bin/dump"), "capable").unwrap();
    run(Command::new("setcap")
        .arg("cap_net_raw=ep")
        .arg(tree.join("bin/dump")))
    .ok();
    run(Command::new("setfattr")
        .args(["-n", "user.note", "-v", "a\nb"])
        .arg(tree.join("etc/passwd")))
    .ok();
    symlink("../etc/passwd", tree.join("bin/link")).unwrap();
    symlink("/absolute/nowhere", tree.join("dangling")).unwrap();
    for name in [
        "gone/deep/file",
        "opaque/old/file",
        "opaque/file",
        "replaced/file",
        "becomes-dir",
    ] {
        fs::write(tree.join(name), name).unwrap();
    }
    run(Command::new("mknod")
        .arg(tree.join("var/null"))
        .args(["c", "1", "3"]))
    .ok();
    run(Command::new("mkfifo")
        .args(["-m", "622"])
        .arg(tree.join("var/fifo")))
    .ok();
    fs::set_permissions(tree.join("var/sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(tree.join("var/sticky"), Some(1000), Some(100_000)).unwrap();
    let sparse = fs::File::create(tree.join("var/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    let long = format!("{}/{}", "long".repeat(30), "name".repeat(50));
    fs::create_dir_all(tree.join(&long)).unwrap();
    fs::write(tree.join(&long).join("file"), "long").unwrap();
    settle(&tree);
    layout.layer_of(&tree, compressions[0]);

    let tree = scratch.directory(format!("{trees}/2"));
    fs::create_dir_all(tree.join("opaque")).unwrap();
    fs::write(tree.join(".wh.gone"), "").unwrap();
    fs::write(tree.join(".wh.replaced"), "").unwrap();
    fs::write(tree.join("opaque/.wh..wh..opq"), "").unwrap();
    fs::write(tree.join("opaque/new"), "new").unwrap();
    fs::create_dir_all(tree.join("becomes-dir")).unwrap();
    fs::write(tree.join("becomes-dir/file"), "now a directory").unwrap();
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/.wh.ping"), "").unwrap();
    settle(&tree);
    layout.layer_of(&tree, compressions[1]);

    let tree = scratch.directory(format!("{trees}/3"));
    fs::write(tree.join("replaced"), "a file now").unwrap();
    fs::create_dir_all(tree.join("gone")).unwrap();
    fs::write(tree.join("gone/back"), "back").unwrap();
    settle(&tree);
    layout.layer_of(&tree, compressions[2]);
    layout.tag("latest", &json!({}));
    layout
}

/// One time for all files, so that two layers of the same tree are the same.
fn settle(tree: &Path) {
    run(Command::new("find")
        .arg(tree)
        .args(["-exec", "touch", "-h", "-d", "@1234567890.125", "{}", "+"]))
    .ok();
}

/// The layout as a tar, compressed by `filter` (an option of GNU tar).
pub(crate) fn archive(scratch: &Scratch, layout: &Path, filter: &str) -> PathBuf {
    let file = scratch.join(unique("archive"));
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(layout);
    if !filter.is_empty() {
        tar.arg(filter);
    }
    run(tar.arg("-cf").arg(&file).arg(".")).ok();
    file
}
