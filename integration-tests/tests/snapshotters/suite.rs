//! What every snapshotter promises.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use integration_tests::Scratch;
use tonic::Code;
use wharf_proto::containerd::services::snapshots::v1::{Info, Kind};

use crate::subject::{Mounted, Subject, code, kept, rename};

/// Runs all of it; each part removes what it made.
pub(crate) async fn run(subject: &Subject, scratch: &Scratch) {
    let at = Mounted::new(scratch, "at");
    a_child_has_what_its_parent_had_and_changes_nothing_there(subject, &at).await;
    kinds_follow_the_life_cycle(subject).await;
    what_does_not_fit_is_refused(subject).await;
    labels_can_be_changed_and_nothing_else(subject).await;
    lists_are_filtered(subject).await;
    a_view_cannot_be_written(subject, &at).await;
    attributes_are_kept(subject, &at).await;
    what_was_deleted_stays_deleted(subject, &at).await;
    many_layers_can_be_mounted(subject, &at).await;
    usage_is_what_a_snapshot_adds(subject, &at).await;
    nothing_is_left(subject).await;
}

/// No snapshot is there.
pub(crate) async fn nothing_is_left(subject: &Subject) {
    assert!(
        subject.names(&[]).await.is_empty(),
        "{:?}",
        subject.names(&[]).await
    );
}

async fn remove_all(subject: &Subject, keys: &[&str]) {
    for key in keys {
        subject
            .remove(key)
            .await
            .unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    if let Err(error) = subject.cleanup().await {
        // Not every daemon needs to be told.
        assert_eq!(error.code(), Code::Unimplemented, "{error}");
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

async fn a_child_has_what_its_parent_had_and_changes_nothing_there(subject: &Subject, at: &Mounted) {
    let base = |root: &Path| {
        fs::write(root.join("foo"), "foo\n").unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
    };
    subject.layer(at, "base", "", base).await;
    subject
        .layer(at, "next", "base", |root| {
            assert_eq!(text(&root.join("foo")), "foo\n");
            assert!(root.join("a/b/c").is_dir());
            fs::write(root.join("foo"), "bar\n").unwrap();
            fs::write(root.join("bar"), "bar\n").unwrap();
            fs::remove_dir_all(root.join("a/b")).unwrap();
            rename(root, "a", "renamed");
        })
        .await;
    assert_eq!(subject.stat("base").await.unwrap().parent, "");
    assert_eq!(subject.stat("next").await.unwrap().parent, "base");
    let view = subject.view("view", "next").await.unwrap();
    at.with(&view, |root| {
        assert_eq!(
            (text(&root.join("foo")), text(&root.join("bar"))),
            ("bar\n".into(), "bar\n".into())
        );
        assert!(
            root.join("renamed").is_dir() && !root.join("renamed/b").exists() && !root.join("a").exists()
        );
    });
    let view = subject.view("base-view", "base").await.unwrap();
    at.with(&view, |root| {
        assert_eq!(text(&root.join("foo")), "foo\n");
        assert!(root.join("a/b/c").is_dir() && !root.join("bar").exists());
    });
    assert_eq!(code(subject.remove("base").await), Code::FailedPrecondition);
    remove_all(subject, &["base-view", "view", "next", "base"]).await;
}

/// containerd's own set: two committed, two active and two views.
async fn several(subject: &Subject) {
    subject.prepare("c1-a", "").await.unwrap();
    subject.commit("c1", "c1-a").await.unwrap();
    subject.prepare("c2-a", "c1").await.unwrap();
    subject.commit("c2", "c2-a").await.unwrap();
    subject.prepare("a1", "c2").await.unwrap();
    subject.prepare("a2", "").await.unwrap();
    subject.view("v1", "c2").await.unwrap();
    subject.view("v2", "").await.unwrap();
}

const SEVERAL: [&str; 6] = ["v2", "v1", "a2", "a1", "c2", "c1"];

async fn kinds_follow_the_life_cycle(subject: &Subject) {
    several(subject).await;
    for (name, kind, parent) in [
        ("c1", Kind::Committed, ""),
        ("c2", Kind::Committed, "c1"),
        ("a1", Kind::Active, "c2"),
        ("a2", Kind::Active, ""),
        ("v1", Kind::View, "c2"),
        ("v2", Kind::View, ""),
    ] {
        let info = subject.stat(name).await.unwrap();
        assert_eq!(
            (info.name.as_str(), info.kind(), info.parent.as_str()),
            (name, kind, parent)
        );
        assert_eq!(info.created_at, info.updated_at, "{name}");
    }
    for key in ["a1", "a2", "v1", "v2"] {
        let first = subject.mounts(key).await.unwrap();
        assert!(!first.is_empty());
        assert_eq!(subject.mounts(key).await.unwrap(), first, "{key}");
    }
    remove_all(subject, &SEVERAL).await;
}

async fn what_does_not_fit_is_refused(subject: &Subject) {
    several(subject).await;
    assert_eq!(code(subject.prepare("a1", "c1").await), Code::AlreadyExists);
    assert_eq!(code(subject.view("a1", "c1").await), Code::AlreadyExists);
    assert_eq!(code(subject.view("v1", "c1").await), Code::AlreadyExists);
    assert_eq!(code(subject.prepare("x", "none").await), Code::NotFound);
    assert_eq!(code(subject.prepare("x", "a1").await), Code::InvalidArgument);
    assert_eq!(code(subject.commit("c2", "a1").await), Code::AlreadyExists);
    assert_eq!(code(subject.commit("x", "none").await), Code::NotFound);
    assert_eq!(code(subject.stat("none").await), Code::NotFound);
    assert_eq!(code(subject.usage("none").await), Code::NotFound);
    assert_eq!(code(subject.mounts("none").await), Code::NotFound);
    assert_eq!(code(subject.remove("none").await), Code::NotFound);
    assert_eq!(code(subject.remove("c1").await), Code::FailedPrecondition);
    let mut unknown = subject.stat("c1").await.unwrap();
    unknown.name = "none".into();
    assert_eq!(code(subject.update(unknown, &["labels.x"]).await), Code::NotFound);
    assert_eq!(subject.names(&[]).await, ["a1", "a2", "c1", "c2", "v1", "v2"]);
    remove_all(subject, &SEVERAL).await;
}

async fn labels_can_be_changed_and_nothing_else(subject: &Subject) {
    several(subject).await;
    for key in SEVERAL {
        let before = subject.stat(key).await.unwrap();
        let mut labels = kept();
        labels.insert("l1".into(), "v1".into());
        labels.insert("l2".into(), "v2".into());
        let wish = Info {
            parent: "doesnotexist".into(),
            labels: labels.clone(),
            ..before.clone()
        };
        let after = subject.update(wish.clone(), &[]).await.unwrap();
        assert_eq!((&after.labels, &after.parent), (&labels, &before.parent));
        assert_eq!(after.created_at, before.created_at);
        assert_ne!(after.updated_at, before.updated_at);
        let mut wish = wish;
        wish.labels.insert("l1".into(), "updated".into());
        wish.labels.insert("l2".into(), String::new());
        labels.insert("l1".into(), "updated".into());
        let after = subject.update(wish.clone(), &["labels.l1"]).await.unwrap();
        assert_eq!(after.labels, labels);
        labels.remove("l2");
        let after = subject.update(wish.clone(), &["labels.l2"]).await.unwrap();
        let stored = subject.stat(key).await.unwrap();
        assert_eq!(
            stored.labels.get("l2").map(String::as_str).unwrap_or_default(),
            ""
        );
        assert_eq!(after.labels.get("l1"), labels.get("l1"));
        assert_eq!(
            code(subject.update(wish, &["parent"]).await),
            Code::InvalidArgument
        );
    }
    remove_all(subject, &SEVERAL).await;
}

async fn lists_are_filtered(subject: &Subject) {
    several(subject).await;
    assert_eq!(subject.names(&["kind==committed"]).await, ["c1", "c2"]);
    assert_eq!(subject.names(&["parent==c2"]).await, ["a1", "v1"]);
    assert_eq!(subject.names(&["kind==view,parent==c2"]).await, ["v1"]);
    assert_eq!(subject.names(&["name==a1", "name==v2"]).await, ["a1", "v2"]);
    assert_eq!(subject.names(&["labels.none"]).await, [""; 0]);
    for info in subject.list(&[]).await {
        assert_eq!(subject.stat(&info.name).await.unwrap(), info);
    }
    remove_all(subject, &SEVERAL).await;
}

async fn a_view_cannot_be_written(subject: &Subject, at: &Mounted) {
    subject
        .layer(at, "one", "", |root| fs::write(root.join("f"), "1").unwrap())
        .await;
    subject
        .layer(at, "two", "one", |root| fs::write(root.join("g"), "2").unwrap())
        .await;
    for (key, parent) in [("v0", ""), ("v1", "one"), ("v2", "two")] {
        let mounts = subject.view(key, parent).await.unwrap();
        at.with(&mounts, |root| {
            let error = fs::write(root.join("new"), "").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{key}");
            assert_eq!(root.join("f").exists(), !parent.is_empty());
        });
    }
    remove_all(subject, &["v2", "v1", "v0", "two", "one"]).await;
}

async fn attributes_are_kept(subject: &Subject, at: &Mounted) {
    subject
        .layer(at, "base", "", |root| {
            std::os::unix::fs::chown(root, Some(12), Some(34)).unwrap();
            fs::create_dir(root.join("d")).unwrap();
            fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o3711)).unwrap();
            fs::write(root.join("d/f"), "f").unwrap();
            fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o4755)).unwrap();
            fs::hard_link(root.join("d/f"), root.join("d/g")).unwrap();
            symlink("../d/f", root.join("d/link")).unwrap();
            std::os::unix::fs::lchown(root.join("d/link"), Some(7), Some(8)).unwrap();
        })
        .await;
    let mounts = subject.prepare("child", "base").await.unwrap();
    at.with(&mounts, |root| {
        let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
        let top = fs::metadata(root).unwrap();
        assert_eq!((top.uid(), top.gid()), (12, 34));
        assert_eq!(stat("d").mode() & 0o7777, 0o3711);
        assert_eq!(stat("d/f").mode() & 0o7777, 0o4755);
        assert_eq!(stat("d/f").ino(), stat("d/g").ino());
        assert_eq!((stat("d/link").uid(), stat("d/link").gid()), (7, 8));
        assert_eq!(fs::read_link(root.join("d/link")).unwrap(), Path::new("../d/f"));
    });
    remove_all(subject, &["child", "base"]).await;
}

/// A child's root has its parent's mode; containerd's has since 1.7.
pub(crate) async fn the_root_keeps_its_mode(subject: &Subject, scratch: &Scratch) {
    let at = Mounted::new(scratch, "at");
    let change = |root: &Path| fs::set_permissions(root, fs::Permissions::from_mode(0o750)).unwrap();
    subject.layer(&at, "base", "", change).await;
    let mounts = subject.prepare("child", "base").await.unwrap();
    let mode = at.with(&mounts, |root| fs::metadata(root).unwrap().mode() & 0o7777);
    assert_eq!(mode, 0o750);
    remove_all(subject, &["child", "base"]).await;
}

async fn what_was_deleted_stays_deleted(subject: &Subject, at: &Mounted) {
    subject
        .layer(at, "1", "", |root| {
            fs::write(root.join("gone"), "").unwrap();
            fs::create_dir_all(root.join("dir/old")).unwrap();
            fs::write(root.join("dir/old/file"), "").unwrap();
        })
        .await;
    subject
        .layer(at, "2", "1", |root| {
            fs::remove_file(root.join("gone")).unwrap();
            fs::remove_dir_all(root.join("dir")).unwrap();
            fs::create_dir_all(root.join("dir/new")).unwrap();
        })
        .await;
    subject
        .layer(at, "3", "2", |root| {
            fs::write(root.join("dir/new/f"), "").unwrap();
        })
        .await;
    let mounts = subject.view("v", "3").await.unwrap();
    at.with(&mounts, |root| {
        assert!(!root.join("gone").exists() && !root.join("dir/old").exists());
        assert!(root.join("dir/new/f").exists());
    });
    remove_all(subject, &["v", "3", "2", "1"]).await;
}

async fn many_layers_can_be_mounted(subject: &Subject, at: &Mounted) {
    const LAYERS: usize = 20;
    let mut parent = String::new();
    let mut keys = Vec::new();
    for number in 0..LAYERS {
        let name = format!("layer-{number:02}");
        let change = |root: &Path| {
            fs::write(root.join("same"), name.as_str()).unwrap();
            fs::write(root.join(&name), "").unwrap();
        };
        subject.layer(at, &name, &parent, change).await;
        parent.clone_from(&name);
        keys.insert(0, name);
    }
    let mounts = subject.prepare("top", &parent).await.unwrap();
    at.with(&mounts, |root| {
        assert_eq!(text(&root.join("same")), parent);
        assert_eq!(fs::read_dir(root).unwrap().count(), LAYERS + 1);
    });
    keys.insert(0, "top".into());
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    remove_all(subject, &keys).await;
}

async fn usage_is_what_a_snapshot_adds(subject: &Subject, at: &Mounted) {
    subject
        .layer(at, "base", "", |root| {
            fs::write(root.join("a"), vec![1; 100_000]).unwrap();
        })
        .await;
    assert!(subject.usage("base").await.unwrap().size >= 100_000);
    let mounts = subject.prepare("k", "base").await.unwrap();
    let before = subject.usage("k").await.unwrap();
    at.with(&mounts, |root| {
        fs::write(root.join("b"), vec![2; 300_000]).unwrap();
        // What is not on the disk yet is not counted everywhere.
        rustix::fs::syncfs(fs::File::open(root).unwrap()).unwrap();
    });
    let after = subject.usage("k").await.unwrap();
    assert!(
        after.inodes > before.inodes && after.size >= before.size + 300_000,
        "{before:?} {after:?}"
    );
    subject.commit("c", "k").await.unwrap();
    assert_eq!(subject.usage("c").await.unwrap(), after);
    remove_all(subject, &["c", "base"]).await;
}
