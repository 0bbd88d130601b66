//! What every snapshotter promises behind the store; run on each implementation.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use super::*;
use crate::{Kind as ErrorKind, event, lease, metadata, namespace::Scope};

struct Fixture {
    directory: tempfile::TempDir,
    metadata: Arc<metadata::Store>,
    store: Store,
}

fn open(directory: tempfile::TempDir) -> Fixture {
    let metadata = metadata::Store::open(directory.path()).unwrap();
    let overlay = overlay::Overlay::open(&directory.path().join("overlay"), &[]).unwrap();
    let loaded = Loaded {
        snapshotters: BTreeMap::from([(DEFAULT.to_owned(), Arc::new(overlay) as Arc<dyn Snapshotter>)]),
        skipped: BTreeMap::new(),
    };
    let store = Store::open(Arc::clone(&metadata), Arc::new(event::Exchange::new()), loaded).unwrap();
    Fixture {
        directory,
        metadata,
        store,
    }
}

fn fixture() -> Fixture {
    open(tempfile::tempdir().unwrap())
}

impl Fixture {
    fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        self.store.prepare(&a(), "", key, parent, Labels::new())
    }

    fn commit(&self, name: &str, key: &str) -> Result<()> {
        self.store.commit(&a(), "", name, key, "", Labels::new())
    }

    /// A committed snapshot `name` on `parent`.
    fn layer(&self, name: &str, parent: &str) {
        self.prepare("tmp", parent).unwrap();
        self.commit(name, "tmp").unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.store
            .list(&a(), "")
            .unwrap()
            .into_iter()
            .map(|info| info.name)
            .collect()
    }

    fn directories(&self) -> usize {
        fs::read_dir(self.directory.path().join("overlay"))
            .unwrap()
            .count()
    }
}

fn a() -> Scope {
    Scope::new("a")
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn kinds_and_parents_follow_the_life_cycle() {
    let f = fixture();
    f.layer("base", "");
    f.prepare("k", "base").unwrap();
    let info = f.store.stat(&a(), "", "k").unwrap();
    assert_eq!((info.kind, info.parent.as_str()), (Kind::Active, "base"));
    f.store.view(&a(), "", "v", "base", Labels::new()).unwrap();
    assert_eq!(f.store.stat(&a(), "", "v").unwrap().kind, Kind::View);
    f.commit("top", "k").unwrap();
    assert_eq!(f.store.stat(&a(), "", "top").unwrap().kind, Kind::Committed);
    assert_eq!(kind(f.store.stat(&a(), "", "k")), Some(ErrorKind::NotFound));
    assert_eq!(f.names(), ["base", "top", "v"]);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let f = fixture();
    f.layer("base", "");
    f.prepare("k", "base").unwrap();
    let before = f.directories();
    assert_eq!(kind(f.prepare("k", "base")), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(f.prepare("x", "none")), Some(ErrorKind::NotFound));
    assert_eq!(kind(f.prepare("x", "k")), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(f.prepare("", "base")), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(f.commit("base", "k")), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(f.commit("x", "base")), Some(ErrorKind::FailedPrecondition));
    assert_eq!(
        kind(f.store.mounts(&a(), "", "base")),
        Some(ErrorKind::FailedPrecondition)
    );
    assert_eq!(
        kind(f.store.remove(&a(), "", "base")),
        Some(ErrorKind::FailedPrecondition)
    );
    assert_eq!(
        kind(f.store.remove(&a(), "zfs", "base")),
        Some(ErrorKind::InvalidArgument)
    );
    assert_eq!(f.names(), ["base", "k"]);
    assert_eq!(f.directories(), before);
}

#[test]
fn mounts_are_the_same_whenever_they_are_asked_for() {
    let f = fixture();
    f.layer("1", "");
    f.layer("2", "1");
    let mounts = f.prepare("k", "2").unwrap();
    assert_eq!(mounts[0].r#type, "overlay");
    assert_eq!(f.store.mounts(&a(), "", "k").unwrap(), mounts);
    let Fixture {
        directory,
        metadata,
        store,
    } = f;
    drop((store, metadata));
    assert_eq!(open(directory).store.mounts(&a(), "", "k").unwrap(), mounts);
}

#[test]
fn namespaces_do_not_meet() {
    let f = fixture();
    f.layer("base", "");
    let b = Scope::new("b");
    assert_eq!(kind(f.store.stat(&b, "", "base")), Some(ErrorKind::NotFound));
    assert_eq!(
        kind(f.store.prepare(&b, "", "k", "base", Labels::new())),
        Some(ErrorKind::NotFound)
    );
    f.store.prepare(&b, "", "base", "", Labels::new()).unwrap();
    f.store.remove(&b, "", "base").unwrap();
    assert_eq!(f.names(), ["base"]);
}

#[test]
fn removal_frees_the_disk_and_crashed_calls_are_cleaned_up() {
    let f = fixture();
    f.layer("1", "");
    f.prepare("k", "1").unwrap();
    f.store.remove(&a(), "", "k").unwrap();
    assert_eq!(f.directories(), 1);
    fs::create_dir_all(f.directory.path().join("overlay/99/fs")).unwrap();
    f.store.cleanup("").unwrap();
    assert_eq!(f.directories(), 1);
    fs::create_dir_all(f.directory.path().join("overlay/99/fs")).unwrap();
    let Fixture {
        directory,
        metadata,
        store,
    } = f;
    drop((store, metadata));
    let f = open(directory);
    assert_eq!(f.directories(), 1);
    // The number is not used again, although its directory is gone.
    f.prepare("k", "1").unwrap();
    assert!(Path::new(&f.directory.path().join("overlay/100")).exists());
}

#[test]
fn usage_is_measured_while_active_and_kept_when_committed() {
    let f = fixture();
    let mounts = f.prepare("k", "").unwrap();
    let empty = f.store.usage(&a(), "", "k").unwrap();
    fs::write(Path::new(&mounts[0].source).join("file"), vec![1; 50_000]).unwrap();
    let full = f.store.usage(&a(), "", "k").unwrap();
    assert_eq!(full.inodes, empty.inodes + 1);
    assert!(full.size >= empty.size + 50_000);
    f.commit("c", "k").unwrap();
    assert_eq!(f.store.usage(&a(), "", "c").unwrap(), full);
}

#[test]
fn what_is_made_under_a_lease_is_held_by_it() {
    let f = fixture();
    lease::create(&f.metadata, &a(), "l", Labels::new()).unwrap();
    let scope = a().with_lease("l");
    let held = || -> Vec<String> {
        lease::resources(&f.metadata, &a(), "l")
            .unwrap()
            .into_iter()
            .map(|resource| resource.id)
            .collect()
    };
    f.store.prepare(&scope, "", "k", "", Labels::new()).unwrap();
    assert_eq!(held(), ["k"]);
    f.store.commit(&scope, "", "c", "k", "", Labels::new()).unwrap();
    assert_eq!(held(), ["c"]);
    let target = Labels::from([("containerd.io/snapshot.ref".to_owned(), "c".to_owned())]);
    assert_eq!(
        kind(f.store.prepare(&scope, "", "k2", "", target)),
        Some(ErrorKind::AlreadyExists)
    );
    f.store.remove(&scope, "", "c").unwrap();
    assert!(held().is_empty());
    assert_eq!(
        kind(
            f.store
                .prepare(&a().with_lease("gone"), "", "k", "", Labels::new())
        ),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(f.directories(), 0);
}

#[test]
fn of_many_that_prepare_one_key_one_succeeds() {
    let f = fixture();
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| usize::from(f.prepare("k", "").is_ok())))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made, 1);
    assert_eq!(f.directories(), 1);
}

#[test]
fn a_snapshot_made_apart_is_put_on_its_parent_later() {
    let f = fixture();
    assert!(f.store.keeps_layers_apart("").unwrap());
    assert!(f.store.keeps_layers_apart("nobody").is_err());
    f.prepare("apart", "").unwrap();
    f.layer("base", "");
    let onto = |key: &str, parent: &str| f.store.rebase(&a(), "", key, parent);
    assert_eq!(onto("apart", "absent").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(onto("absent", "base").unwrap_err().kind(), ErrorKind::NotFound);
    onto("apart", "base").unwrap();
    let mounts = f.store.mounts(&a(), "", "apart").unwrap();
    assert_eq!(mounts[0].r#type, "overlay");
    assert!(
        mounts[0]
            .options
            .iter()
            .any(|option| option.starts_with("lowerdir="))
    );
    // Once is enough, and the parent is held now.
    assert_eq!(
        onto("apart", "base").unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
    assert!(f.store.remove(&a(), "", "base").is_err());
    f.commit("top", "apart").unwrap();
    assert_eq!(f.store.stat(&a(), "", "top").unwrap().parent, "base");
    assert_eq!(
        onto("top", "base").unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
}

#[test]
fn what_was_made_on_nothing_can_get_a_parent_at_its_commit() {
    let f = fixture();
    f.layer("base", "");
    f.layer("other", "");
    f.prepare("k", "").unwrap();
    let commit =
        |name: &str, key: &str, parent: &str| f.store.commit(&a(), "", name, key, parent, Labels::new());
    assert_eq!(kind(commit("top", "k", "none")), Some(ErrorKind::NotFound));
    commit("top", "k", "base").unwrap();
    assert_eq!(f.store.stat(&a(), "", "top").unwrap().parent, "base");
    assert_eq!(
        kind(f.store.remove(&a(), "", "base")),
        Some(ErrorKind::FailedPrecondition)
    );
    f.prepare("k", "top").unwrap();
    assert_eq!(kind(commit("x", "k", "other")), Some(ErrorKind::InvalidArgument));
    commit("x", "k", "top").unwrap();
}
