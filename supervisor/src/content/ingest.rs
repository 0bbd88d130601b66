//! Ingests: opening, resuming and aborting what is not yet a blob.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use prost_types::Timestamp;

use super::{
    Status, Writer,
    store::{Store, remove_dir},
    writer,
};
use crate::{
    digest::{Algorithm, Digest},
    error::{Error, Result},
    identifier::Labels,
    lease,
    metadata::{CONTENT, Commit, INGESTS, Ingest, Key, Read as _},
    namespace::{self, Scope},
    time,
};

/// The longest reference of an ingest, in bytes.
const MAX_REFERENCE: usize = 4096;

impl Store {
    /// Opens or resumes the ingest named `reference` and locks it; one that announced another total begins anew. With `expected` already in the namespace the answer
    /// is `AlreadyExists`; already in another namespace is not enough: the bytes must be shown.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `Unavailable` when somebody else writes it; `InvalidArgument` for a bad reference.
    pub fn writer(
        &self,
        scope: &Scope,
        reference: &str,
        total: u64,
        expected: Option<&Digest>,
    ) -> Result<Writer> {
        if reference.is_empty() || reference.len() > MAX_REFERENCE {
            return Err(Error::invalid(format!("ref must be 1 to {MAX_REFERENCE} bytes")));
        }
        let lock = self.locks.lock(&scope.namespace, reference)?;
        let row = self.begin(scope, reference, total, expected)?;
        let directory = self.shared.ingest_path(&row.directory);
        let failed = |source| Error::io(format!("open ingest {reference:?}"), source);
        let file = open_data(&directory, &format!("{}/{reference}", scope.namespace)).map_err(failed)?;
        let hasher = writer::hash(&file, Algorithm::Sha256).map_err(failed)?;
        let status = status(reference, &row, &file.metadata().map_err(failed)?)?;
        Ok(Writer {
            shared: Arc::clone(&self.shared),
            scope: scope.clone(),
            directory,
            file,
            hasher,
            begun: status.offset,
            changed: false,
            status,
            _lock: lock,
        })
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
    pub fn status(&self, scope: &Scope, reference: &str) -> Result<Status> {
        let key = Key::new(&[&scope.namespace, reference])?;
        let row = self.shared.metadata.read(|txn| txn.get(INGESTS, &key))?;
        let row = row.ok_or_else(|| Error::not_found(format!("reference {reference}")))?;
        self.stat(reference, &row)?
            .ok_or_else(|| Error::not_found(format!("reference {reference}")))
    }

    /// All ingests of the namespace.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn statuses(&self, scope: &Scope) -> Result<Vec<Status>> {
        let prefix = Key::prefix(&[&scope.namespace])?;
        let rows = self.shared.metadata.read(|txn| txn.scan(INGESTS, &prefix))?;
        let mut statuses = Vec::new();
        for (key, row) in rows {
            if let [_, reference] = key.parts()?[..] {
                statuses.extend(self.stat(reference, &row)?);
            }
        }
        Ok(statuses)
    }

    /// Throws the ingest and its bytes away. Durable. Somebody who writes it is told so when he commits; until he leaves,
    /// nobody else can begin it anew.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn abort(&self, scope: &Scope, reference: &str) -> Result<()> {
        let key = Key::new(&[&scope.namespace, reference])?;
        let row = self.shared.metadata.write(Commit::Durable, |txn| {
            let row = txn
                .get(INGESTS, &key)?
                .ok_or_else(|| Error::not_found(format!("reference {reference}")))?;
            txn.delete(INGESTS, &key)?;
            lease::drop_hold(txn, scope, lease::INGESTS, reference)?;
            Ok(row)
        })?;
        remove_dir(&self.shared.ingest_path(&row.directory))
    }

    /// Finds or creates the row of an ingest.
    fn begin(&self, scope: &Scope, reference: &str, total: u64, expected: Option<&Digest>) -> Result<Ingest> {
        let namespace = &scope.namespace;
        let key = Key::new(&[namespace, reference])?;
        let begun = self.shared.metadata.write(Commit::Lazy, |txn| {
            if let Some(expected) = expected
                && txn
                    .get(CONTENT, &Key::new(&[namespace, expected.as_str()])?)?
                    .is_some()
            {
                // The blob is held for the caller, although he gets an error: it must not go before he has used it.
                lease::hold(txn, scope, lease::CONTENT, expected.as_str())?;
                return Ok(None);
            }
            lease::hold(txn, scope, lease::INGESTS, reference)?;
            let mut row = match txn.get(INGESTS, &key)? {
                Some(row) if row.boot == self.boot && (total == 0 || [0, total].contains(&row.total)) => row,
                Some(stale) => {
                    // Not flushed before a reboot, or the bytes of something else.
                    remove_dir(&self.shared.ingest_path(&stale.directory))?;
                    self.new_ingest(namespace, reference)
                }
                None => self.new_ingest(namespace, reference),
            };
            row.total = row.total.max(total);
            if let Some(expected) = expected {
                row.expected = expected.to_string();
            }
            namespace::ensure(txn, namespace)?;
            txn.put(INGESTS, &key, &row)?;
            Ok(Some(row))
        })?;
        begun.ok_or_else(|| Error::already_exists(format!("content {}", expected.map_or("", Digest::as_str))))
    }

    fn new_ingest(&self, namespace: &str, reference: &str) -> Ingest {
        let now = time::now();
        // Its own directory each time: that of one which was aborted may go only after the next has begun.
        let name = format!("{namespace}\0{reference}\0{}.{}", now.seconds, now.nanos);
        Ingest {
            directory: Digest::of(name.as_bytes()).hex()[..32].to_owned(),
            started_at: Some(now),
            boot: self.boot.clone(),
            ..Ingest::default()
        }
    }

    /// The state of an ingest that has a row; `None` when its writer has just finished or not yet begun.
    fn stat(&self, reference: &str, row: &Ingest) -> Result<Option<Status>> {
        let path = self.shared.ingest_path(&row.directory).join("data");
        match fs::metadata(&path) {
            Ok(metadata) if row.boot == self.boot => status(reference, row, &metadata).map(Some),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(format!("stat {}", path.display()), source)),
        }
    }
}

fn status(reference: &str, row: &Ingest, data: &fs::Metadata) -> Result<Status> {
    let expected = (!row.expected.is_empty())
        .then(|| row.expected.parse::<Digest>())
        .transpose()?;
    let started_at = row.started_at.unwrap_or_default();
    Ok(Status {
        reference: reference.to_owned(),
        offset: data.len(),
        total: row.total,
        expected,
        started_at,
        // The kernel's clock for files may be a tick behind: an ingest is not older than its beginning.
        updated_at: match data.modified().map(Timestamp::from) {
            Ok(modified) if (modified.seconds, modified.nanos) > (started_at.seconds, started_at.nanos) => {
                modified
            }
            _ => started_at,
        },
    })
}

/// Opens an ingest's data file, creating the directory around it first.
fn open_data(directory: &Path, name: &str) -> io::Result<File> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let reference = directory.join("ref");
    if !reference.exists() {
        fs::write(reference, name)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join("data"))
}
