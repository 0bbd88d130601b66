//! Hard links to files of the layers below.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
};

use super::{archive::Tar, host::Host, refused};
use crate::{
    error::Result,
    layer::{
        Limits, apply,
        apply::{Applied, Target},
    },
};

/// An upper directory over two lower ones.
struct Stack {
    host: Host,
    /// Topmost first.
    lowers: [tempfile::TempDir; 2],
}

impl Stack {
    fn new() -> Self {
        Self {
            host: Host::new(),
            lowers: [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()],
        }
    }

    fn apply(&self, archive: &[u8], limits: Limits) -> Result<Applied> {
        let open = |path: &std::path::Path| File::open(path).unwrap().into();
        let target = Target::Upper {
            upper: open(&self.host.target()),
            lowers: self.lowers.iter().map(|lower| open(lower.path())).collect(),
        };
        apply(archive, archive.len() as u64, target, limits)
    }

    fn link(&self, to: &str) -> Result<Applied> {
        self.apply(&Tar::default().hard_link("link", to).end(), Limits::default())
    }
}

#[test]
fn the_file_is_copied_up_once_with_all_that_it_has() {
    let stack = Stack::new();
    let lower = stack.lowers[1].path();
    fs::create_dir_all(lower.join("a/b")).unwrap();
    fs::set_permissions(lower.join("a/b"), fs::Permissions::from_mode(0o711)).unwrap();
    let file = File::create(lower.join("a/b/file")).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", 40 << 20).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    file.set_modified(time).unwrap();
    symlink("to", lower.join("symlink")).unwrap();
    let archive = Tar::default()
        .hard_link("one", "a/b/file")
        .hard_link("a/two", "a/b/file")
        .hard_link("three", "symlink")
        .end();
    stack.apply(&archive, Limits::default()).unwrap();
    let target = stack.host.target();
    let copy = fs::metadata(target.join("a/b/file")).unwrap();
    for link in ["one", "a/two"] {
        let link = fs::metadata(target.join(link)).unwrap();
        assert_eq!((link.ino(), link.nlink()), (copy.ino(), 3));
    }
    assert_eq!(
        fs::read(target.join("one")).unwrap(),
        fs::read(lower.join("a/b/file")).unwrap()
    );
    assert!(
        copy.blocks() < 2048,
        "the hole was filled: {} blocks",
        copy.blocks()
    );
    assert_eq!(fs::metadata(target.join("a/b")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(fs::read_link(target.join("three")).unwrap().to_str(), Some("to"));
    assert_eq!(
        fs::metadata(lower.join("a/b/file")).unwrap().nlink(),
        1,
        "a layer below was touched"
    );
}

#[test]
fn the_topmost_layer_that_has_the_file_counts() {
    let stack = Stack::new();
    fs::write(stack.lowers[0].path().join("file"), "above").unwrap();
    fs::write(stack.lowers[1].path().join("file"), "below").unwrap();
    stack.link("file").unwrap();
    assert_eq!(fs::read(stack.host.target().join("link")).unwrap(), b"above");
}

/// A file or a link in the place of a directory hides what is below; no link is followed, wherever it leads.
#[test]
fn what_is_hidden_is_not_linked_to() {
    for hide in ["file", "link"] {
        let stack = Stack::new();
        fs::create_dir(stack.lowers[1].path().join("dir")).unwrap();
        fs::write(stack.lowers[1].path().join("dir/canary"), "hidden").unwrap();
        match hide {
            "file" => fs::write(stack.lowers[0].path().join("dir"), "").unwrap(),
            _ => symlink(stack.host.outside(), stack.lowers[0].path().join("dir")).unwrap(),
        }
        stack.link("dir/canary").unwrap_err();
        assert!(!stack.host.target().join("link").exists());
    }
    let stack = Stack::new();
    fs::create_dir(stack.lowers[0].path().join("dir")).unwrap();
    stack.link("dir").unwrap_err();
    stack.link("nothing").unwrap_err();
}

#[test]
fn little_layers_do_not_copy_much() {
    let stack = Stack::new();
    for name in ["a", "b"] {
        fs::write(stack.lowers[0].path().join(name), vec![1; 600_000]).unwrap();
    }
    let archive = Tar::default().hard_link("c", "a").hard_link("d", "b").end();
    let limits = Limits {
        base_bytes: 1 << 20,
        ..Limits::default()
    };
    refused(stack.apply(&archive, limits), "d");
}

/// Apart from the layers below there is nothing to link to, and that is said so that it can be tried again.
#[test]
fn without_layers_below_the_target_is_not_found() {
    let host = Host::new();
    let target = Target::Upper {
        upper: File::open(host.target()).unwrap().into(),
        lowers: Vec::new(),
    };
    let archive = Tar::default().hard_link("link", "file").end();
    let error = apply(&archive[..], 0, target, Limits::default()).unwrap_err();
    assert!(error.is_not_found(), "{error}");
}
