//! The store: what namespaces see, and the files behind it.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use wharf_proto::{
    any,
    containerd::{events::ContentDelete, services::content::v1 as wire},
};

use super::{Info, Reader, Status, Writer, ingest::Locks, writer};
use crate::{
    digest::{Algorithm, Digest},
    error::{Error, Kind, Result},
    event,
    identifier::{self, Labels},
    lease,
    metadata::{self, CONTENT, CONTENT_USERS, Commit, INGESTS, Ingest, Key, Read as _},
    namespace::{self, Scope},
    time,
};

/// The longest reference of an ingest, in bytes.
const MAX_REFERENCE: usize = 4096;

/// The blobs and ingests of one instance.
pub struct Store {
    shared: Arc<Shared>,
    locks: Locks,
    boot: String,
}

/// What the store and its writers share.
pub(super) struct Shared {
    root: PathBuf,
    pub(super) metadata: Arc<metadata::Store>,
    pub(super) events: Arc<event::Exchange>,
    /// Held shared from a blob file's arrival to its row, and exclusively while unreferenced files are removed.
    removal: RwLock<()>,
}

impl Shared {
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    fn ingest_path(&self, directory: &str) -> PathBuf {
        self.root.join("ingest").join(directory)
    }

    pub(super) fn keep_blobs(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens the store below `root`, creating its directories and removing what a crash left unreferenced.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn open(root: &Path, metadata: Arc<metadata::Store>, events: Arc<event::Exchange>) -> Result<Self> {
        for directory in ["blobs/sha256", "blobs/sha512", "ingest"] {
            let path = root.join(directory);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| Error::io(format!("create {}", path.display()), source))?;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|source| Error::io("read /proc/sys/kernel/random/boot_id", source))?;
        let shared = Shared {
            root: root.to_owned(),
            metadata,
            events,
            removal: RwLock::new(()),
        };
        let store = Self {
            shared: Arc::new(shared),
            locks: Locks::default(),
            boot: boot.trim().to_owned(),
        };
        store.sweep()?;
        Ok(store)
    }

    /// The blob's size and labels.
    ///
    /// # Errors
    ///
    /// `NotFound` when the namespace does not see it.
    pub fn info(&self, scope: &Scope, digest: &Digest) -> Result<Info> {
        let key = Key::new(&[&scope.namespace, digest.as_str()])?;
        let row = self.shared.metadata.read(|txn| txn.get(CONTENT, &key))?;
        decode(row.ok_or_else(|| missing(digest))?)
    }

    /// Changes the blob's labels by `change`; empty values are removed. Durable.
    ///
    /// # Errors
    ///
    /// `NotFound`, those of `change`, `InvalidArgument` for a label that is too long.
    pub fn update(
        &self,
        scope: &Scope,
        digest: &Digest,
        change: impl FnOnce(&mut Labels) -> Result<()>,
    ) -> Result<Info> {
        let key = Key::new(&[&scope.namespace, digest.as_str()])?;
        let row = self.shared.metadata.write(Commit::Durable, |txn| {
            let mut row = txn.get(CONTENT, &key)?.ok_or_else(|| missing(digest))?;
            change(&mut row.labels)?;
            identifier::validate_labels(&row.labels)?;
            identifier::drop_empty(&mut row.labels);
            row.updated_at = Some(time::now());
            txn.put(CONTENT, &key, &row)?;
            Ok(row)
        })?;
        decode(row)
    }

    /// Sets (non-empty value) and removes (empty value) the given labels, and keeps the others. Durable.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidArgument` for a label that is too long.
    pub fn label(&self, scope: &Scope, digest: &Digest, labels: &Labels) -> Result<Info> {
        self.update(scope, digest, |present| {
            present.extend(labels.iter().map(|(key, value)| (key.clone(), value.clone())));
            Ok(())
        })
    }

    /// All blobs the namespace sees, by digest.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn list(&self, scope: &Scope) -> Result<Vec<Info>> {
        let prefix = Key::prefix(&[&scope.namespace])?;
        let rows = self.shared.metadata.read(|txn| txn.scan(CONTENT, &prefix))?;
        rows.into_iter().map(|(_, row)| decode(row)).collect()
    }

    /// Takes the blob out of the namespace; its bytes go when no namespace sees it. Durable.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn delete(&self, scope: &Scope, digest: &Digest) -> Result<()> {
        let key = Key::new(&[&scope.namespace, digest.as_str()])?;
        let user = Key::new(&[digest.as_str(), &scope.namespace])?;
        self.shared.metadata.write(Commit::Durable, |txn| {
            if !txn.delete(CONTENT, &key)? {
                return Err(missing(digest));
            }
            txn.delete(CONTENT_USERS, &user)?;
            lease::drop_hold(txn, scope, lease::CONTENT, digest.as_str())
        })?;
        self.remove_unseen(digest);
        let event = ContentDelete {
            digest: digest.to_string(),
        };
        self.shared
            .events
            .publish(&scope.namespace, "/content/delete", any::pack(&event));
        Ok(())
    }

    /// Opens the blob for reading.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn reader(&self, scope: &Scope, digest: &Digest) -> Result<Reader> {
        self.info(scope, digest)?;
        let path = self.shared.blob_path(digest);
        File::open(&path)
            .and_then(Reader::new)
            .map_err(|source| Error::io(format!("open {}", path.display()), source))
    }

    /// Reads a small blob (manifest, config) whole.
    ///
    /// # Errors
    ///
    /// `NotFound`; `OutOfRange` when it is larger than `limit` bytes.
    pub fn read(&self, scope: &Scope, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let reader = self.reader(scope, digest)?;
        if reader.size() > limit {
            let text = format!(
                "content {digest}: {} bytes exceed the limit of {limit}",
                reader.size()
            );
            return Err(Error::new(Kind::OutOfRange, text));
        }
        let size =
            usize::try_from(reader.size()).map_err(|error| Error::unknown("size of content", error))?;
        let mut bytes = vec![0; size];
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

    /// Throws the ingest and its bytes away. Durable.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Unavailable` when somebody writes it.
    pub fn abort(&self, scope: &Scope, reference: &str) -> Result<()> {
        let _lock = self.locks.lock(&scope.namespace, reference)?;
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

    /// Removes the files that no row names: blobs whose commit did not finish, ingests that were aborted.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn sweep(&self) -> Result<()> {
        let _guard = self
            .shared
            .removal
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Directories before rows: a row is committed before its directory is made.
        let directories = names(&self.shared.root.join("ingest"))?;
        let (ingests, users) = self.shared.metadata.read(|txn| {
            Ok((
                txn.scan(INGESTS, &Key::prefix(&[])?)?,
                txn.scan(CONTENT_USERS, &Key::prefix(&[])?)?,
            ))
        })?;
        let ingests: BTreeSet<String> = ingests.into_iter().map(|(_, row)| row.directory).collect();
        for name in directories {
            if !ingests.contains(&name) {
                remove_dir(&self.shared.ingest_path(&name))?;
            }
        }
        let mut seen = BTreeSet::new();
        for (key, ()) in &users {
            seen.extend(key.parts()?.first().map(|digest| (*digest).to_owned()));
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = self.shared.root.join("blobs").join(algorithm.as_str());
            for name in names(&directory)? {
                if !seen.contains(&format!("{}:{name}", algorithm.as_str())) {
                    let path = directory.join(&name);
                    fs::remove_file(&path)
                        .map_err(|source| Error::io(format!("remove {}", path.display()), source))?;
                }
            }
        }
        Ok(())
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
                Some(row) if row.boot == self.boot => row,
                Some(stale) => {
                    remove_dir(&self.shared.ingest_path(&stale.directory))?;
                    self.new_ingest(namespace, reference)
                }
                None => self.new_ingest(namespace, reference),
            };
            if row.total != 0 && total != 0 && row.total != total {
                return Err(Error::invalid(format!(
                    "provided total differs from status: {total} != {}",
                    row.total
                )));
            }
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
        let name = Digest::of(format!("{namespace}\0{reference}").as_bytes());
        Ingest {
            directory: name.hex()[..32].to_owned(),
            started_at: Some(time::now()),
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

    /// Removes the blob's file if no namespace sees it. A failure is left to the next sweep.
    pub(crate) fn remove_unseen(&self, digest: &Digest) {
        let _guard = self
            .shared
            .removal
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let removed = Key::prefix(&[digest.as_str()])
            .and_then(|prefix| self.shared.metadata.read(|txn| txn.any(CONTENT_USERS, &prefix)))
            .and_then(|seen| {
                let path = self.shared.blob_path(digest);
                if seen {
                    return Ok(());
                }
                fs::remove_file(&path)
                    .map_err(|source| Error::io(format!("remove {}", path.display()), source))
            });
        if let Err(error) = removed {
            tracing::warn!(%digest, %error, "remove a blob that nobody sees");
        }
    }

    /// Flushes a directory, so that its entries are durable.
    pub(super) fn sync_dir(path: &Path) -> Result<()> {
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| Error::io(format!("flush {}", path.display()), source))
    }
}

fn missing(digest: &Digest) -> Error {
    Error::not_found(format!("content digest {digest}"))
}

fn decode(row: wire::Info) -> Result<Info> {
    Ok(Info {
        digest: row.digest.parse()?,
        size: u64::try_from(row.size).map_err(|error| Error::unknown("size of content", error))?,
        created_at: row.created_at.unwrap_or_default(),
        updated_at: row.updated_at.unwrap_or_default(),
        labels: row.labels,
    })
}

fn status(reference: &str, row: &Ingest, data: &fs::Metadata) -> Result<Status> {
    let expected = (!row.expected.is_empty())
        .then(|| row.expected.parse::<Digest>())
        .transpose()?;
    Ok(Status {
        reference: reference.to_owned(),
        offset: data.len(),
        total: row.total,
        expected,
        started_at: row.started_at.unwrap_or_default(),
        updated_at: data
            .modified()
            .map_or_else(|_| row.started_at.unwrap_or_default(), Into::into),
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

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::io(format!("list {}", directory.display()), source);
    fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}
