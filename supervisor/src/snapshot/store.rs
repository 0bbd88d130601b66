//! Snapshots by namespace: keys, kinds, parents and labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use wharf_proto::{
    any,
    containerd::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove},
};

use super::{
    About, DEFAULT, Info, Kind, Loaded, Made, Mount, Snapshotter, Stack, Usage,
    place::{Place, info},
};
use crate::{
    error::{Error, Result},
    event,
    identifier::{self, Labels},
    lease,
    metadata::{self, Commit, Key, META, Meta, Read as _, SNAPSHOT_CHILDREN, SNAPSHOTS, Snapshot},
    namespace::{self, Scope},
    time,
};

mod sweep;

/// The label by which a client names the committed snapshot that it wants to make: if that exists, the work is done.
pub(super) const TARGET: &str = "containerd.io/snapshot.ref";

/// The fact that keeps the last number in use.
const LAST: &str = "snapshot";

/// The snapshots of all namespaces. The snapshotter `""` is the default one.
pub struct Store {
    metadata: Arc<metadata::Store>,
    events: Arc<event::Exchange>,
    snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Those that cannot be used here, and why.
    skipped: BTreeMap<String, Error>,
    /// External ones that did not answer yet: what they keep of earlier daemons is not known.
    unswept: Mutex<BTreeSet<String>>,
    next: AtomicU64,
    /// Numbers that are being made: they have no row yet, and must not be cleaned up.
    making: Mutex<BTreeSet<u64>>,
}

/// A number without a row, until dropped.
struct Making<'a> {
    store: &'a Store,
    number: u64,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.store
            .making
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

impl Store {
    /// Opens the store over the given snapshotters, and removes what a crash left in them.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata or the disk.
    pub fn open(
        metadata: Arc<metadata::Store>,
        events: Arc<event::Exchange>,
        loaded: Loaded,
    ) -> Result<Self> {
        let last = metadata
            .read(|txn| txn.get(META, &Key::new(&[LAST])?))?
            .map_or(0, |row| row.number);
        let Loaded {
            snapshotters,
            skipped,
        } = loaded;
        let store = Self {
            metadata,
            events,
            unswept: Mutex::new(snapshotters.keys().cloned().collect()),
            snapshotters,
            skipped,
            next: AtomicU64::new(last + 1),
            making: Mutex::default(),
        };
        for name in store.snapshotters.keys() {
            match store.sweep(name) {
                // An external one may come later; what it keeps is looked at before it is used.
                Err(error) if error.kind() == crate::Kind::Unavailable => {
                    tracing::warn!(snapshotter = name, %error, "snapshotter cannot be reached");
                }
                other => other?,
            }
        }
        Ok(store)
    }

    /// The snapshotters: their names with what is told about them, or why they cannot be used here.
    pub fn snapshotters(&self) -> impl Iterator<Item = (&str, std::result::Result<About, &Error>)> {
        let usable = self
            .snapshotters
            .iter()
            .map(|(name, driver)| (name.as_str(), Ok(driver.about())));
        let skipped = self
            .skipped
            .iter()
            .map(|(name, error)| (name.as_str(), Err(error)));
        usable.chain(skipped)
    }

    /// Makes a writable snapshot on `parent` (empty: on nothing), adds it to the scope's lease and says how to mount it.
    /// Waits for no disk flush.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` for `key`, or for the target that the label `containerd.io/snapshot.ref` names; `NotFound` for
    /// `parent`; `InvalidArgument` when `parent` is not committed, for a label, or (as for all calls) for an unknown
    /// snapshotter.
    pub fn prepare(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        let mounts = self.create(scope, snapshotter, key, parent, labels, Kind::Active)?;
        let event = SnapshotPrepare {
            key: key.to_owned(),
            parent: parent.to_owned(),
            snapshotter: named(snapshotter).to_owned(),
        };
        self.events
            .publish(&scope.namespace, "/snapshot/prepare", any::pack(&event));
        Ok(mounts)
    }

    /// Makes a read-only snapshot on `parent` and says how to mount it.
    ///
    /// # Errors
    ///
    /// As [`Store::prepare`].
    pub fn view(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.create(scope, snapshotter, key, parent, labels, Kind::View)
    }

    fn create(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        parent: &str,
        mut labels: Labels,
        kind: Kind,
    ) -> Result<Vec<Mount>> {
        let place = self.place(scope, snapshotter)?;
        place.key(key)?;
        identifier::validate_labels(&labels)?;
        identifier::drop_empty(&mut labels);
        self.sweep(place.name)?;
        self.refuse_existing(scope, &place, key, labels.get(TARGET))?;
        let parents = self.metadata.read(|txn| {
            place.require_committed(txn, parent)?;
            place.chain(txn, parent)
        })?;
        let making = self.number();
        let stack = Stack {
            number: making.number,
            parents: &parents,
            kind,
            namespace: place.namespace,
            labels: &labels,
        };
        if let Made::Existing(usage) = place.driver.create(stack)? {
            return Err(self.adopt(scope, &place, stack.number, parent, labels, usage));
        }
        let now = Some(time::now());
        let row = Snapshot {
            number: stack.number,
            parent: parent.to_owned(),
            kind: kind.into(),
            labels: labels.clone(),
            created_at: now,
            updated_at: now,
            ..Snapshot::default()
        };
        let stored = self.metadata.write(Commit::Lazy, |txn| {
            // Both were checked before the directory was made, but without holding up anybody.
            if txn.get(SNAPSHOTS, &place.key(key)?)?.is_some() {
                return Err(Error::already_exists(format!("snapshot {key:?}")));
            }
            place.require_committed(txn, parent)?;
            namespace::ensure(txn, place.namespace)?;
            lease::hold(txn, scope, &lease::snapshots(place.name), key)?;
            let last = Key::new(&[LAST])?;
            let number = txn.get(META, &last)?.map_or(0, |row| row.number).max(row.number);
            txn.put(
                META,
                &last,
                &Meta {
                    number,
                    ..Meta::default()
                },
            )?;
            place.put(txn, key, &row)
        });
        match stored {
            Ok(()) => place.driver.mounts(stack),
            Err(error) => match place.driver.remove(stack.number) {
                Ok(()) => Err(error),
                Err(second) => Err(error.context(second)),
            },
        }
    }

    /// Takes a snapshot into the namespace that an external snapshotter had already; says so to who wanted to make it.
    fn adopt(
        &self,
        scope: &Scope,
        place: &Place<'_>,
        number: u64,
        parent: &str,
        labels: Labels,
        usage: Usage,
    ) -> Error {
        let Some(target) = labels.get(TARGET).cloned() else {
            return Error::new(
                crate::Kind::Unknown,
                "snapshot without a target exists in the snapshotter",
            );
        };
        let now = Some(time::now());
        let row = Snapshot {
            number,
            parent: parent.to_owned(),
            kind: Kind::Committed.into(),
            labels,
            created_at: now,
            updated_at: now,
            size: usage.size,
            inodes: usage.inodes,
        };
        let stored = self.metadata.write(Commit::Durable, |txn| {
            lease::hold(txn, scope, &lease::snapshots(place.name), &target)?;
            if txn.get(SNAPSHOTS, &place.key(&target)?)?.is_some() {
                return Ok(false);
            }
            place.require_committed(txn, parent)?;
            namespace::ensure(txn, place.namespace)?;
            place.put(txn, &target, &row).map(|()| true)
        });
        let error = match stored {
            Ok(true) => return Error::already_exists(format!("target snapshot {target:?} from snapshotter")),
            Ok(false) => Error::already_exists(format!("target snapshot {target:?}")),
            Err(error) => error,
        };
        match place.driver.remove(number) {
            Ok(()) => error,
            Err(second) => error.context(second),
        }
    }

    /// Refuses a key or target that exists, after adding it to the lease: the caller will go on to use it.
    fn refuse_existing(
        &self,
        scope: &Scope,
        place: &Place<'_>,
        key: &str,
        target: Option<&String>,
    ) -> Result<()> {
        let found = self.metadata.read(|txn| {
            for name in target.map(String::as_str).into_iter().chain([key]) {
                if txn.get(SNAPSHOTS, &place.key(name)?)?.is_some() {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        })?;
        let Some(name) = found else { return Ok(()) };
        if scope.lease.is_some() {
            self.metadata.write(Commit::Lazy, |txn| {
                lease::hold(txn, scope, &lease::snapshots(place.name), name)
            })?;
        }
        let what = if name == key {
            "snapshot"
        } else {
            "target snapshot"
        };
        Err(Error::already_exists(format!("{what} {name:?}")))
    }

    /// How to mount the active snapshot or view `key`.
    ///
    /// # Errors
    ///
    /// `NotFound`; `FailedPrecondition` for a committed one.
    pub fn mounts(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<Vec<Mount>> {
        let place = self.place(scope, snapshotter)?;
        let (row, parents) = self.metadata.read(|txn| {
            let row = place.row(txn, key)?;
            let parents = place.chain(txn, &row.parent)?;
            Ok((row, parents))
        })?;
        if row.kind() == Kind::Committed {
            return Err(Error::precondition(format!(
                "snapshot {key} is committed: it has no mounts of its own"
            )));
        }
        place.driver.mounts(Stack {
            number: row.number,
            parents: &parents,
            kind: row.kind(),
            namespace: place.namespace,
            labels: &row.labels,
        })
    }

    /// Whether snapshots of `snapshotter` may be filled before their parents are there, and put on them by
    /// [`Store::rebase`].
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an unknown snapshotter.
    pub fn keeps_layers_apart(&self, snapshotter: &str) -> Result<bool> {
        Ok(self.driver(named(snapshotter))?.keeps_layers_apart())
    }

    /// Puts the active snapshot `key`, which was made without a parent, on the committed `parent`. Waits for no disk flush.
    ///
    /// # Errors
    ///
    /// `NotFound` for either; `FailedPrecondition` when `key` is not active or has a parent, or when the snapshotter's
    /// snapshots hold more than their own layer.
    pub fn rebase(&self, scope: &Scope, snapshotter: &str, key: &str, parent: &str) -> Result<()> {
        let place = self.place(scope, snapshotter)?;
        if !place.driver.keeps_layers_apart() {
            return Err(Error::precondition(format!(
                "snapshots of {} cannot change their parent",
                place.name
            )));
        }
        self.metadata.write(Commit::Lazy, |txn| {
            let mut row = place.row(txn, key)?;
            if row.kind() != Kind::Active || !row.parent.is_empty() {
                return Err(Error::precondition(format!(
                    "snapshot {key} is not an active one without parent"
                )));
            }
            place.require_committed(txn, parent)?;
            place.chain(txn, parent)?;
            row.parent = parent.to_owned();
            place.put(txn, key, &row)
        })
    }

    /// Turns the active snapshot `key` into the committed `name` with `labels`, durably, its files included. One that was
    /// made on nothing gets `parent` as its parent, if that is not empty.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` for `name`; `NotFound`; `FailedPrecondition` when `key` is not active; `InvalidArgument` for another
    /// parent than it has.
    pub fn commit(
        &self,
        scope: &Scope,
        snapshotter: &str,
        name: &str,
        key: &str,
        parent: &str,
        mut labels: Labels,
    ) -> Result<()> {
        let place = self.place(scope, snapshotter)?;
        identifier::validate_labels(&labels)?;
        identifier::drop_empty(&mut labels);
        let (before, parents) = self.metadata.read(|txn| {
            let row = place.committable(txn, name, key, parent)?;
            let parents = place.chain(
                txn,
                if row.parent.is_empty() {
                    parent
                } else {
                    &row.parent
                },
            )?;
            Ok((row, parents))
        })?;
        let rebased = before.parent.is_empty() && !parent.is_empty();
        let stack = Stack {
            number: before.number,
            parents: &parents,
            kind: Kind::Active,
            namespace: place.namespace,
            labels: &labels,
        };
        let usage = place.driver.seal(stack, rebased)?;
        self.metadata.write(Commit::Durable, |txn| {
            let old = place.committable(txn, name, key, parent)?;
            let now = Some(time::now());
            let row = Snapshot {
                kind: Kind::Committed.into(),
                parent: if rebased {
                    parent.to_owned()
                } else {
                    old.parent.clone()
                },
                labels: labels.clone(),
                created_at: now,
                updated_at: now,
                size: usage.size,
                inodes: usage.inodes,
                ..old
            };
            place.delete(txn, key, &old)?;
            place.put(txn, name, &row)?;
            let kind = lease::snapshots(place.name);
            lease::drop_hold(txn, scope, &kind, key)?;
            lease::hold(txn, scope, &kind, name)
        })?;
        let event = SnapshotCommit {
            key: key.to_owned(),
            name: name.to_owned(),
            snapshotter: place.name.to_owned(),
        };
        self.events
            .publish(&scope.namespace, "/snapshot/commit", any::pack(&event));
        Ok(())
    }

    /// Removes a snapshot without children. Durable; its files go after that.
    ///
    /// # Errors
    ///
    /// `NotFound`; `FailedPrecondition` when it has children.
    pub fn remove(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<()> {
        let place = self.place(scope, snapshotter)?;
        let children = Key::prefix(&[place.namespace, place.name, key])?;
        let number = self.metadata.write(Commit::Durable, |txn| {
            let row = place.row(txn, key)?;
            if txn.any(SNAPSHOT_CHILDREN, &children)? {
                return Err(Error::precondition("cannot remove snapshot with child"));
            }
            place.delete(txn, key, &row)?;
            lease::drop_hold(txn, scope, &lease::snapshots(place.name), key)?;
            Ok(row.number)
        })?;
        if let Err(error) = place.driver.remove(number) {
            // The snapshot is gone for everybody; its files are removed by the next cleanup.
            tracing::warn!(key, %error, "remove the files of a snapshot");
        }
        let event = SnapshotRemove {
            key: key.to_owned(),
            snapshotter: place.name.to_owned(),
        };
        self.events
            .publish(&scope.namespace, "/snapshot/remove", any::pack(&event));
        Ok(())
    }

    /// What `key` is.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn stat(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<Info> {
        let place = self.place(scope, snapshotter)?;
        Ok(info(key, self.metadata.read(|txn| place.row(txn, key))?))
    }

    /// Changes the labels of `key` by `change`; empty values are removed. Durable.
    ///
    /// # Errors
    ///
    /// `NotFound`, those of `change`, `InvalidArgument` for a label that is too long.
    pub fn update(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        change: impl FnOnce(&mut Labels) -> Result<()>,
    ) -> Result<Info> {
        let place = self.place(scope, snapshotter)?;
        let row = self.metadata.write(Commit::Durable, |txn| {
            let mut row = place.row(txn, key)?;
            change(&mut row.labels)?;
            identifier::validate_labels(&row.labels)?;
            identifier::drop_empty(&mut row.labels);
            row.updated_at = Some(time::now());
            txn.put(SNAPSHOTS, &place.key(key)?, &row)?;
            Ok(row)
        })?;
        Ok(info(key, row))
    }

    /// All snapshots of the namespace, by name.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn list(&self, scope: &Scope, snapshotter: &str) -> Result<Vec<Info>> {
        let place = self.place(scope, snapshotter)?;
        let prefix = Key::prefix(&[place.namespace, place.name])?;
        let rows = self.metadata.read(|txn| txn.scan(SNAPSHOTS, &prefix))?;
        rows.into_iter()
            .map(|(key, row)| Ok(info(key.parts()?.last().copied().unwrap_or_default(), row)))
            .collect()
    }

    /// What `key` takes on disk; walks the tree of an active one.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn usage(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<Usage> {
        let place = self.place(scope, snapshotter)?;
        let (row, parents) = self.metadata.read(|txn| {
            let row = place.row(txn, key)?;
            let parents = place.chain(txn, &row.parent)?;
            Ok((row, parents))
        })?;
        match row.kind() {
            Kind::Committed => Ok(Usage {
                size: row.size,
                inodes: row.inodes,
            }),
            Kind::Active => place.driver.usage(Stack {
                number: row.number,
                parents: &parents,
                kind: Kind::Active,
                namespace: place.namespace,
                labels: &row.labels,
            }),
            Kind::View | Kind::Unknown => Ok(Usage::default()),
        }
    }

    fn driver(&self, name: &str) -> Result<&dyn Snapshotter> {
        match self.snapshotters.get(name) {
            Some(driver) => Ok(driver.as_ref()),
            None => Err(Error::invalid(format!("snapshotter not loaded: {name}"))),
        }
    }

    fn place<'a>(&'a self, scope: &'a Scope, snapshotter: &'a str) -> Result<Place<'a>> {
        let name = named(snapshotter);
        Ok(Place {
            namespace: &scope.namespace,
            name,
            driver: self.driver(name)?,
        })
    }

    fn number(&self) -> Making<'_> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        making.insert(number);
        Making { store: self, number }
    }
}

fn named(snapshotter: &str) -> &str {
    if snapshotter.is_empty() {
        DEFAULT
    } else {
        snapshotter
    }
}
