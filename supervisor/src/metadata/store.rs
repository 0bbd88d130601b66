//! The file, its journal, and when a commit is safe. One writer at a time; readers see a snapshot and wait for nobody.
//!
//! A transaction is appended to the journal and committed in memory; a durable one then waits until a flush covers its
//! sequence number. Whoever waits first flushes for all who are waiting, so concurrent commits share a flush.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    time::Duration,
};

use redb::{Database, Durability, ReadableDatabase, backends::FileBackend};

use super::{
    Key, META, Meta,
    journal::{Journal, Record},
    transaction::{Read as _, ReadTxn, WriteTxn, failed},
};
use crate::error::{Error, Result};

/// The version of the tables and rows. A file with another version is refused.
const SCHEMA: u64 = 1;
/// redb's page cache; the rows of thousands of images fit.
const CACHE_BYTES: usize = 4 << 20;
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
    db: Database,
    journal: Mutex<Journal>,
    flush: Mutex<Flush>,
    flushed: Condvar,
}

#[derive(Debug)]
struct Flush {
    /// The last sequence number committed in memory.
    committed: u64,
    /// The last one on disk.
    durable: u64,
    /// Whether somebody is flushing.
    running: bool,
}

impl Store {
    /// Opens or creates `metadata.redb` and `metadata.journal` in the directory `root`. Blocks; recovers after a crash.
    ///
    /// # Errors
    ///
    /// `Unknown` when they cannot be opened, `FailedPrecondition` when they have another schema.
    pub fn open(root: &Path) -> Result<Arc<Self>> {
        let path = root.join("metadata.redb");
        // Specs of containers carry secrets in their environment: nobody else reads the file.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| Error::io(format!("open {}", path.display()), source))?;
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(FileBackend::new(file).map_err(failed("open"))?)
            .map_err(|error| Error::unknown(format!("open {}", path.display()), error))?;
        let (mut journal, records) = Journal::open(&root.join("metadata.journal"))?;
        let durable = recover(&db, &records).map_err(|error| error.context(path.display()))?;
        journal.trim(u64::MAX)?;
        journal.sync()?;
        let flush = Flush {
            committed: durable,
            durable,
            running: false,
        };
        let store = Arc::new(Self {
            db,
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
        work(&ReadTxn(self.db.begin_read().map_err(failed("read"))?))
    }

    /// Runs `work` and commits what it did; an error from `work` leaves no trace. Blocks for the writers before it, and
    /// for the disk when `commit` is durable. `work` must not call the store again.
    ///
    /// # Errors
    ///
    /// Those of `work`; `ResourceExhausted` or `Unknown` from the disk.
    pub fn write<T>(&self, commit: Commit, work: impl FnOnce(&mut WriteTxn) -> Result<T>) -> Result<T> {
        let txn = self.db.begin_write().map_err(failed("write"))?;
        let mut txn = WriteTxn {
            txn,
            changes: Vec::new(),
        };
        let value = work(&mut txn)?;
        if txn.changes.is_empty() {
            return Ok(value);
        }
        let sequence = self.commit(txn)?;
        if commit == Commit::Durable {
            self.flush_through(sequence)?;
        }
        Ok(value)
    }

    /// Waits until everything committed so far is on disk.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` or `Unknown` from the disk.
    pub fn sync(&self) -> Result<()> {
        let committed = self
            .flush
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .committed;
        self.flush_through(committed)
    }

    /// Journals `txn` and commits it in memory; returns its sequence number. The writer lock that `txn` holds keeps the
    /// order of sequence numbers, journal and commits the same.
    fn commit(&self, mut txn: WriteTxn) -> Result<u64> {
        let changes = std::mem::take(&mut txn.changes);
        let sequence = self
            .flush
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .committed
            + 1;
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
        let (length, last) = journal.position();
        journal.append(&Record { sequence, changes })?;
        // The sequence number is published before the writer lock goes with the commit: the next writer, and a flush,
        // must not take the same one.
        let published = self.publish(sequence);
        if let Err(error) = txn.txn.commit() {
            self.publish(published);
            let error = failed("commit")(error);
            return match journal.take_back(length, last) {
                Ok(()) => Err(error),
                Err(second) => Err(error.context(second)),
            };
        }
        Ok(sequence)
    }

    fn publish(&self, sequence: u64) -> u64 {
        let mut flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut flush.committed, sequence)
    }

    /// Waits until `sequence` is on disk, flushing if nobody else does.
    fn flush_through(&self, sequence: u64) -> Result<()> {
        let mut flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        while flush.durable < sequence {
            if flush.running {
                flush = self.flushed.wait(flush).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            flush.running = true;
            drop(flush);
            let outcome = self.flush_now();
            flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
            flush.running = false;
            if let Ok(covered) = outcome {
                flush.durable = flush.durable.max(covered);
            }
            self.flushed.notify_all();
            outcome?;
        }
        Ok(())
    }

    /// One flush: an empty transaction that carries every commit before it to the disk.
    fn flush_now(&self) -> Result<u64> {
        let txn = self.db.begin_write().map_err(failed("flush"))?;
        // Under the writer lock, so every sequence number up to this one is committed.
        let covered = self
            .flush
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .committed;
        txn.commit().map_err(failed("flush"))?;
        self.journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trim(covered)?;
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
