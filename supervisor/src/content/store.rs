//! The store's interface.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Info, Status};
use crate::{
    digest::Digest,
    error::{Error, Result},
    identifier::Labels,
    metadata,
    namespace::Scope,
};

/// The blobs and ingests of one instance.
pub struct Store {
    root: PathBuf,
    metadata: Arc<metadata::Store>,
}

impl Store {
    /// Opens the store below `root`, creating its directories.
    ///
    /// # Errors
    ///
    /// `Unknown` when a directory cannot be made.
    pub fn open(root: &Path, metadata: Arc<metadata::Store>) -> Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            metadata,
        })
    }

    /// The blob's size and labels.
    ///
    /// # Errors
    ///
    /// `NotFound` when the namespace does not see it.
    pub fn info(&self, _scope: &Scope, digest: &Digest) -> Result<Info> {
        Err(Error::unimplemented(format!("content {digest}")))
    }

    /// Sets (non-empty value) and removes (empty value) the given labels, and keeps the others.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidArgument` for a label that is too long.
    pub fn label(&self, _scope: &Scope, digest: &Digest, _labels: &Labels) -> Result<Info> {
        Err(Error::unimplemented(format!("content {digest}")))
    }

    /// All blobs the namespace sees, by digest.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn list(&self, _scope: &Scope) -> Result<Vec<Info>> {
        Err(Error::unimplemented("content list"))
    }

    /// Takes the blob out of the namespace; its bytes go when no namespace sees it.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn delete(&self, _scope: &Scope, digest: &Digest) -> Result<()> {
        Err(Error::unimplemented(format!("content {digest}")))
    }

    /// Opens the blob for reading.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn reader(&self, _scope: &Scope, digest: &Digest) -> Result<Reader> {
        Err(Error::unimplemented(format!("content {digest}")))
    }

    /// Reads a small blob (manifest, config) whole.
    ///
    /// # Errors
    ///
    /// `NotFound`; `OutOfRange` when it is larger than `limit` bytes.
    pub fn read(&self, scope: &Scope, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let reader = self.reader(scope, digest)?;
        if reader.size() > limit {
            return Err(Error::new(
                crate::Kind::OutOfRange,
                format!(
                    "content {digest}: {} bytes exceed the limit of {limit}",
                    reader.size()
                ),
            ));
        }
        let mut bytes =
            vec![0; usize::try_from(reader.size()).map_err(|e| Error::unknown("read content", e))?];
        reader.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Opens or resumes the ingest named `reference` and locks it. With `expected` already in the namespace the answer
    /// is `AlreadyExists`; already in another namespace is not enough: the bytes must be shown.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `Unavailable` when somebody else writes it; `InvalidArgument` when an earlier call announced
    /// another total.
    pub fn writer(
        &self,
        _scope: &Scope,
        reference: &str,
        _total: u64,
        _expected: Option<&Digest>,
    ) -> Result<Writer> {
        Err(Error::unimplemented(format!("ingest {reference:?}")))
    }

    /// Writes a small blob whole under a reference of its own, unless the namespace has it already.
    ///
    /// # Errors
    ///
    /// As [`Store::writer`] and [`Writer::commit`], but never `AlreadyExists`.
    pub fn write(&self, scope: &Scope, bytes: &[u8], labels: Labels) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        let result = self
            .writer(scope, &format!("bytes-{digest}"), size, Some(&digest))
            .and_then(|mut writer| {
                writer.truncate(0)?;
                writer.append(bytes)?;
                writer.commit(Some(size), Some(&digest), labels)
            });
        match result {
            Err(error) if error.is_already_exists() => Ok(digest),
            other => other,
        }
    }

    /// The state of the ingest named `reference`.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn status(&self, _scope: &Scope, reference: &str) -> Result<Status> {
        Err(Error::unimplemented(format!("ingest {reference:?}")))
    }

    /// All ingests of the namespace.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn statuses(&self, _scope: &Scope) -> Result<Vec<Status>> {
        Err(Error::unimplemented("ingests"))
    }

    /// Throws the ingest and its bytes away.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Unavailable` when somebody writes it.
    pub fn abort(&self, _scope: &Scope, reference: &str) -> Result<()> {
        Err(Error::unimplemented(format!("ingest {reference:?}")))
    }
}

/// Random access to one blob; stays valid when the blob is deleted.
#[derive(Debug)]
pub struct Reader {
    file: File,
    size: u64,
}

impl Reader {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads at most `buffer.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buffer, offset)
            .map_err(|error| Error::io("read content", error))
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk, also when the blob ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
            .map_err(|error| Error::io("read content", error))
    }
}

/// Sequential reading, from the start.
impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

/// An ingest, locked for one writer; dropped, it stays for another to resume.
pub struct Writer {
    status: Status,
}

impl Writer {
    /// The present state; the offset is where the next byte goes.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> Digest {
        Digest::of(b"")
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` when the disk is full; what was written before stays.
    pub fn append(&mut self, _bytes: &[u8]) -> Result<()> {
        Err(Error::unimplemented("ingest append"))
    }

    /// Drops the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// `OutOfRange` when fewer bytes are there.
    pub fn truncate(&mut self, _offset: u64) -> Result<()> {
        Err(Error::unimplemented("ingest truncate"))
    }

    /// Verifies size and digest where given, makes the blob durable and visible in the namespace with `labels`, adds it
    /// to the scope's lease, and ends the ingest.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` on a mismatch (the ingest stays); `AlreadyExists` when the namespace has the blob (the
    /// ingest ends).
    pub fn commit(self, _size: Option<u64>, _expected: Option<&Digest>, _labels: Labels) -> Result<Digest> {
        Err(Error::unimplemented("ingest commit"))
    }
}
