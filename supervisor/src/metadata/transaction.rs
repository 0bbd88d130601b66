//! What can be done inside a transaction: rows, typed by their table.

use prost::Message;
use redb::{ReadableTable, TableError};

use super::{
    Key,
    journal::Change,
    table::{Definition, Table},
};
use crate::error::{Error, Result};

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

    /// Whether a key begins with `prefix`.
    ///
    /// # Errors
    ///
    /// As [`Read::get`].
    fn any<R>(&self, table: Table<R>, prefix: &Key) -> Result<bool>;
}

/// A consistent view.
pub struct ReadTxn(pub(super) redb::ReadTransaction);

/// A change in progress; dropped without commit it never happened.
pub struct WriteTxn {
    pub(super) txn: redb::WriteTransaction,
    pub(super) changes: Vec<Change>,
}

/// Maps an error of redb: the disk's own errors keep their meaning.
pub(super) fn failed<E: Into<redb::Error>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |error| match error.into() {
        redb::Error::Io(source) => Error::io(format!("{operation} metadata"), source),
        other => Error::unknown(format!("{operation} metadata"), other),
    }
}

impl ReadTxn {
    fn open(
        &self,
        definition: Definition<'_>,
    ) -> Result<Option<impl ReadableTable<&'static [u8], &'static [u8]>>> {
        match self.0.open_table(definition) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed("read")(error)),
        }
    }
}

impl Read for ReadTxn {
    fn get<R: Message + Default>(&self, table: Table<R>, key: &Key) -> Result<Option<R>> {
        self.open(table.definition())?
            .map_or(Ok(None), |table| get(&table, key))
    }

    fn scan<R: Message + Default>(&self, table: Table<R>, prefix: &Key) -> Result<Vec<(Key, R)>> {
        self.open(table.definition())?
            .map_or(Ok(Vec::new()), |table| scan(&table, prefix))
    }

    fn any<R>(&self, table: Table<R>, prefix: &Key) -> Result<bool> {
        self.open(table.definition())?
            .map_or(Ok(false), |table| any(&table, prefix))
    }
}

impl Read for WriteTxn {
    fn get<R: Message + Default>(&self, table: Table<R>, key: &Key) -> Result<Option<R>> {
        get(
            &self.txn.open_table(table.definition()).map_err(failed("read"))?,
            key,
        )
    }

    fn scan<R: Message + Default>(&self, table: Table<R>, prefix: &Key) -> Result<Vec<(Key, R)>> {
        scan(
            &self.txn.open_table(table.definition()).map_err(failed("read"))?,
            prefix,
        )
    }

    fn any<R>(&self, table: Table<R>, prefix: &Key) -> Result<bool> {
        any(
            &self.txn.open_table(table.definition()).map_err(failed("read"))?,
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
        let change = Change {
            table: table.name.to_owned(),
            key: key.as_bytes().to_vec(),
            row: Some(row.encode_to_vec()),
        };
        self.apply(&change)?;
        self.changes.push(change);
        Ok(())
    }

    /// Removes the row at `key`; says whether there was one.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file.
    pub fn delete<R>(&mut self, table: Table<R>, key: &Key) -> Result<bool> {
        let change = Change {
            table: table.name.to_owned(),
            key: key.as_bytes().to_vec(),
            row: None,
        };
        let existed = self.apply(&change)?;
        if existed {
            self.changes.push(change);
        }
        Ok(existed)
    }

    /// Removes all rows whose key begins with `prefix`.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file.
    pub fn delete_all<R: Message + Default>(&mut self, table: Table<R>, prefix: &Key) -> Result<()> {
        for (key, _) in self.scan(table, prefix)? {
            self.delete(table, &key)?;
        }
        Ok(())
    }

    /// Performs one change; says whether the key had a row before.
    pub(super) fn apply(&mut self, change: &Change) -> Result<bool> {
        let mut table = self
            .txn
            .open_table(Definition::new(&change.table))
            .map_err(failed("write"))?;
        let before = match &change.row {
            Some(row) => table.insert(change.key.as_slice(), row.as_slice()),
            None => table.remove(change.key.as_slice()),
        };
        Ok(before.map_err(failed("write"))?.is_some())
    }
}

type Rows<'a> = &'a dyn RowsOf;
/// Takes key and row; says whether to go on.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<bool>;

/// The two calls on a redb table that are needed here, whichever kind of transaction it belongs to.
trait RowsOf {
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn each(&self, prefix: &[u8], visit: Visit<'_>) -> Result<()>;
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> RowsOf for T {
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self
            .get(key)
            .map_err(failed("read"))?
            .map(|row| row.value().to_vec()))
    }

    fn each(&self, prefix: &[u8], visit: Visit<'_>) -> Result<()> {
        for entry in self.range(prefix..).map_err(failed("read"))? {
            let (key, row) = entry.map_err(failed("read"))?;
            if !key.value().starts_with(prefix) || !visit(key.value(), row.value())? {
                break;
            }
        }
        Ok(())
    }
}

fn decode<R: Message + Default>(bytes: &[u8]) -> Result<R> {
    R::decode(bytes).map_err(|error| Error::unknown("decode a metadata row", error))
}

fn get<R: Message + Default>(table: Rows<'_>, key: &Key) -> Result<Option<R>> {
    table.row(key.as_bytes())?.map(|row| decode(&row)).transpose()
}

fn scan<R: Message + Default>(table: Rows<'_>, prefix: &Key) -> Result<Vec<(Key, R)>> {
    let mut rows = Vec::new();
    table.each(prefix.as_bytes(), &mut |key, row| {
        rows.push((Key::from_bytes(key), decode(row)?));
        Ok(true)
    })?;
    Ok(rows)
}

fn any(table: Rows<'_>, prefix: &Key) -> Result<bool> {
    let mut found = false;
    table.each(prefix.as_bytes(), &mut |_, _| {
        found = true;
        Ok(false)
    })?;
    Ok(found)
}
