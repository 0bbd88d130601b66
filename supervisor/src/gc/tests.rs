//! What is kept, and what is not.

use wharf_proto::containerd::types::Descriptor;

use super::*;
use crate::{
    Config,
    identifier::Labels,
    image::{self, Image},
    namespace::Scope,
};

struct Fixture {
    _directory: tempfile::TempDir,
    daemon: Daemon,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        root: directory.path().join("root"),
        state: directory.path().join("state"),
        address: directory.path().join("socket"),
        ..Config::default()
    };
    std::fs::create_dir(&config.root).unwrap();
    std::fs::create_dir(&config.state).unwrap();
    Fixture {
        daemon: Daemon::open(&config).unwrap(),
        _directory: directory,
    }
}

fn a() -> Scope {
    Scope::new("a")
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

impl Fixture {
    fn blob(&self, bytes: &str, labels: Labels) -> Digest {
        self.daemon.content.write(&a(), bytes.as_bytes(), labels).unwrap()
    }

    fn image(&self, name: &str, target: &Digest, labels: Labels) {
        let target = Descriptor {
            media_type: "application/x".into(),
            digest: target.to_string(),
            size: 1,
            ..Descriptor::default()
        };
        let image = Image {
            name: name.into(),
            target: Some(target),
            labels,
            ..Image::default()
        };
        image::create(&self.daemon, &a(), image, None).unwrap();
    }

    /// The contents of the blobs that are left, and the keys of the snapshots.
    fn left(&self) -> (Vec<String>, Vec<String>) {
        collect(&self.daemon).unwrap();
        let mut blobs: Vec<_> = self
            .daemon
            .content
            .list(&a())
            .unwrap()
            .iter()
            .map(|info| String::from_utf8(self.daemon.content.read(&a(), &info.digest, 99).unwrap()).unwrap())
            .collect();
        blobs.sort();
        let snapshots = self
            .daemon
            .snapshots
            .list(&a(), "")
            .unwrap()
            .into_iter()
            .map(|info| info.name)
            .collect();
        (blobs, snapshots)
    }

    fn blobs(&self) -> Vec<String> {
        self.left().0
    }
}

#[test]
fn an_image_keeps_what_its_content_refers_to_until_it_is_deleted() {
    let f = fixture();
    let layer = f.blob("layer", Labels::new());
    let config = f.blob(
        "config",
        labels([("containerd.io/gc.ref.snapshot.overlayfs", "top")]),
    );
    let manifest = f.blob(
        "manifest",
        labels([
            ("containerd.io/gc.ref.content.l.0", layer.as_str()),
            ("containerd.io/gc.ref.content.config", config.as_str()),
        ]),
    );
    f.blob("garbage", Labels::new());
    let snapshots = &f.daemon.snapshots;
    for (name, parent) in [("base", ""), ("top", "base"), ("other", "base")] {
        snapshots.prepare(&a(), "", "k", parent, Labels::new()).unwrap();
        snapshots.commit(&a(), "", name, "k", "", Labels::new()).unwrap();
    }
    f.image("i", &manifest, Labels::new());
    assert_eq!(
        f.left(),
        (
            vec!["config".into(), "layer".into(), "manifest".into()],
            vec!["base".into(), "top".into()]
        )
    );
    image::delete(&f.daemon, &a(), "i", None).unwrap();
    assert_eq!(f.left(), (vec![], vec![]));
}

#[test]
fn a_lease_keeps_what_it_holds_and_an_expired_one_does_not() {
    let f = fixture();
    let inner = f.blob("inner", Labels::new());
    let outer = f.blob(
        "outer",
        labels([("containerd.io/gc.ref.content", inner.as_str())]),
    );
    let held = |id: &str, with: Labels| {
        lease::create(&f.daemon.metadata, &a(), id, with).unwrap();
        let resource = lease::Resource {
            id: outer.to_string(),
            r#type: "content".into(),
        };
        lease::add_resource(&f.daemon.metadata, &a(), id, &resource).unwrap();
    };
    held("l", Labels::new());
    assert_eq!(f.blobs(), ["inner", "outer"]);
    held("flat", labels([("containerd.io/gc.flat", "1")]));
    lease::delete(&f.daemon.metadata, &a(), "l").unwrap();
    assert_eq!(f.blobs(), ["outer"]);
    held("old", labels([(lease::EXPIRE, "2020-01-01T00:00:00Z")]));
    lease::delete(&f.daemon.metadata, &a(), "flat").unwrap();
    assert!(f.blobs().is_empty());
    assert!(lease::list(&f.daemon.metadata, &a()).unwrap().is_empty());
}

#[test]
fn roots_containers_and_back_references_keep() {
    let f = fixture();
    let root = f.blob("root", labels([("containerd.io/gc.root", "now")]));
    f.blob(
        "attached",
        labels([("containerd.io/gc.bref.content", root.as_str())]),
    );
    f.blob("unattached", labels([("containerd.io/gc.bref.image", "none")]));
    f.daemon
        .snapshots
        .prepare(&a(), "", "used", "", Labels::new())
        .unwrap();
    f.daemon
        .snapshots
        .prepare(&a(), "", "unused", "", Labels::new())
        .unwrap();
    let container = crate::container::Container {
        id: "c".into(),
        snapshotter: "overlayfs".into(),
        snapshot_key: "used".into(),
        runtime: Some(
            wharf_proto::containerd::services::containers::v1::container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: None,
            },
        ),
        spec: Some(prost_types::Any::default()),
        ..Default::default()
    };
    crate::container::create(&f.daemon, &a(), container).unwrap();
    assert_eq!(
        f.left(),
        (vec!["attached".into(), "root".into()], vec!["used".into()])
    );
    crate::container::delete(&f.daemon, &a(), "c").unwrap();
    assert!(f.left().1.is_empty());
}

#[test]
fn an_expired_image_goes_and_ingests_stay() {
    let f = fixture();
    let old = f.blob("old", Labels::new());
    let new = f.blob("new", Labels::new());
    f.image("old", &old, labels([(lease::EXPIRE, "2020-01-01T00:00:00Z")]));
    f.image("new", &new, labels([(lease::EXPIRE, "2999-01-01T00:00:00Z")]));
    f.daemon
        .content
        .writer(&a(), "r", 0, None)
        .unwrap()
        .append(b"x")
        .unwrap();
    assert_eq!(f.blobs(), ["new"]);
    assert_eq!(f.daemon.content.status(&a(), "r").unwrap().offset, 1);
}

#[test]
fn what_ends_by_itself_is_due_then() {
    let f = fixture();
    let ever = jiff::Timestamp::UNIX_EPOCH;
    let due = || super::is_due(&f.daemon, ever).unwrap();
    let lease = |id: &str, end: &str| {
        let labels = labels([(lease::EXPIRE, end)]);
        lease::create(&f.daemon.metadata, &a(), id, labels).unwrap();
    };
    let target = f.blob("target", Labels::new());
    lease("new", "2999-01-01T00:00:00Z");
    f.image("new", &target, labels([(lease::EXPIRE, "2999-01-01T00:00:00Z")]));
    assert!(!due());
    lease("old", "2020-01-01T00:00:00Z");
    assert!(due());
    super::collect(&f.daemon).unwrap();
    assert!(!due());
    f.image("old", &target, labels([(lease::EXPIRE, "2020-01-01T00:00:00Z")]));
    assert!(due());
    // One that somebody else keeps is looked at once.
    assert!(!super::is_due(&f.daemon, "2021-01-01T00:00:00Z".parse().unwrap()).unwrap());
    super::collect(&f.daemon).unwrap();
    assert!(!due());
}

#[test]
fn the_lease_of_an_operation_that_ended_goes_when_the_disk_takes_it() {
    let f = fixture();
    let held = lease::Held::new(&f.daemon, &a(), Labels::new()).unwrap();
    f.daemon
        .content
        .write(&held.scope, b"half", Labels::new())
        .unwrap();
    lease::create(&f.daemon.metadata, &a(), "other", Labels::new()).unwrap();
    super::collect(&f.daemon).unwrap();
    assert_eq!(f.blobs(), ["half"]);
    let id = held.scope.lease.clone().unwrap();
    f.daemon.ended_leases().insert(("a".to_owned(), id));
    assert_eq!(super::collect(&f.daemon).unwrap().leases, 1);
    assert!(f.blobs().is_empty());
    assert!(f.daemon.ended_leases().is_empty());
    assert!(lease::resources(&f.daemon.metadata, &a(), "other").is_ok());
}
