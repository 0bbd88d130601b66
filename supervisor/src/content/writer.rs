//! One ingest being written, and how it becomes a blob.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
    time::SystemTime,
};

use wharf_proto::{
    any,
    containerd::{events::ContentCreate, services::content::v1 as wire},
};

use super::{
    Reader, Status,
    lock::Lock,
    store::{Shared, Store},
};
use crate::{
    digest::{Algorithm, Digest, Hasher},
    error::{Error, Result},
    identifier::{self, Labels},
    lease,
    metadata::{CONTENT, CONTENT_USERS, Commit, INGESTS, Key, Read as _},
    namespace::{self, Scope},
    sys, time,
};

/// How much is written before the disk is told to begin with it: the flush at the end then waits for little.
const AHEAD: u64 = 8 << 20;

/// From how many bytes on they are hashed while they are written, in a thread of its own: that takes half a millisecond each.
const APART: usize = 512 << 10;

/// An ingest, locked for one writer; dropped, it stays for another to resume.
pub struct Writer {
    pub(super) shared: std::sync::Arc<Shared>,
    pub(super) scope: Scope,
    pub(super) directory: PathBuf,
    pub(super) file: File,
    pub(super) hasher: Hasher,
    pub(super) status: Status,
    /// Up to where the disk was told to begin.
    pub(super) begun: u64,
    /// Whether it is the file that has to tell when the last byte came.
    pub(super) changed: bool,
    pub(super) _lock: Lock,
}

impl Writer {
    /// The present state; the offset is where the next byte goes.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` when the disk is full; what was written before stays.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let (file, offset) = (&self.file, self.status.offset);
        let (written, hasher) = beside(
            bytes.len() >= APART,
            || file.write_all_at(bytes, offset),
            || {
                let mut hasher = self.hasher.clone();
                hasher.update(bytes);
                hasher
            },
        );
        if let Err(source) = written {
            let error = Error::io(format!("write ingest {:?}", self.status.reference), source);
            return match self.file.set_len(self.status.offset) {
                Ok(()) => Err(error),
                Err(second) => Err(error.context(format!("shorten the ingest: {second}"))),
            };
        }
        self.hasher = hasher;
        self.status.offset += bytes.len() as u64;
        if self.status.offset - self.begun >= AHEAD {
            sys::begin_write_back(&self.file, self.begun, self.status.offset - self.begun);
            self.begun = self.status.offset;
        }
        self.status.updated_at = time::now();
        self.changed = true;
        Ok(())
    }

    /// Drops the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// `OutOfRange` when fewer bytes are there.
    pub fn truncate(&mut self, offset: u64) -> Result<()> {
        if offset == self.status.offset {
            return Ok(());
        }
        if offset > self.status.offset {
            return Err(Error::new(
                crate::Kind::OutOfRange,
                format!(
                    "truncate ingest {:?} of {} bytes to {offset}",
                    self.status.reference, self.status.offset
                ),
            ));
        }
        let failed = |source| Error::io(format!("truncate ingest {:?}", self.status.reference), source);
        self.file.set_len(offset).map_err(failed)?;
        self.hasher = hash(&self.file, Algorithm::Sha256).map_err(failed)?;
        self.status.offset = offset;
        self.begun = self.begun.min(offset);
        self.status.updated_at = time::now();
        self.changed = true;
        Ok(())
    }

    /// The bytes so far, for somebody who does not wait until they are durable. He must have seen [`Writer::check`] pass.
    ///
    /// # Errors
    ///
    /// `Unknown` when the process has no descriptor left.
    pub fn reader(&self) -> Result<Reader> {
        self.file
            .try_clone()
            .and_then(Reader::new)
            .map_err(|source| Error::io(format!("open ingest {:?}", self.status.reference), source))
    }

    /// Verifies size and digest where given; says the digest.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` on a mismatch.
    pub fn check(&self, size: Option<u64>, expected: Option<&Digest>) -> Result<Digest> {
        let offset = self.status.offset;
        if let Some(size) = size.filter(|size| *size != offset) {
            return Err(Error::precondition(format!(
                "{:?} failed size validation: {offset} != {size}",
                self.status.reference
            )));
        }
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = match algorithm {
            Algorithm::Sha256 => self.digest(),
            Algorithm::Sha512 => hash(&self.file, algorithm)
                .map_err(|source| Error::io(format!("read ingest {:?}", self.status.reference), source))?
                .finish(),
        };
        match expected {
            Some(expected) if *expected != digest => Err(Error::precondition(format!(
                "unexpected commit digest {digest}, expected {expected}"
            ))),
            _ => Ok(digest),
        }
    }

    /// Verifies size and digest where given, makes the blob durable and visible in the namespace with `labels`, adds it
    /// to the scope's lease, and ends the ingest.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` on a mismatch (the ingest stays); `AlreadyExists` when the namespace has the blob (the
    /// ingest ends); `NotFound` when it was aborted.
    pub fn commit(
        mut self,
        size: Option<u64>,
        expected: Option<&Digest>,
        mut labels: Labels,
    ) -> Result<Digest> {
        identifier::validate_labels(&labels).map_err(|error| error.context("info.Labels"))?;
        identifier::drop_empty(&mut labels);
        let digest = self.check(size, expected)?;
        if let Err(source) = self.file.sync_all() {
            // The kernel will not try to write those bytes again, and the next flush would succeed: they must not be resumed.
            let error = Error::io(format!("flush ingest {:?}", self.status.reference), source);
            return Err(match self.file.set_len(0) {
                Ok(()) => error,
                Err(second) => error.context(format!("empty the ingest: {second}")),
            });
        }
        let created = match self.publish(&digest, labels) {
            // What was aborted leaves nothing, but the blob may be another's as well.
            Err(error) if error.is_not_found() => {
                self.shared.remove_unseen(&digest);
                Err(error)
            }
            created => Ok(created?),
        };
        self.changed = false;
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            // The row is gone, so the directory is swept on open at the latest.
            tracing::warn!(path = %self.directory.display(), %error, "remove a finished ingest");
        }
        if !created? {
            return Err(Error::already_exists(format!("content {digest}")));
        }
        let event = ContentCreate {
            digest: digest.to_string(),
            size: i64::try_from(self.status.offset).unwrap_or(i64::MAX),
            ..ContentCreate::default()
        };
        self.shared
            .events
            .publish(&self.scope.namespace, "/content/create", any::pack(&event));
        Ok(digest)
    }

    /// Moves the flushed bytes to their blob and commits the rows. Says whether the namespace saw the blob for the first
    /// time.
    fn publish(&self, digest: &Digest, labels: Labels) -> Result<bool> {
        // Nobody removes unreferenced blobs between the file's arrival and its row.
        let _guard = self.shared.keep_blobs();
        let target = self.shared.blob_path(digest);
        let failed = |source| Error::io(format!("publish {}", target.display()), source);
        self.file
            .set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(failed)?;
        // Also over the same bytes: of a file that is there it is not known whether its entry could be written.
        fs::rename(self.directory.join("data"), &target).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => self.aborted(),
            _ => failed(source),
        })?;
        Store::sync_dir(target.parent().unwrap_or(&target))?;
        let namespace = &self.scope.namespace;
        let key = Key::new(&[namespace, digest.as_str()])?;
        let user = Key::new(&[digest.as_str(), namespace])?;
        let ingest = Key::new(&[namespace, &self.status.reference])?;
        let now = time::now();
        let row = wire::Info {
            digest: digest.to_string(),
            size: i64::try_from(self.status.offset)
                .map_err(|error| Error::unknown("size of content", error))?,
            created_at: Some(now),
            updated_at: Some(now),
            labels,
        };
        self.shared.metadata.write(Commit::Durable, |txn| {
            // An abort deletes the row first, and its caller is told so before or after the bytes were moved away.
            let begun = txn.get(INGESTS, &ingest)?;
            if begun.is_none_or(|row| self.shared.ingest_path(&row.directory) != self.directory) {
                return Err(self.aborted());
            }
            let created = txn.get(CONTENT, &key)?.is_none();
            if created {
                namespace::ensure(txn, namespace)?;
                txn.put(CONTENT, &key, &row)?;
                txn.put(CONTENT_USERS, &user, &())?;
            }
            txn.delete(INGESTS, &ingest)?;
            lease::drop_hold(txn, &self.scope, lease::INGESTS, &self.status.reference)?;
            lease::hold(txn, &self.scope, lease::CONTENT, digest.as_str())?;
            Ok(created)
        })
    }

    fn aborted(&self) -> Error {
        Error::not_found(format!("reference {}: aborted", self.status.reference))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The kernel's own stamp is of its coarse clock, a tick behind what the writer was told.
        if self.changed
            && let Ok(time) = SystemTime::try_from(self.status.updated_at)
            && let Err(error) = self.file.set_modified(time)
        {
            tracing::debug!(reference = self.status.reference, %error, "stamp an ingest");
        }
    }
}

/// Does both, `second` in a thread of its own if `apart` and there is one to be had.
fn beside<A, B: Send>(apart: bool, first: impl FnOnce() -> A, second: impl Fn() -> B + Sync) -> (A, B) {
    if !apart {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new()
            .name("hash".into())
            .spawn_scoped(scope, &second);
        let first = first();
        let other = other.ok().and_then(|other| other.join().ok());
        (first, other.unwrap_or_else(&second))
    })
}

/// The running digest of all of `file`.
pub(super) fn hash(file: &File, algorithm: Algorithm) -> io::Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 256 * 1024];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(hasher);
        }
        hasher.update(&buffer[..read]);
        offset += read as u64;
    }
}
