//! The file, its journal, and when a commit is safe. One writer at a time; readers see a snapshot and wait for nobody.
//!
//! A transaction is appended to the journal and committed in memory; a durable one then waits until a flush covers its
//! sequence number. Whoever waits first flushes for all who are waiting, so concurrent commits share a flush.
//!
//! When the disk fails, nothing in memory is trusted any more: the file is opened again, as after a crash. Commits that
//! wait are told that they failed, and are not in it, but for those that a lazy one came after: that was told to be safe,
//! and may build on them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redb::{Database, Durability, ReadableDatabase};

use super::{
    Key, META, Meta, file,
    journal::{Journal, Record},
    transaction::{Read as _, ReadTxn, WriteTxn, failed},
};
use crate::error::{Error, Kind, Result};

/// The version of the tables and rows. A file with another version is refused.
const SCHEMA: u64 = 1;
/// How long a lazy commit stays out of the file at most.
const LAZY_FLUSH: Duration = Duration::from_secs(1);

/// When a write transaction is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// On disk when it returns.
    Durable,
    /// Survives kill -9; power loss within a second may take it (whole), unless a durable commit follows, which carries
    /// all earlier ones with it. Waits for no disk.
    Lazy,
}

/// The metadata of one instance.
pub struct Store {
    path: PathBuf,
    db: Mutex<Open>,
    journal: Mutex<Journal>,
    flush: Mutex<Flush>,
    flushed: Condvar,
}

/// The file as it was opened last.
#[derive(Clone)]
struct Open {
    db: Arc<Database>,
    /// How often it was opened again.
    epoch: u64,
    /// Whether the disk failed since.
    failed: bool,
}

/// A transaction's place in the order.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u64,
    epoch: u64,
}

#[derive(Debug)]
struct Flush {
    /// The last sequence number committed in memory.
    committed: u64,
    /// The last one on disk.
    durable: u64,
    /// Whether somebody is flushing.
    running: bool,
    /// [`Open::epoch`], to whose commits the numbers belong.
    epoch: u64,
    /// What ended the epoch before.
    failure: Option<(Kind, String)>,
}

impl Store {
    /// Opens or creates `metadata.redb` and `metadata.journal` in the directory `root`. Blocks; recovers after a crash.
    ///
    /// # Errors
    ///
    /// `Unknown` when they cannot be opened, `FailedPrecondition` when they have another schema.
    pub fn open(root: &Path) -> Result<Arc<Self>> {
        let path = root.join("metadata.redb");
        let db = file::open(&path)?;
        let (mut journal, records) = Journal::open(&root.join("metadata.journal"))?;
        let durable = recover(&db, &records).map_err(|error| error.context(path.display()))?;
        journal.empty()?;
        journal.sync()?;
        let flush = Flush {
            committed: durable,
            durable,
            running: false,
            epoch: 0,
            failure: None,
        };
        let open = Open {
            db: Arc::new(db),
            epoch: 0,
            failed: false,
        };
        let store = Arc::new(Self {
            path,
            db: Mutex::new(open),
            journal: Mutex::new(journal),
            flush: Mutex::new(flush),
            flushed: Condvar::new(),
        });
        let weak = Arc::downgrade(&store);
        std::thread::Builder::new()
            .name("metadata-flush".into())
            .spawn(move || flush_lazily(&weak))
            .map_err(|source| Error::io("start the metadata flusher", source))?;
        Ok(store)
    }

    /// Runs `work` on a consistent view.
    ///
    /// # Errors
    ///
    /// Those of `work`, or `Unknown` from the file.
    pub fn read<T>(&self, work: impl FnOnce(&ReadTxn) -> Result<T>) -> Result<T> {
        let open = self.opened()?;
        work(&ReadTxn(open.db.begin_read().map_err(failed("read"))?))
    }

    /// Runs `work` and commits what it did; an error from `work` leaves no trace. Blocks for the writers before it, and
    /// for the disk when `commit` is durable. `work` must not call the store again.
    ///
    /// # Errors
    ///
    /// Those of `work`; `ResourceExhausted` or `Unknown` from the disk.
    pub fn write<T>(&self, commit: Commit, work: impl FnOnce(&mut WriteTxn) -> Result<T>) -> Result<T> {
        let (open, txn) = self.begin()?;
        let mut txn = WriteTxn {
            txn,
            changes: Vec::new(),
        };
        let value = work(&mut txn)?;
        if txn.changes.is_empty() {
            return Ok(value);
        }
        let place = self.commit(txn, open.epoch, commit)?;
        if commit == Commit::Durable {
            self.flush_through(place)?;
        }
        Ok(value)
    }

    /// Waits until everything committed so far is on disk.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` or `Unknown` from the disk.
    pub fn sync(&self) -> Result<()> {
        let place = {
            let flush = self.flush();
            Place {
                sequence: flush.committed,
                epoch: flush.epoch,
            }
        };
        self.flush_through(place)
    }

    /// The file; opened again, when the disk failed.
    fn opened(&self) -> Result<Open> {
        let open = self.db.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !open.failed {
            return Ok(open);
        }
        self.open_again(open.epoch)?;
        Ok(self.db.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Begins to write. redb refuses that for good after the disk failed, also where it failed in reading.
    fn begin(&self) -> Result<(Open, redb::WriteTransaction)> {
        let open = self.opened()?;
        match open.db.begin_write() {
            Ok(txn) => return Ok((open, txn)),
            Err(error) => self.fail(open.epoch, &failed("write")(error)),
        }
        let open = self.opened()?;
        let txn = open.db.begin_write().map_err(failed("write"))?;
        Ok((open, txn))
    }

    /// Notes that the disk failed the file as it was opened in `epoch`.
    fn fail(&self, epoch: u64, error: &Error) {
        let mut open = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        if open.epoch == epoch && !open.failed {
            open.failed = true;
            self.flush().failure = Some((error.kind(), error.to_string()));
        }
    }

    /// Opens the file again, as it is on the disk, and brings what the journal keeps into it.
    fn open_again(&self, epoch: u64) -> Result<()> {
        // Before the journal's, as nobody commits without that.
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if self.db.lock().unwrap_or_else(PoisonError::into_inner).epoch != epoch {
            return Ok(());
        }
        let records = journal.drop_unkept()?;
        let db = file::open(&self.path)?;
        let durable = recover(&db, &records).map_err(|error| error.context(self.path.display()))?;
        let mut open = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let mut flush = self.flush();
        *open = Open {
            db: Arc::new(db),
            epoch: epoch + 1,
            failed: false,
        };
        flush.epoch = epoch + 1;
        flush.committed = durable;
        flush.durable = durable;
        drop((open, flush));
        self.flushed.notify_all();
        tracing::warn!(path = %self.path.display(), "opened the metadata again, after the disk failed");
        journal.trim(durable)
    }

    fn flush(&self) -> MutexGuard<'_, Flush> {
        self.flush.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Journals `txn` and commits it in memory; returns its sequence number. The writer lock that `txn` holds keeps the
    /// order of sequence numbers, journal and commits the same.
    fn commit(&self, mut txn: WriteTxn, epoch: u64, commit: Commit) -> Result<Place> {
        let changes = std::mem::take(&mut txn.changes);
        let sequence = self.flush().committed + 1;
        txn.put(
            META,
            &Key::new(&["sequence"])?,
            &Meta {
                number: sequence,
                ..Meta::default()
            },
        )?;
        txn.txn
            .set_durability(Durability::None)
            .map_err(|error| Error::unknown("write metadata", error))?;
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if self.flush().epoch != epoch {
            return Err(self.lost());
        }
        let (length, last) = journal.position();
        journal.append(&Record { sequence, changes })?;
        // The sequence number is published before the writer lock goes with the commit: the next writer, and a flush,
        // must not take the same one.
        let published = self.publish(sequence);
        if let Err(error) = txn.txn.commit() {
            self.publish(published);
            let error = failed("commit")(error);
            self.fail(epoch, &error);
            return match journal.take_back(length, last) {
                Ok(()) => Err(error),
                Err(second) => Err(error.context(second)),
            };
        }
        if commit == Commit::Lazy {
            journal.keep();
        }
        Ok(Place { sequence, epoch })
    }

    fn publish(&self, sequence: u64) -> u64 {
        std::mem::replace(&mut self.flush().committed, sequence)
    }

    /// Why a commit is not there.
    fn lost(&self) -> Error {
        match &self.flush().failure {
            Some((kind, text)) => Error::new(*kind, format!("the metadata was not written: {text}")),
            None => Error::unavailable("the metadata was not written"),
        }
    }

    /// Waits until `place` is on disk, flushing if nobody else does.
    fn flush_through(&self, place: Place) -> Result<()> {
        let mut flush = self.flush();
        loop {
            if flush.epoch != place.epoch {
                drop(flush);
                return Err(self.lost());
            }
            if flush.durable >= place.sequence {
                return Ok(());
            }
            if flush.running {
                flush = self.flushed.wait(flush).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            flush.running = true;
            drop(flush);
            let outcome = self.flush_now();
            flush = self.flush();
            flush.running = false;
            if let Ok(covered) = outcome
                && flush.epoch == covered.epoch
            {
                flush.durable = flush.durable.max(covered.sequence);
            }
            self.flushed.notify_all();
            outcome?;
        }
    }

    /// One flush: an empty transaction that carries every commit before it to the disk.
    fn flush_now(&self) -> Result<Place> {
        let (open, txn) = self.begin()?;
        // Under the writer lock, so every sequence number up to this one is committed.
        let covered = {
            let flush = self.flush();
            Place {
                sequence: flush.committed,
                epoch: flush.epoch,
            }
        };
        if let Err(error) = txn.commit() {
            let error = failed("flush")(error);
            self.fail(open.epoch, &error);
            // At once: nobody may see what did not happen. Where that fails too, it is tried by whoever comes next.
            return match self.opened() {
                Ok(_) => Err(error),
                Err(second) => Err(error.context(second)),
            };
        }
        if covered.epoch == open.epoch {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            if self.flush().epoch == open.epoch {
                journal.trim(covered.sequence)?;
            }
        }
        Ok(covered)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.sync() {
            tracing::error!(%error, "metadata was not flushed; the journal keeps it");
        }
    }
}

/// Checks the schema and applies the records that follow the file's last sequence number. Returns the new last.
fn recover(db: &Database, records: &[Record]) -> Result<u64> {
    let mut txn = WriteTxn {
        txn: db.begin_write().map_err(failed("recover"))?,
        changes: Vec::new(),
    };
    let schema = Key::new(&["schema"])?;
    match txn.get(META, &schema)?.map(|meta| meta.number) {
        None => txn.put(
            META,
            &schema,
            &Meta {
                number: SCHEMA,
                ..Meta::default()
            },
        )?,
        Some(SCHEMA) => {}
        Some(other) => {
            return Err(Error::precondition(format!(
                "schema {other} found, this version reads {SCHEMA}"
            )));
        }
    }
    let key = Key::new(&["sequence"])?;
    let mut sequence = txn.get(META, &key)?.map_or(0, |meta| meta.number);
    for record in records {
        if record.sequence <= sequence {
            continue;
        }
        if record.sequence != sequence + 1 {
            break;
        }
        for change in &record.changes {
            txn.apply(change)?;
        }
        sequence = record.sequence;
    }
    txn.put(
        META,
        &key,
        &Meta {
            number: sequence,
            ..Meta::default()
        },
    )?;
    txn.txn.commit().map_err(failed("recover"))?;
    Ok(sequence)
}

/// Flushes lazy commits once a second, until the store is gone.
fn flush_lazily(store: &Weak<Store>) {
    loop {
        std::thread::sleep(LAZY_FLUSH);
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.sync() {
            tracing::error!(%error, "flush metadata");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::NAMESPACES;
    use wharf_proto::containerd::services::namespaces::v1::Namespace;

    fn put(store: &Store, commit: Commit, name: &str) {
        let row = Namespace {
            name: name.to_owned(),
            ..Namespace::default()
        };
        store
            .write(commit, |txn| txn.put(NAMESPACES, &Key::new(&[name])?, &row))
            .unwrap();
    }

    fn names(store: &Store) -> Vec<String> {
        let rows = store
            .read(|txn| txn.scan(NAMESPACES, &Key::prefix(&[])?))
            .unwrap();
        rows.into_iter().map(|(_, row)| row.name).collect()
    }

    /// What kill -9 leaves: the files as they are while the store is open.
    fn copy(from: &Path, to: &Path) {
        for name in ["metadata.redb", "metadata.journal"] {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }

    #[test]
    fn lazy_commits_survive_a_kill_and_durable_ones_the_loss_of_the_journal() {
        let (live, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(live.path()).unwrap();
        put(&store, Commit::Durable, "a");
        put(&store, Commit::Lazy, "b");
        put(&store, Commit::Lazy, "c");
        copy(live.path(), killed.path());
        assert_eq!(names(&Store::open(killed.path()).unwrap()), ["a", "b", "c"]);

        put(&store, Commit::Durable, "d");
        copy(live.path(), killed.path());
        std::fs::write(killed.path().join("metadata.journal"), b"").unwrap();
        assert_eq!(names(&Store::open(killed.path()).unwrap()), ["a", "b", "c", "d"]);
    }

    #[test]
    fn an_error_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let result: Result<()> = store.write(Commit::Durable, |txn| {
            txn.put(NAMESPACES, &Key::new(&["x"])?, &Namespace::default())?;
            Err(Error::invalid("no"))
        });
        assert!(result.is_err());
        assert!(names(&store).is_empty());
        drop(store);
        assert!(names(&Store::open(dir.path()).unwrap()).is_empty());
    }

    #[test]
    fn concurrent_commits_are_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for index in 0..20 {
                        let commit = if index % 2 == 0 {
                            Commit::Durable
                        } else {
                            Commit::Lazy
                        };
                        put(store, commit, &format!("{thread}-{index:02}"));
                    }
                });
            }
        });
        drop(store);
        assert_eq!(names(&Store::open(dir.path()).unwrap()).len(), 80);
    }

    #[test]
    fn what_could_not_be_flushed_is_gone_and_what_was_told_to_be_safe_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        put(&store, Commit::Durable, "durable");
        put(&store, Commit::Lazy, "lazy");
        let unflushed = || {
            let (open, txn) = store.begin().unwrap();
            let mut txn = WriteTxn {
                txn,
                changes: Vec::new(),
            };
            txn.put(
                NAMESPACES,
                &Key::new(&["unflushed"]).unwrap(),
                &Namespace::default(),
            )
            .unwrap();
            store.commit(txn, open.epoch, Commit::Durable).unwrap()
        };
        let place = unflushed();
        store.fail(0, &Error::new(Kind::ResourceExhausted, "no space"));
        assert_eq!(names(&store), ["durable", "lazy"]);
        let error = store.flush_through(place).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);

        // A lazy commit may build on one before it.
        let place = unflushed();
        put(&store, Commit::Lazy, "on it");
        store.fail(1, &Error::new(Kind::Unknown, "EIO"));
        assert!(store.flush_through(place).is_err());
        assert_eq!(names(&store).len(), 4);
        put(&store, Commit::Durable, "after");
        drop(store);
        assert_eq!(names(&Store::open(dir.path()).unwrap()).len(), 5);
    }

    #[test]
    fn another_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .write(Commit::Durable, |txn| {
                txn.put(
                    META,
                    &Key::new(&["schema"])?,
                    &Meta {
                        number: 99,
                        ..Meta::default()
                    },
                )
            })
            .unwrap();
        drop(store);
        assert!(Store::open(dir.path()).is_err_and(|error| error.kind() == crate::Kind::FailedPrecondition));
    }
}
