//! What is applied to the older tree gives the newer one, and the same trees give the same bytes.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use wharf_proto::containerd::types::Mount;

use super::{Compression, diff};
use crate::{
    error::Kind,
    layer::{Archive, EntryKind},
};

fn bind(path: &Path) -> Vec<Mount> {
    vec![Mount {
        r#type: "bind".into(),
        source: path.display().to_string(),
        options: vec!["rbind".into(), "ro".into()],
        ..Mount::default()
    }]
}

fn layer(lower: Option<&Path>, upper: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let lower = lower.map(bind).unwrap_or_default();
    diff(&lower, &bind(upper), Path::new("/nowhere"), None, &mut bytes).unwrap();
    bytes
}

/// The entries, as the reader that layers are applied with sees them.
fn entries(bytes: &[u8]) -> Vec<(String, EntryKind)> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        entries.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.kind));
    }
    entries
}

fn names(bytes: &[u8]) -> Vec<String> {
    entries(bytes).into_iter().map(|(name, _)| name).collect()
}

struct Two {
    _directory: tempfile::TempDir,
    lower: std::path::PathBuf,
    upper: std::path::PathBuf,
}

impl Two {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (lower, upper) = (directory.path().join("lower"), directory.path().join("upper"));
        fs::create_dir(&lower).unwrap();
        fs::create_dir(&upper).unwrap();
        Self {
            _directory: directory,
            lower,
            upper,
        }
    }

    /// Writes a file into both trees, with the same whole-second time.
    fn both(&self, name: &str, lower: &[u8], upper: &[u8]) {
        for (root, bytes) in [(&self.lower, lower), (&self.upper, upper)] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            touch(&path, 1_000_000_000, 0);
        }
    }

    fn layer(&self) -> Vec<u8> {
        layer(Some(&self.lower), &self.upper)
    }
}

fn touch(path: &Path, seconds: u64, nanoseconds: u32) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanoseconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn only_what_changed_is_written_after_its_directories() {
    let two = Two::new();
    two.both("a/same", b"1", b"1");
    two.both("a/bytes", b"1", b"2");
    two.both("a/gone/file", b"", b"");
    two.both("b/same", b"", b"");
    two.both("c/mode", b"", b"");
    fs::set_permissions(two.upper.join("c/mode"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::remove_dir_all(two.upper.join("a/gone")).unwrap();
    fs::create_dir(two.upper.join("new")).unwrap();
    symlink("x", two.upper.join("new/link")).unwrap();
    assert_eq!(
        names(&two.layer()),
        ["a/", "a/bytes", "a/.wh.gone", "c/", "c/mode", "new/", "new/link"]
    );
    assert_eq!(names(&layer(None, &two.upper)).len(), 9);
    assert!(names(&layer(Some(&two.upper), &two.upper)).is_empty());
}

#[test]
fn a_change_of_type_replaces() {
    let two = Two::new();
    two.both("file", b"", b"");
    two.both("dir/inside", b"", b"");
    fs::remove_file(two.upper.join("file")).unwrap();
    fs::create_dir(two.upper.join("file")).unwrap();
    fs::write(two.upper.join("file/in"), "").unwrap();
    fs::remove_dir_all(two.upper.join("dir")).unwrap();
    symlink("/etc", two.upper.join("dir")).unwrap();
    assert_eq!(
        entries(&two.layer()),
        [
            ("dir".into(), EntryKind::Symlink),
            ("file/".into(), EntryKind::Directory),
            ("file/in".into(), EntryKind::File),
        ]
    );
}

#[test]
fn all_names_of_an_inode_are_written_when_one_changed() {
    let two = Two::new();
    two.both("a", b"x", b"x");
    two.both("quiet-1", b"y", b"y");
    for root in [&two.lower, &two.upper] {
        fs::hard_link(root.join("quiet-1"), root.join("quiet-2")).unwrap();
    }
    fs::create_dir(two.upper.join("z")).unwrap();
    fs::hard_link(two.upper.join("a"), two.upper.join("z/b")).unwrap();
    assert_eq!(
        entries(&two.layer()),
        [
            ("a".into(), EntryKind::File),
            ("z/".into(), EntryKind::Directory),
            ("z/b".into(), EntryKind::HardLink),
        ]
    );
}

#[test]
fn the_same_trees_give_the_same_bytes() {
    let two = Two::new();
    two.both("a", b"1", b"22");
    two.both("b", b"1", b"1");
    fs::remove_file(two.upper.join("b")).unwrap();
    let first = two.layer();
    // Access times, and fractions of seconds, are not told.
    fs::read(two.upper.join("a")).unwrap();
    touch(&two.upper.join("a"), 1_000_000_000, 999);
    assert_eq!(two.layer(), first);
}

#[test]
fn long_names_and_large_numbers_arrive() {
    let two = Two::new();
    let deep: String = ["d".repeat(200), "e".repeat(90), "ü".repeat(60)].join("/");
    fs::create_dir_all(two.upper.join(&deep)).unwrap();
    let file = two.upper.join(&deep).join("f");
    fs::write(&file, vec![7; 1000]).unwrap();
    symlink("t".repeat(300), two.upper.join("link")).unwrap();
    touch(&file, 9_000_000_000, 0);
    let bytes = two.layer();
    let mut archive = Archive::new(bytes.as_slice());
    let mut seen = 0;
    while let Some(entry) = archive.next_entry().unwrap() {
        if entry.kind == EntryKind::File {
            assert_eq!(entry.name, format!("{deep}/f").into_bytes());
            assert_eq!(entry.size, 1000);
            seen += 1;
        }
        if entry.kind == EntryKind::Symlink {
            assert_eq!(entry.link, "t".repeat(300).into_bytes());
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
    assert_eq!(fs::metadata(&file).unwrap().mtime(), 9_000_000_000);
}

#[test]
fn what_no_layer_can_tell_is_refused() {
    let two = Two::new();
    fs::write(two.upper.join(".wh.x"), "").unwrap();
    let refused = |lower: &[Mount], upper: &[Mount]| {
        diff(lower, upper, Path::new("/nowhere"), None, std::io::sink())
            .unwrap_err()
            .kind()
    };
    assert_eq!(refused(&[], &bind(&two.upper)), Kind::FailedPrecondition);
    assert_eq!(refused(&[], &[]), Kind::InvalidArgument);
    assert_eq!(refused(&[], &bind(Path::new("relative"))), Kind::InvalidArgument);
    assert!(Compression::of("application/vnd.oci.image.layer.v1.tar+xz").is_err());
    assert_eq!(Compression::of("").unwrap().1, Compression::Gzip);
}
