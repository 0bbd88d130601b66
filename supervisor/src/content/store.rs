//! The store: what namespaces see, and the files behind it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use wharf_proto::{
    any,
    containerd::{events::ContentDelete, services::content::v1 as wire},
};

use super::{Info, Reader, lock::Locks};
use crate::{
    digest::{Algorithm, Digest},
    error::{Error, Kind, Result},
    event,
    identifier::{self, Labels},
    lease,
    metadata::{self, CONTENT, CONTENT_USERS, Commit, INGESTS, Key, Read as _},
    namespace::Scope,
    time,
};

/// The blobs and ingests of one instance.
pub struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) locks: Locks,
    pub(super) boot: String,
}

/// What the store and its writers share.
pub(super) struct Shared {
    pub(super) root: PathBuf,
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

    pub(super) fn ingest_path(&self, directory: &str) -> PathBuf {
        self.root.join("ingest").join(directory)
    }

    pub(super) fn keep_blobs(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the blob's file if it is there and no namespace sees it. A failure is left to the next sweep.
    pub(super) fn remove_unseen(&self, digest: &Digest) {
        let _guard = self.removal.write().unwrap_or_else(PoisonError::into_inner);
        let removed = Key::prefix(&[digest.as_str()])
            .and_then(|prefix| self.metadata.read(|txn| txn.any(CONTENT_USERS, &prefix)))
            .and_then(|seen| {
                if seen {
                    return Ok(());
                }
                let path = self.blob_path(digest);
                match fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        Err(Error::io(format!("remove {}", path.display()), source))
                    }
                    _ => Ok(()),
                }
            });
        if let Err(error) = removed {
            tracing::warn!(%digest, %error, "remove a blob that nobody sees");
        }
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
        let shared = Shared {
            root: root.to_owned(),
            metadata,
            events,
            removal: RwLock::new(()),
        };
        let store = Self {
            shared: Arc::new(shared),
            locks: Locks::default(),
            boot: crate::boot::id()?,
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
            identifier::validate_labels(&row.labels).map_err(|error| error.context("info.Labels"))?;
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

    /// As [`Shared::remove_unseen`].
    pub(crate) fn remove_unseen(&self, digest: &Digest) {
        self.shared.remove_unseen(digest);
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

/// Removes a directory with all that is in it; one that is not there is no error.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
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
