//! The journal that lets a commit skip the disk flush and still survive kill -9: `<root>/metadata.journal`.
//!
//! ```text
//! record = length u32 LE (of what follows) │ checksum [8] (first bytes of SHA-256 of the payload) │ payload (Record)
//! file   = record … │ end u32 (zero, written with the record before it)
//! ```
//!
//! Every transaction is appended (into the page cache) before it is committed in memory; a flush of the metadata file
//! makes the records up to its sequence number worthless, and when all are the next one is written at the beginning again. On
//! open the records that follow the file's last durable sequence number without a gap are applied again. Behind the end there
//! are pieces of older ones, which nobody reads: what a client has named could look like a record there. Power loss may take
//! the tail or bring old records back: both are told by checksum and sequence number.

use std::{
    fs::{File, OpenOptions},
    io::Read as _,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use prost::Message;
use sha2::Digest as _;

use crate::error::{Error, Result};

const HEAD: usize = 4 + 8;

/// Follows the last record: no record is that short.
const END: [u8; 4] = [0; 4];

/// A longer file is emptied when none of its records is worth anything. Others are written over: that takes the file system less.
const LONG: u64 = 1 << 20;

/// One transaction.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// Its sequence number.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// What it did, in order.
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<Change>,
}

/// One row put or deleted.
#[derive(Clone, PartialEq, Message)]
pub struct Change {
    /// The table.
    #[prost(string, tag = "1")]
    pub table: String,
    /// The key.
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    /// The row; absent: deleted.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub row: Option<Vec<u8>>,
}

/// The open journal.
pub struct Journal {
    file: File,
    length: u64,
    last: u64,
    /// The position after the last record that somebody was told is safe.
    kept: (u64, u64),
}

impl Journal {
    /// Opens or creates the journal and reads the records in it.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk. A damaged tail is not an error: it ends the list.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>)> {
        let failed = |source| Error::io(format!("open {}", path.display()), source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let length = bytes.len() as u64;
        let records = parse(&bytes);
        let last = records.last().map_or(0, |record| record.sequence);
        let journal = Self {
            file,
            length,
            last,
            kept: (length, last),
        };
        Ok((journal, records))
    }

    /// Appends one transaction. Into the page cache: no flush.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` when the disk is full; the journal is as before.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let payload = record.encode_to_vec();
        let length =
            u32::try_from(8 + payload.len()).map_err(|_| Error::invalid("transaction larger than 4 GiB"))?;
        let mut bytes = Vec::with_capacity(HEAD + payload.len() + END.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&checksum(&payload));
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&END);
        if let Err(source) = self.file.write_all_at(&bytes, self.length) {
            // What was written of it fails its checksum; the next record overwrites it.
            return Err(Error::io("append to the metadata journal", source));
        }
        self.length += (bytes.len() - END.len()) as u64;
        self.last = record.sequence;
        Ok(())
    }

    /// Takes back the last `append`, made when the journal was `length` bytes long.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn take_back(&mut self, length: u64, last: u64) -> Result<()> {
        self.file
            .set_len(length)
            .map_err(|source| Error::io("shorten the metadata journal", source))?;
        self.length = length;
        self.last = last;
        Ok(())
    }

    /// The last record will be told to be safe: it stays, with all before it.
    pub fn keep(&mut self) {
        self.kept = self.position();
    }

    /// Drops the records after the last one that was told to be safe; gives those that are left.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn drop_unkept(&mut self) -> Result<Vec<Record>> {
        let (length, last) = self.kept;
        self.take_back(length, last)?;
        let mut bytes =
            vec![0; usize::try_from(length).map_err(|error| Error::unknown("read the journal", error))?];
        self.file
            .read_exact_at(&mut bytes, 0)
            .map_err(|source| Error::io("read the metadata journal", source))?;
        Ok(parse(&bytes))
    }

    /// Length in bytes and sequence number of the last record, for [`Journal::take_back`].
    pub fn position(&self) -> (u64, u64) {
        (self.length, self.last)
    }

    /// Begins anew if all records are durable in the metadata file.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn trim(&mut self, durable: u64) -> Result<()> {
        if self.last <= durable && self.length > 0 {
            if self.length > LONG {
                return self.empty();
            }
            self.length = 0;
            self.keep();
        }
        Ok(())
    }

    /// Empties the journal, whose records are all durable in the metadata file.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn empty(&mut self) -> Result<()> {
        self.take_back(0, self.last)?;
        self.keep();
        Ok(())
    }

    /// Waits until an emptied journal is so on disk as well.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|source| Error::io("flush the metadata journal", source))
    }
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let digest = sha2::Sha256::digest(payload);
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest[..8]);
    sum
}

/// The intact records from the start.
fn parse(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*head) as usize;
        let Some((body, rest)) = rest.split_at_checked(length) else {
            break;
        };
        let Some((sum, payload)) = body.split_first_chunk::<8>() else {
            break;
        };
        if *sum != checksum(payload) {
            break;
        }
        let Ok(record) = Record::decode(payload) else {
            break;
        };
        records.push(record);
        bytes = rest;
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64) -> Record {
        let change = Change {
            table: "t".into(),
            key: vec![1],
            row: Some(vec![2; 100]),
        };
        Record {
            sequence,
            changes: vec![change],
        }
    }

    #[test]
    fn a_damaged_tail_ends_the_list_and_loses_nothing_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, records) = Journal::open(&path).unwrap();
        assert!(records.is_empty());
        journal.append(&record(1)).unwrap();
        journal.append(&record(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let records = whole.len() - END.len();
        let one = records / 2;
        for cut in one..records {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(Journal::open(&path).unwrap().1, [record(1)], "cut at {cut}");
        }
        let mut flipped = whole.clone();
        flipped[one + 20] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [record(1)]);
    }

    #[test]
    fn trimming_waits_for_the_last_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&record(1)).unwrap();
        journal.append(&record(2)).unwrap();
        journal.trim(1).unwrap();
        journal.append(&record(3)).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [record(1), record(2), record(3)]);
        journal.trim(3).unwrap();
        journal.append(&record(4)).unwrap();
        // What follows is older, and whole but for its first bytes.
        assert_eq!(Journal::open(&path).unwrap().1, [record(4)]);
        journal.append(&record(5)).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [record(4), record(5)]);
        journal.empty().unwrap();
        assert!(Journal::open(&path).unwrap().1.is_empty());
    }

    #[test]
    fn a_long_journal_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let mut large = record(1);
        large.changes[0].row = Some(vec![7; LONG as usize]);
        journal.append(&large).unwrap();
        journal.trim(1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
