//! Getting one blob into the content store, from wherever the operation takes its content.
//!
//! A blob that is there is not fetched; one that another operation is fetching is waited for; an interrupted ingest is
//! continued. One whose digest or size turned out wrong is thrown away, so that the next try starts anew.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    descriptor::{Descriptor, labels},
    document::{self, Document},
    progress::{Blob, Progress},
    slot,
};
use crate::{
    Kind,
    content::{Reader, Writer},
    daemon::Daemon,
    digest::Digest,
    error::{Error, Result},
    identifier::Labels,
    namespace::Scope,
    registry::{self, MAX_MANIFEST},
};

/// Chunks between the connection and the disk, each of at most 64 KiB.
const IN_FLIGHT: usize = 8;
/// How often an ingest that somebody else writes is looked at again.
const POLL: Duration = Duration::from_millis(100);

/// Where content comes from.
#[derive(Clone)]
pub(super) enum Source {
    /// A registry, and how its blobs are fetched.
    Registry(Arc<registry::Client>, registry::Pieces),
    /// The content store, where an archive was read into before.
    Local,
}

/// One operation's way to content. Cheap to clone.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) daemon: Arc<Daemon>,
    pub(super) scope: Scope,
    pub(super) source: Source,
    pub(super) progress: Progress,
}

impl Fetcher {
    /// Gets an index or manifest into the store, reads it, and labels it with those of its children that `choose` keeps.
    pub(super) async fn document(
        &self,
        wanted: &Descriptor,
        parent: &str,
        choose: impl FnOnce(Document) -> Result<Document>,
    ) -> Result<Document> {
        let digest = wanted.digest()?;
        if wanted.size()? > MAX_MANIFEST {
            return Err(Error::new(
                Kind::OutOfRange,
                format!("{digest}: larger than {MAX_MANIFEST} bytes"),
            ));
        }
        let progress = self.progress.blob(wanted, parent);
        progress.state("waiting", 0);
        let (present, bytes) = match self.read(&digest).await {
            Ok(bytes) => (true, bytes),
            Err(error) if error.is_not_found() => match &self.source {
                Source::Registry(client, _) => (false, client.manifest(&wanted.to_wire()).await?),
                Source::Local => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 != wanted.size()? {
            return Err(wrong_size(wanted, bytes.len() as u64));
        }
        let document = choose(document::parse(wanted, &bytes)?)?;
        let children = match &document {
            Document::Index(children) => labels(children),
            Document::Manifest { config, layers } => {
                labels(&[std::slice::from_ref(config), layers.as_slice()].concat())
            }
        };
        self.write(&digest, bytes, children).await?;
        progress.state(
            if present { "already exists" } else { "complete" },
            wanted.size()?,
        );
        Ok(document)
    }

    /// Reads a small blob that is in the store.
    pub(super) async fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let (scope, digest) = (self.scope.clone(), digest.clone());
        self.daemon
            .blocking(move |daemon| daemon.content.read(&scope, &digest, document::MAX_CONFIG))
            .await
    }

    /// Writes a small blob, or labels the one that is there.
    async fn write(&self, digest: &Digest, bytes: Vec<u8>, labels: Labels) -> Result<()> {
        let bytes = Bytes::from(bytes);
        loop {
            let (scope, digest, origin) = (self.scope.clone(), digest.clone(), self.origin());
            let (bytes, labels) = (bytes.clone(), labels.clone());
            let written = self
                .daemon
                .blocking(move |daemon| {
                    // Also when it is there: the lease must hold it.
                    daemon.content.write(&scope, &bytes, Labels::new())?;
                    label(daemon, &scope, &digest, labels, origin.as_ref())
                })
                .await;
            match written {
                // Somebody else is writing the same bytes.
                Err(error) if error.kind() == Kind::Unavailable => tokio::time::sleep(POLL).await,
                written => return written,
            }
        }
    }

    /// Gets any other blob into the store. `verified` is given its bytes as soon as they are known to be the right ones:
    /// unpacking them need not wait until they are durable.
    pub(super) async fn blob(
        &self,
        wanted: &Descriptor,
        parent: &str,
        verified: oneshot::Sender<Reader>,
    ) -> Result<()> {
        let digest = wanted.digest()?;
        let size = wanted.size()?;
        let progress = self.progress.blob(wanted, parent);
        progress.state("waiting", 0);
        let slots = match &self.source {
            Source::Registry(_, pieces) => Some(pieces.blob().await?),
            Source::Local => None,
        };
        let Some(writer) = self.writer(wanted, &digest, size).await? else {
            let reader = self.check_present(wanted, &digest, size).await?;
            // Who does not unpack does not wait for it.
            drop(verified.send(reader));
            progress.state("already exists", size);
            return Ok(());
        };
        let Source::Registry(client, pieces) = &self.source else {
            return Err(Error::not_found(format!(
                "content {digest}: it is not in the archive"
            )));
        };
        let _slot = slot(&self.daemon.transfer.downloading).await?;
        let offset = writer.status().offset;
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let store = self.store(
            writer,
            receiver,
            (digest.clone(), size),
            progress.clone(),
            verified,
        );
        let wire = wanted.to_wire();
        let fetched = client.blob(&wire, &wanted.urls, offset, sender, pieces);
        // Both run to their end: a failed download leaves what it brought, a failed disk ends the download.
        let (fetched, stored) = tokio::join!(fetched, store);
        match (fetched, stored) {
            (Err(error), _) if error.kind() != Kind::Canceled => return Err(error),
            (_, stored) => stored?,
        }
        drop(slots);
        let (scope, origin) = (self.scope.clone(), self.origin());
        self.daemon
            .blocking(move |daemon| label(daemon, &scope, &digest, Labels::new(), origin.as_ref()))
            .await?;
        progress.state("complete", size);
        Ok(())
    }

    /// Opens the ingest of a blob; `None` when the blob is there, perhaps because somebody else just brought it.
    async fn writer(&self, wanted: &Descriptor, digest: &Digest, size: u64) -> Result<Option<Writer>> {
        loop {
            let (scope, reference, digest) = (self.scope.clone(), wanted.reference(), digest.clone());
            let opened = self
                .daemon
                .blocking(move |daemon| {
                    let mut writer = daemon.content.writer(&scope, &reference, size, Some(&digest))?;
                    if writer.status().offset > size {
                        writer.truncate(0)?;
                    }
                    Ok(writer)
                })
                .await;
            match opened {
                Ok(writer) => return Ok(Some(writer)),
                Err(error) if error.is_already_exists() => return Ok(None),
                Err(error) if error.kind() == Kind::Unavailable => tokio::time::sleep(POLL).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what arrives, then verifies and commits it.
    async fn store(
        &self,
        mut writer: Writer,
        mut chunks: mpsc::Receiver<Bytes>,
        (digest, size): (Digest, u64),
        mut progress: Blob,
        verified: oneshot::Sender<Reader>,
    ) -> Result<()> {
        let scope = self.scope.clone();
        self.daemon
            .blocking(move |daemon| {
                let reference = writer.status().reference.clone();
                while let Some(chunk) = chunks.blocking_recv() {
                    writer.append(&chunk)?;
                    progress.at("downloading", writer.status().offset);
                }
                if writer.status().offset < size {
                    // The download failed and says why; what came stays for the next try.
                    return Err(Error::unavailable(format!("blob {digest}: incomplete")));
                }
                let committed = writer.check(Some(size), Some(&digest)).and_then(|_digest| {
                    drop(verified.send(writer.reader()?));
                    writer.commit(Some(size), Some(&digest), Labels::new())
                });
                match committed {
                    Ok(_digest) => Ok(()),
                    Err(error) if error.is_already_exists() => Ok(()),
                    Err(error) if error.kind() == Kind::FailedPrecondition => {
                        // Resuming wrong bytes would fail for ever.
                        match daemon.content.abort(&scope, &reference) {
                            Err(second) if !second.is_not_found() => Err(error.context(second)),
                            _ => Err(error),
                        }
                    }
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// A descriptor that lies about the size of a blob that is there is refused like one that lies about a download.
    async fn check_present(&self, wanted: &Descriptor, digest: &Digest, size: u64) -> Result<Reader> {
        let (scope, digest, origin) = (self.scope.clone(), digest.clone(), self.origin());
        let present = self
            .daemon
            .blocking(move |daemon| {
                let reader = daemon.content.reader(&scope, &digest)?;
                label(daemon, &scope, &digest, Labels::new(), origin.as_ref())?;
                Ok(reader)
            })
            .await?;
        if present.size() == size {
            Ok(present)
        } else {
            Err(wrong_size(wanted, present.size()))
        }
    }

    /// Whether there is nothing but what is in the store.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.source, Source::Local)
    }

    fn origin(&self) -> Option<(String, String)> {
        match &self.source {
            Source::Registry(client, _) => Some(origin(client.reference())),
            Source::Local => None,
        }
    }
}

/// The label that says where a blob was seen: key, and the repository.
pub(super) fn origin(reference: &registry::Reference) -> (String, String) {
    let host = reference
        .host()
        .rsplit_once(':')
        .map_or(reference.host(), |(host, _port)| host);
    (
        format!("containerd.io/distribution.source.{host}"),
        reference.repository().to_owned(),
    )
}

fn wrong_size(wanted: &Descriptor, found: u64) -> Error {
    Error::precondition(format!(
        "{}: {found} bytes, its descriptor says {}",
        wanted.digest, wanted.size
    ))
}

/// Adds labels to a blob, and the repository to those it was seen in.
pub(super) fn label(
    daemon: &Daemon,
    scope: &Scope,
    digest: &Digest,
    mut labels: Labels,
    origin: Option<&(String, String)>,
) -> Result<()> {
    let info = daemon.content.info(scope, digest)?;
    if let Some((key, repository)) = origin {
        let seen = info.labels.get(key).map_or("", String::as_str);
        let mut repositories: Vec<&str> = seen.split(',').filter(|name| !name.is_empty()).collect();
        repositories.push(repository);
        repositories.sort_unstable();
        repositories.dedup();
        let value = repositories.join(",");
        // A blob that every image shares would outgrow the limit of a label; the hint is then complete enough.
        if crate::identifier::validate_label(key, &value).is_ok() {
            labels.insert(key.clone(), value);
        }
    }
    labels.retain(|key, value| info.labels.get(key) != Some(value));
    if labels.is_empty() {
        return Ok(());
    }
    daemon.content.label(scope, digest, &labels).map(|_info| ())
}
