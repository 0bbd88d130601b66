//! Transactions over the file. One writer at a time; readers see a snapshot and wait for nobody.

use std::path::Path;

use prost::Message;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableError};

use super::{Key, META, Meta, table::Table};
use crate::error::{Error, Result};

/// The version of the tables and rows. A file with another version is refused.
const SCHEMA: u64 = 1;
/// redb's page cache; the rows of thousands of images fit.
const CACHE_BYTES: usize = 4 << 20;

/// When a write transaction is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// On disk when it returns.
    Durable,
    /// Survives kill -9; power loss may take it (whole) until the next durable commit. Waits for no disk.
    Lazy,
}

/// The metadata file.
pub struct Store {
    db: Database,
}

/// What read and write transactions have in common. All calls are in memory or page cache.
pub trait Read {
    /// The row at `key`.
    ///
    /// # Errors
    ///
    /// `Unknown` when the file cannot be read or the row cannot be decoded.
    fn get<R: Message + Default>(&self, table: Table<R>, key: &Key) -> Result<Option<R>>;

    /// All rows whose key begins with `prefix` (see [`Key::prefix`]), in key order.
    ///
    /// # Errors
    ///
    /// As [`Read::get`].
    fn scan<R: Message + Default>(&self, table: Table<R>, prefix: &Key) -> Result<Vec<(Key, R)>>;
}

/// A consistent view.
pub struct ReadTxn(redb::ReadTransaction);

/// A change in progress; dropped without commit it never happened.
pub struct WriteTxn(redb::WriteTransaction);

fn failed(operation: &'static str) -> impl Fn(redb::Error) -> Error {
    move |error| match error {
        redb::Error::Io(source) => Error::io(format!("{operation} metadata"), source),
        other => Error::unknown(format!("{operation} metadata"), other),
    }
}

fn decode<R: Message + Default>(bytes: &[u8]) -> Result<R> {
    R::decode(bytes).map_err(|error| Error::unknown("decode a metadata row", error))
}

impl Store {
    /// Opens or creates the file at `path`. Blocks; recovers after a crash.
    ///
    /// # Errors
    ///
    /// `Unknown` when it cannot be opened, `FailedPrecondition` when it has another schema.
    pub fn open(path: &Path) -> Result<Self> {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| Error::unknown(format!("open metadata {}", path.display()), error))?;
        let store = Self { db };
        store.write(Commit::Durable, |txn| {
            let key = Key::new(&["schema"])?;
            match txn.get(META, &key)? {
                None => txn.put(
                    META,
                    &key,
                    &Meta {
                        number: SCHEMA,
                        ..Meta::default()
                    },
                ),
                Some(found) if found.number == SCHEMA => Ok(()),
                Some(found) => Err(Error::precondition(format!(
                    "metadata {} has schema {}, this version reads {SCHEMA}",
                    path.display(),
                    found.number
                ))),
            }
        })?;
        Ok(store)
    }

    /// Runs `work` on a consistent view.
    ///
    /// # Errors
    ///
    /// Those of `work`, or `Unknown` from the file.
    pub fn read<T>(&self, work: impl FnOnce(&ReadTxn) -> Result<T>) -> Result<T> {
        let txn = self
            .db
            .begin_read()
            .map_err(|error| failed("read")(error.into()))?;
        work(&ReadTxn(txn))
    }

    /// Runs `work` and commits what it did; an error from `work` leaves no trace. Blocks for the writers before it, and
    /// for the disk when `commit` is durable. `work` must not call the store again.
    ///
    /// # Errors
    ///
    /// Those of `work`; `ResourceExhausted` or `Unknown` from the file.
    pub fn write<T>(&self, commit: Commit, work: impl FnOnce(&mut WriteTxn) -> Result<T>) -> Result<T> {
        let mut txn = self
            .db
            .begin_write()
            .map_err(|error| failed("write")(error.into()))?;
        if commit == Commit::Lazy {
            txn.set_durability(Durability::None)
                .map_err(|error| Error::unknown("write metadata", error))?;
        }
        let mut txn = WriteTxn(txn);
        let value = work(&mut txn)?;
        txn.0.commit().map_err(|error| failed("commit")(error.into()))?;
        Ok(value)
    }
}

impl Read for ReadTxn {
    fn get<R: Message + Default>(&self, table: Table<R>, key: &Key) -> Result<Option<R>> {
        match self.0.open_table(table.definition) {
            Ok(table) => get(&table, key),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed("read")(error.into())),
        }
    }

    fn scan<R: Message + Default>(&self, table: Table<R>, prefix: &Key) -> Result<Vec<(Key, R)>> {
        match self.0.open_table(table.definition) {
            Ok(table) => scan(&table, prefix),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(failed("read")(error.into())),
        }
    }
}

impl Read for WriteTxn {
    fn get<R: Message + Default>(&self, table: Table<R>, key: &Key) -> Result<Option<R>> {
        get(
            &self
                .0
                .open_table(table.definition)
                .map_err(|error| failed("read")(error.into()))?,
            key,
        )
    }

    fn scan<R: Message + Default>(&self, table: Table<R>, prefix: &Key) -> Result<Vec<(Key, R)>> {
        scan(
            &self
                .0
                .open_table(table.definition)
                .map_err(|error| failed("read")(error.into()))?,
            prefix,
        )
    }
}

impl WriteTxn {
    /// Inserts or replaces the row at `key`.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file.
    pub fn put<R: Message>(&mut self, table: Table<R>, key: &Key, row: &R) -> Result<()> {
        let mut table = self
            .0
            .open_table(table.definition)
            .map_err(|error| failed("write")(error.into()))?;
        table
            .insert(key.as_bytes(), row.encode_to_vec().as_slice())
            .map_err(|error| failed("write")(error.into()))?;
        Ok(())
    }

    /// Removes the row at `key`; says whether there was one.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file.
    pub fn delete<R>(&mut self, table: Table<R>, key: &Key) -> Result<bool> {
        let mut table = self
            .0
            .open_table(table.definition)
            .map_err(|error| failed("write")(error.into()))?;
        let removed = table
            .remove(key.as_bytes())
            .map_err(|error| failed("write")(error.into()))?;
        Ok(removed.is_some())
    }
}

fn get<R: Message + Default>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &Key,
) -> Result<Option<R>> {
    let found = table
        .get(key.as_bytes())
        .map_err(|error| failed("read")(error.into()))?;
    found.map(|bytes| decode(bytes.value())).transpose()
}

fn scan<R: Message + Default>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &Key,
) -> Result<Vec<(Key, R)>> {
    let mut rows = Vec::new();
    let range = table
        .range(prefix.as_bytes()..)
        .map_err(|error| failed("read")(error.into()))?;
    for entry in range {
        let (key, value) = entry.map_err(|error| failed("read")(error.into()))?;
        if !key.value().starts_with(prefix.as_bytes()) {
            break;
        }
        rows.push((Key::from_bytes(key.value()), decode(value.value())?));
    }
    Ok(rows)
}
