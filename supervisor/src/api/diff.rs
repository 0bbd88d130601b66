//! The Diff service: a layer of the content store applied to mounts, and computed from two sets of them.

use std::{
    io::{self, Write},
    sync::Arc,
};

use tonic::{Request, Response, Status};
use wharf_proto::containerd::{
    services::diff::v1::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse, diff_server},
    types::Descriptor,
};

use super::{content::length, required};
use crate::{
    content,
    daemon::Daemon,
    digest::Digest,
    digest::{Algorithm, Hasher},
    error::{Error, Result},
    identifier::Labels,
    layer::{
        self, Limits,
        diff::{Compression, Encoder},
    },
    namespace::Scope,
};

/// The media type of what was applied: it is uncompressed.
const UNCOMPRESSED_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The label of a compressed blob that tells the digest of its uncompressed bytes.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// The service.
pub struct Diff(pub Arc<Daemon>);

#[tonic::async_trait]
impl diff_server::Diff for Diff {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let applied = self
            .0
            .blocking(move |daemon| apply(daemon, &scope, request))
            .await?;
        Ok(Response::new(ApplyResponse {
            applied: Some(applied),
        }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let diff = self
            .0
            .blocking(move |daemon| compute(daemon, &scope, request))
            .await?;
        Ok(Response::new(DiffResponse { diff: Some(diff) }))
    }
}

fn apply(daemon: &Daemon, scope: &Scope, request: ApplyRequest) -> Result<Descriptor> {
    let blob = required(request.diff, "diff")?;
    daemon.processors.chain(&blob.media_type)?;
    let digest: Digest = blob.digest.parse()?;
    let reader = daemon.content.reader(scope, &digest)?;
    let size = reader.size();
    let prepared = layer::prepare(&request.mounts)?;
    let applied = daemon
        .processors
        .apply(
            &blob.media_type,
            &request.payloads,
            reader,
            size,
            prepared.target,
            Limits::default(),
        )
        .map_err(|error| error.context(format!("apply layer {digest}")))?;
    if request.sync_fs {
        rustix::fs::syncfs(&prepared.directory)
            .map_err(|error| Error::io("flush the applied layer", error))?;
    }
    Ok(Descriptor {
        media_type: UNCOMPRESSED_LAYER.to_owned(),
        digest: applied.diff_id.to_string(),
        size: applied.size.cast_signed(),
        ..Descriptor::default()
    })
}

/// Computes a layer into the content store. An ingest that the caller named is begun anew, one that he did not is gone after
/// a failure.
fn compute(daemon: &Daemon, scope: &Scope, request: DiffRequest) -> Result<Descriptor> {
    let (media_type, compression) = Compression::of(&request.media_type)?;
    let named = !request.r#ref.is_empty();
    let reference = if named {
        request.r#ref.clone()
    } else {
        let random = getrandom::u64().map_err(|error| Error::unknown("draw a random number", error))?;
        format!("diff-{random:016x}")
    };
    let written = write(daemon, scope, &request, &reference, compression);
    let (digest, size) = match written {
        Ok(written) => written,
        Err(error) if named => return Err(error),
        Err(error) => {
            return Err(match daemon.content.abort(scope, &reference) {
                Err(second) if !second.is_not_found() => error.context(second),
                _ => error,
            });
        }
    };
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: length(size),
        ..Descriptor::default()
    })
}

/// Writes the layer as the ingest `reference` and commits it; digest and size.
fn write(
    daemon: &Daemon,
    scope: &Scope,
    request: &DiffRequest,
    reference: &str,
    compression: Compression,
) -> Result<(Digest, u64)> {
    let mut blob = Blob {
        daemon,
        scope,
        reference,
        writer: None,
        failure: None,
    };
    let outcome = stream(daemon, request, compression, &mut blob);
    // The content store's own error tells more than that writing failed.
    if let Some(failure) = blob.failure.take() {
        return Err(failure);
    }
    let uncompressed = outcome?;
    let writer = blob.into_writer()?;
    let mut labels = request.labels.clone();
    if compression != Compression::Plain {
        labels.insert(UNCOMPRESSED.to_owned(), uncompressed.to_string());
    }
    let (digest, size) = (writer.digest(), writer.status().offset);
    match writer.commit(None, None, labels) {
        Err(error) if error.is_already_exists() => {
            let known = daemon.content.info(scope, &digest)?;
            if compression != Compression::Plain && !known.labels.contains_key(UNCOMPRESSED) {
                let verified = Labels::from([(UNCOMPRESSED.to_owned(), uncompressed.to_string())]);
                daemon.content.label(scope, &digest, &verified)?;
            }
        }
        other => drop(other?),
    }
    Ok((digest, size))
}

/// Writes the layer, compressed, to `blob`; the digest of its uncompressed bytes.
fn stream(
    daemon: &Daemon,
    request: &DiffRequest,
    compression: Compression,
    blob: &mut Blob<'_>,
) -> Result<Digest> {
    let latest = request.source_date_epoch.map(|time| time.seconds);
    let failed = |error| Error::io("write a layer", error);
    let mut hashed = Hashed {
        encoder: Encoder::new(compression, blob).map_err(failed)?,
        hasher: Hasher::new(Algorithm::Sha256),
    };
    layer::diff::diff(
        &request.left,
        &request.right,
        &daemon.mount_place,
        latest,
        &mut hashed,
    )?;
    hashed.encoder.finish().map_err(failed)?;
    Ok(hashed.hasher.finish())
}

/// The content store as a writer. The ingest is begun with the first bytes: what cannot be mounted leaves none.
struct Blob<'a> {
    daemon: &'a Daemon,
    scope: &'a Scope,
    reference: &'a str,
    writer: Option<content::Writer>,
    failure: Option<Error>,
}

impl Blob<'_> {
    fn into_writer(mut self) -> Result<content::Writer> {
        match self.writer.take() {
            Some(writer) => Ok(writer),
            None => self.begin(),
        }
    }

    fn begin(&self) -> Result<content::Writer> {
        let mut writer = self.daemon.content.writer(self.scope, self.reference, 0, None)?;
        writer.truncate(0)?;
        Ok(writer)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin()?,
        };
        self.writer.insert(writer).append(bytes)
    }
}

impl Write for Blob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let text = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(text))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A compressing writer that hashes what is written to it.
struct Hashed<W: Write> {
    encoder: Encoder<W>,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}
