//! What the content store promises, on real files.

use std::{fs, path::Path, sync::Arc};

use prost_types::Timestamp;

use super::*;
use crate::{Kind, error::Result, event, lease, metadata, namespace::Scope, time};

struct Fixture {
    directory: tempfile::TempDir,
    metadata: Arc<metadata::Store>,
    store: Store,
}

fn open(directory: tempfile::TempDir) -> Fixture {
    let metadata = metadata::Store::open(directory.path()).unwrap();
    let events = Arc::new(event::Exchange::new());
    let store = Store::open(&directory.path().join("content"), Arc::clone(&metadata), events).unwrap();
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
    fn reopen(self) -> Self {
        let Self {
            directory,
            metadata,
            store,
        } = self;
        drop((store, metadata));
        open(directory)
    }

    fn files(&self, below: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.directory.path().join("content").join(below))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn a() -> Scope {
    Scope::new("a")
}

fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_blob_is_what_was_written_and_leaves_no_ingest() {
    let f = fixture();
    let mut writer = f.store.writer(&a(), "r", 0, None).unwrap();
    writer.append(b"hel").unwrap();
    writer.append(b"lo").unwrap();
    let labels = Labels::from([
        ("k".to_owned(), "v".to_owned()),
        ("none".to_owned(), String::new()),
    ]);
    let digest = writer.commit(Some(5), None, labels).unwrap();
    assert_eq!(digest, Digest::of(b"hello"));
    assert_eq!(f.store.read(&a(), &digest, 5).unwrap(), b"hello");
    assert_eq!(kind(f.store.read(&a(), &digest, 4)), Some(Kind::OutOfRange));
    let info = f.store.info(&a(), &digest).unwrap();
    assert_eq!((info.size, info.labels.len()), (5, 1));
    assert!(f.store.statuses(&a()).unwrap().is_empty());
    assert!(f.files("ingest").is_empty());
}

#[test]
fn an_ingest_resumes_where_it_was_left_also_after_a_restart() {
    let f = fixture();
    let mut writer = f.store.writer(&a(), "r", 6, None).unwrap();
    writer.append(b"abc").unwrap();
    assert_eq!(kind(f.store.writer(&a(), "r", 6, None)), Some(Kind::Unavailable));
    drop(writer);
    let f = f.reopen();
    assert_eq!(f.store.status(&a(), "r").unwrap().offset, 3);
    let mut writer = f.store.writer(&a(), "r", 6, None).unwrap();
    writer.append(b"def").unwrap();
    assert_eq!(
        writer
            .commit(Some(6), Some(&Digest::of(b"abcdef")), Labels::new())
            .unwrap(),
        Digest::of(b"abcdef")
    );
}

#[test]
fn an_ingest_with_another_total_begins_anew() {
    let f = fixture();
    f.store
        .writer(&a(), "r", 6, None)
        .unwrap()
        .append(b"abc")
        .unwrap();
    assert_eq!(f.store.writer(&a(), "r", 7, None).unwrap().status().offset, 0);
}

#[test]
fn a_mismatch_makes_no_blob_and_keeps_the_ingest() {
    let f = fixture();
    let begin = || {
        let mut writer = f.store.writer(&a(), "r", 0, None).unwrap();
        writer.truncate(0).unwrap();
        writer.append(b"data").unwrap();
        writer
    };
    let wrong = Digest::of(b"other");
    assert_eq!(
        kind(begin().commit(Some(5), None, Labels::new())),
        Some(Kind::FailedPrecondition)
    );
    assert_eq!(
        kind(begin().commit(None, Some(&wrong), Labels::new())),
        Some(Kind::FailedPrecondition)
    );
    assert_eq!(f.store.status(&a(), "r").unwrap().offset, 4);
    assert!(f.files("blobs/sha256").is_empty());
    f.store.abort(&a(), "r").unwrap();
    assert!(f.files("ingest").is_empty());
    assert_eq!(kind(f.store.abort(&a(), "r")), Some(Kind::NotFound));
}

#[test]
fn an_abort_ends_an_ingest_that_is_being_written() {
    let f = fixture();
    let mut writer = f.store.writer(&a(), "r", 0, None).unwrap();
    writer.append(b"data").unwrap();
    f.store.abort(&a(), "r").unwrap();
    assert_eq!(kind(f.store.status(&a(), "r")), Some(Kind::NotFound));
    assert!(f.files("ingest").is_empty());
    // Its writer still has the name, and learns it at the end.
    assert_eq!(kind(f.store.writer(&a(), "r", 0, None)), Some(Kind::Unavailable));
    writer.append(b"more").unwrap();
    assert_eq!(
        kind(writer.commit(None, None, Labels::new())),
        Some(Kind::NotFound)
    );
    assert!(f.files("blobs/sha256").is_empty());
    assert_eq!(f.store.writer(&a(), "r", 0, None).unwrap().status().offset, 0);
}

#[test]
fn an_abort_beside_the_commit_leaves_no_blob() {
    let f = fixture();
    let aborted = || {
        let mut writer = f.store.writer(&a(), "r", 0, None).unwrap();
        writer.append(b"data").unwrap();
        // The row is gone, but the bytes are there: the abort removes them later, or came before the writer made its directory.
        let directory = writer.directory.clone();
        f.store.abort(&a(), "r").unwrap();
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("data"), b"data").unwrap();
        kind(writer.commit(None, None, Labels::new()))
    };
    assert_eq!(aborted(), Some(Kind::NotFound));
    assert!(f.files("blobs/sha256").is_empty() && f.files("ingest").is_empty());
    let digest = f.store.write(&Scope::new("b"), b"data", Labels::new()).unwrap();
    assert_eq!(aborted(), Some(Kind::NotFound));
    assert!(f.files("ingest").is_empty());
    assert_eq!(kind(f.store.info(&a(), &digest)), Some(Kind::NotFound));
    assert_eq!(f.store.read(&Scope::new("b"), &digest, 4).unwrap(), b"data");
}

#[test]
fn an_ingest_remembers_exactly_when_it_changed() {
    let f = fixture();
    let before = time::now();
    let mut writer = f.store.writer(&a(), "r", 0, None).unwrap();
    let key = |time: &Timestamp| (time.seconds, time.nanos);
    assert!(key(&writer.status().updated_at) >= key(&before));
    writer.append(b"data").unwrap();
    let changed = writer.status().updated_at;
    drop(writer);
    assert_eq!(f.store.status(&a(), "r").unwrap().updated_at, changed);
    assert_eq!(
        f.store.writer(&a(), "r", 0, None).unwrap().status().updated_at,
        changed
    );
}

#[test]
fn a_namespace_sees_only_what_it_has_shown_the_bytes_of() {
    let f = fixture();
    let b = Scope::new("b");
    let digest = f.store.write(&a(), b"shared", Labels::new()).unwrap();
    assert_eq!(kind(f.store.info(&b, &digest)), Some(Kind::NotFound));
    assert_eq!(kind(f.store.reader(&b, &digest)), Some(Kind::NotFound));
    let writer = f.store.writer(&b, "r", 0, Some(&digest)).unwrap();
    assert_eq!(
        kind(writer.commit(None, Some(&digest), Labels::new())),
        Some(Kind::FailedPrecondition)
    );
    f.store.write(&b, b"shared", Labels::new()).unwrap();
    f.store.delete(&a(), &digest).unwrap();
    assert_eq!(f.store.read(&b, &digest, 100).unwrap(), b"shared");
    f.store.delete(&b, &digest).unwrap();
    assert!(f.files("blobs/sha256").is_empty());
}

#[test]
fn what_exists_is_refused_and_held_by_the_lease() {
    let f = fixture();
    let digest = f.store.write(&a(), b"x", Labels::new()).unwrap();
    let lease = lease::create(&f.metadata, &a(), "l", Labels::new()).unwrap();
    let scope = a().with_lease(lease.id);
    assert_eq!(
        kind(f.store.writer(&scope, "r", 0, Some(&digest))),
        Some(Kind::AlreadyExists)
    );
    let held = lease::resources(&f.metadata, &a(), "l").unwrap();
    assert_eq!(
        held.iter()
            .map(|r| (r.r#type.as_str(), r.id.as_str()))
            .collect::<Vec<_>>(),
        [("content", digest.as_str())]
    );
    let mut writer = f.store.writer(&scope, "r", 0, None).unwrap();
    writer.append(b"x").unwrap();
    assert_eq!(
        kind(writer.commit(None, None, Labels::new())),
        Some(Kind::AlreadyExists)
    );
    assert!(f.store.statuses(&a()).unwrap().is_empty());
}

#[test]
fn what_a_crash_leaves_is_removed_on_open() {
    let f = fixture();
    let kept = f.store.write(&a(), b"kept", Labels::new()).unwrap();
    let content = f.directory.path().join("content");
    let put = |path: &Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"left").unwrap();
    };
    put(&content.join("blobs/sha256").join(Digest::of(b"left").hex()));
    put(&content.join("ingest/0123/data"));
    let f = f.reopen();
    assert_eq!(f.files("blobs/sha256"), [kept.hex()]);
    assert!(f.files("ingest").is_empty());
}

#[test]
fn sha512_is_verified_as_well() {
    let f = fixture();
    let mut hasher = crate::digest::Hasher::new(crate::digest::Algorithm::Sha512);
    hasher.update(b"x");
    let digest = hasher.finish();
    let mut writer = f.store.writer(&a(), "r", 0, Some(&digest)).unwrap();
    writer.append(b"x").unwrap();
    assert_eq!(writer.commit(None, Some(&digest), Labels::new()).unwrap(), digest);
    assert_eq!(f.store.read(&a(), &digest, 1).unwrap(), b"x");
}
