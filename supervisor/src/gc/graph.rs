//! What refers to what.
//!
//! ```text
//! image     → target                       container → its snapshot
//! snapshot  → parent                       lease     → its resources (with `containerd.io/gc.flat`: and no further)
//! ingest    → the blob it will be          lease     → the mounts that were activated under it
//! any label containerd.io/gc.ref.content[./]…                = digest
//!           containerd.io/gc.ref.snapshot.<snapshotter>[/…]  = key
//!           containerd.io/gc.ref.image[./]…                  = name
//!           containerd.io/gc.ref.mount[./]…                  = name
//!           containerd.io/gc.bref.…  the same, and container[./]… = id, the other way round: the named object keeps this one
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::{Error, Kind, Result},
    identifier::Labels,
    lease,
    metadata::{
        CONTAINER_REFERENCES, CONTENT, IMAGES, INGESTS, Ingest, Key, LEASE_RESOURCES, LEASES, MOUNTS, Phase,
        Read, SNAPSHOTS,
    },
};

const ROOT: &str = "containerd.io/gc.root";
const FLAT: &str = "containerd.io/gc.flat";
const REFERENCE: &str = "containerd.io/gc.ref.";
const BACK_REFERENCE: &str = "containerd.io/gc.bref.";
/// How long an ingest without a lease is kept.
const INGEST_HOURS: i64 = 24;

/// When an ingest is not kept any more, unless a lease holds it; `None` when it has no beginning.
pub fn end(row: &Ingest) -> Option<jiff::Timestamp> {
    let started = row.started_at.as_ref()?.seconds;
    jiff::Timestamp::from_second(started.saturating_add(INGEST_HOURS * 3600)).ok()
}

/// Something that can be garbage, or is told to keep what can.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields are the parts of the row's key")]
pub enum Node {
    Content {
        namespace: String,
        digest: String,
    },
    Snapshot {
        namespace: String,
        snapshotter: String,
        key: String,
    },
    Image {
        namespace: String,
        name: String,
    },
    Ingest {
        namespace: String,
        reference: String,
    },
    Mount {
        namespace: String,
        name: String,
    },
    /// Never garbage.
    Container {
        namespace: String,
        id: String,
    },
}

impl Node {
    fn content(namespace: &str, digest: &str) -> Self {
        Self::Content {
            namespace: namespace.to_owned(),
            digest: digest.to_owned(),
        }
    }

    fn snapshot(namespace: &str, snapshotter: &str, key: &str) -> Self {
        Self::Snapshot {
            namespace: namespace.to_owned(),
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        }
    }

    fn image(namespace: &str, name: &str) -> Self {
        Self::Image {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn mount(namespace: &str, name: &str) -> Self {
        Self::Mount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn container(namespace: &str, id: &str) -> Self {
        Self::Container {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
        }
    }

    fn ingest(namespace: &str, reference: &str) -> Self {
        Self::Ingest {
            namespace: namespace.to_owned(),
            reference: reference.to_owned(),
        }
    }
}

/// Roots and edges.
#[derive(Debug, Default)]
pub struct Graph {
    roots: Vec<Node>,
    /// Kept, but what they refer to is not.
    flat: Vec<Node>,
    edges: BTreeMap<Node, Vec<Node>>,
}

impl Graph {
    /// Reads all roots and edges.
    ///
    /// # Errors
    ///
    /// `Unknown` when a row cannot be read.
    pub fn read(txn: &impl Read, now: jiff::Timestamp) -> Result<Self> {
        let mut graph = Self::default();
        graph.images(txn, now)?;
        graph.containers(txn)?;
        graph.content(txn)?;
        graph.snapshots(txn)?;
        graph.ingests(txn, now)?;
        graph.mounts(txn)?;
        graph.leases(txn)?;
        Ok(graph)
    }

    /// All that can be garbage.
    ///
    /// # Errors
    ///
    /// `Unknown` when a row cannot be read.
    pub fn all(txn: &impl Read) -> Result<Vec<Node>> {
        let everything = Key::prefix(&[])?;
        let mut all = Vec::new();
        for (key, ()) in txn.scan(CONTENT.keys(), &everything)? {
            let [namespace, digest] = parts(&key)?;
            all.push(Node::content(namespace, digest));
        }
        for (key, ()) in txn.scan(SNAPSHOTS.keys(), &everything)? {
            let [namespace, snapshotter, key] = parts(&key)?;
            all.push(Node::snapshot(namespace, snapshotter, key));
        }
        for (key, ()) in txn.scan(IMAGES.keys(), &everything)? {
            let [namespace, name] = parts(&key)?;
            all.push(Node::image(namespace, name));
        }
        for (key, ()) in txn.scan(INGESTS.keys(), &everything)? {
            let [namespace, reference] = parts(&key)?;
            all.push(Node::ingest(namespace, reference));
        }
        for (key, ()) in txn.scan(MOUNTS.keys(), &everything)? {
            let [namespace, name] = parts(&key)?;
            all.push(Node::mount(namespace, name));
        }
        Ok(all)
    }

    /// All that the roots reach.
    pub fn reach(self) -> BTreeSet<Node> {
        let mut reached = BTreeSet::new();
        let mut pending = self.roots;
        while let Some(node) = pending.pop() {
            if let Some(next) = self.edges.get(&node)
                && !reached.contains(&node)
            {
                pending.extend(next.iter().cloned());
            }
            reached.insert(node);
        }
        reached.extend(self.flat);
        reached
    }

    fn edge(&mut self, from: &Node, to: Node) {
        self.edges.entry(from.clone()).or_default().push(to);
    }

    /// The edges that the labels of `node` say; `None`: of a root that is no node itself.
    fn labels(&mut self, namespace: &str, node: Option<&Node>, labels: &Labels) {
        for (key, value) in labels {
            if let Some(target) = key
                .strip_prefix(REFERENCE)
                .and_then(|kind| named(namespace, kind, value))
            {
                match node {
                    Some(node) => self.edge(node, target),
                    None => self.roots.push(target),
                }
            }
            if let (Some(keeper), Some(node)) = (
                key.strip_prefix(BACK_REFERENCE)
                    .and_then(|kind| named(namespace, kind, value)),
                node,
            ) {
                self.edge(&keeper, node.clone());
            }
        }
    }

    fn images(&mut self, txn: &impl Read, now: jiff::Timestamp) -> Result<()> {
        for (key, row) in txn.scan(IMAGES, &Key::prefix(&[])?)? {
            let [namespace, name] = parts(&key)?;
            let node = Node::image(namespace, name);
            if let Some(target) = &row.target {
                self.edge(&node, Node::content(namespace, &target.digest));
            }
            self.labels(namespace, Some(&node), &row.labels);
            let kept = match row.labels.get(lease::EXPIRE) {
                // A time that cannot be read is no reason to lose an image.
                Some(expire) => lease::parse_expire(expire).map_or(true, |at| at > now),
                None => true,
            };
            if kept {
                self.roots.push(node);
            }
        }
        Ok(())
    }

    fn containers(&mut self, txn: &impl Read) -> Result<()> {
        for (key, row) in txn.scan(CONTAINER_REFERENCES, &Key::prefix(&[])?)? {
            let [namespace, id] = parts(&key)?;
            self.roots.push(Node::container(namespace, id));
            if !row.snapshot_key.is_empty() {
                self.roots
                    .push(Node::snapshot(namespace, &row.snapshotter, &row.snapshot_key));
            }
            self.labels(namespace, None, &row.labels);
        }
        Ok(())
    }

    fn content(&mut self, txn: &impl Read) -> Result<()> {
        for (key, row) in txn.scan(CONTENT, &Key::prefix(&[])?)? {
            let [namespace, digest] = parts(&key)?;
            let node = Node::content(namespace, digest);
            self.labels(namespace, Some(&node), &row.labels);
            if row.labels.contains_key(ROOT) {
                self.roots.push(node);
            }
        }
        Ok(())
    }

    fn snapshots(&mut self, txn: &impl Read) -> Result<()> {
        for (key, row) in txn.scan(SNAPSHOTS, &Key::prefix(&[])?)? {
            let [namespace, snapshotter, key] = parts(&key)?;
            let node = Node::snapshot(namespace, snapshotter, key);
            if !row.parent.is_empty() {
                self.edge(&node, Node::snapshot(namespace, snapshotter, &row.parent));
            }
            self.labels(namespace, Some(&node), &row.labels);
            if row.labels.contains_key(ROOT) {
                self.roots.push(node);
            }
        }
        Ok(())
    }

    fn ingests(&mut self, txn: &impl Read, now: jiff::Timestamp) -> Result<()> {
        for (key, row) in txn.scan(INGESTS, &Key::prefix(&[])?)? {
            let [namespace, reference] = parts(&key)?;
            let node = Node::ingest(namespace, reference);
            if !row.expected.is_empty() {
                self.edge(&node, Node::content(namespace, &row.expected));
            }
            if end(&row).is_some_and(|end| now < end) {
                self.roots.push(node);
            }
        }
        Ok(())
    }

    fn mounts(&mut self, txn: &impl Read) -> Result<()> {
        for (key, row) in txn.scan(MOUNTS, &Key::prefix(&[])?)? {
            let [namespace, name] = parts(&key)?;
            let node = Node::mount(namespace, name);
            if let Some(info) = &row.info {
                self.labels(namespace, Some(&node), &info.labels);
            }
            let is_leased =
                !row.lease.is_empty() && txn.get(LEASES, &Key::new(&[namespace, &row.lease])?)?.is_some();
            // A pending one is not yet in anybody's hands.
            if row.phase() == Phase::Pending || is_leased {
                self.roots.push(node);
            }
        }
        Ok(())
    }

    fn leases(&mut self, txn: &impl Read) -> Result<()> {
        let mut flat = BTreeSet::new();
        for (key, row) in txn.scan(LEASES, &Key::prefix(&[])?)? {
            let [namespace, id] = parts(&key)?;
            if row.labels.contains_key(FLAT) {
                flat.insert((namespace.to_owned(), id.to_owned()));
            }
            self.labels(namespace, None, &row.labels);
        }
        for (key, ()) in txn.scan(LEASE_RESOURCES, &Key::prefix(&[])?)? {
            let [namespace, lease, kind, id] = parts(&key)?;
            let node = match kind {
                lease::CONTENT => Node::content(namespace, id),
                lease::INGESTS => Node::ingest(namespace, id),
                lease::IMAGES => Node::image(namespace, id),
                _ => match kind.strip_prefix("snapshots/") {
                    Some(snapshotter) => Node::snapshot(namespace, snapshotter, id),
                    None => {
                        return Err(Error::new(
                            Kind::Unknown,
                            format!("lease {lease:?} holds a {kind:?}"),
                        ));
                    }
                },
            };
            if flat.contains(&(namespace.to_owned(), lease.to_owned())) {
                self.flat.push(node);
            } else {
                self.roots.push(node);
            }
        }
        Ok(())
    }
}

/// The node that a label names: `kind` is what follows `containerd.io/gc.ref.`.
fn named(namespace: &str, kind: &str, value: &str) -> Option<Node> {
    let is = |name: &str| {
        kind.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    };
    if is("content") {
        return Some(Node::content(namespace, value));
    }
    if is("image") {
        return Some(Node::image(namespace, value));
    }
    if is("mount") {
        return Some(Node::mount(namespace, value));
    }
    if is("container") {
        return Some(Node::container(namespace, value));
    }
    let snapshotter = kind.strip_prefix("snapshot.")?;
    let snapshotter = snapshotter.split_once('/').map_or(snapshotter, |(name, _)| name);
    Some(Node::snapshot(namespace, snapshotter, value))
}

fn parts<const N: usize>(key: &Key) -> Result<[&str; N]> {
    key.parts()?
        .try_into()
        .map_err(|_| Error::new(Kind::Unknown, "malformed metadata key"))
}
