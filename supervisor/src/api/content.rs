//! The Content service, but for its Write call, which is in [`super::write`].

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};
use wharf_proto::containerd::services::content::v1::{
    self as wire, AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
    content_server,
};

use super::{Stream, mask_labels, paths, required, stream, write};
use crate::{
    content::{self, Info},
    daemon::Daemon,
    digest::Digest,
    error::{Error, Kind, Result as StoreResult},
    filter::{self, Fields, Filters},
    namespace::Scope,
};

/// How many blobs a message of a list carries.
const BATCH: usize = 100;
/// How many bytes of a blob a message carries.
const CHUNK: u64 = 256 * 1024;

/// The service.
pub struct Content(pub Arc<Daemon>);

impl Fields for Info {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["digest"] => Some(self.digest.to_string()),
            ["size"] => Some(self.size.to_string()),
            ["labels", rest @ ..] => filter::label(&self.labels, rest),
            _ => None,
        }
    }
}

impl Fields for content::Status {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["ref"] => Some(self.reference.clone()),
            _ => None,
        }
    }
}

fn encode(info: Info) -> wire::Info {
    wire::Info {
        digest: info.digest.to_string(),
        size: length(info.size),
        created_at: Some(info.created_at),
        updated_at: Some(info.updated_at),
        labels: info.labels,
    }
}

fn encode_status(status: content::Status) -> wire::Status {
    wire::Status {
        started_at: Some(status.started_at),
        updated_at: Some(status.updated_at),
        r#ref: status.reference,
        offset: length(status.offset),
        total: length(status.total),
        expected: status
            .expected
            .map(|digest| digest.to_string())
            .unwrap_or_default(),
    }
}

/// A file's length as the API carries it; the kernel's own limit is the same.
pub(super) fn length(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn digest(text: &str) -> StoreResult<Digest> {
    text.parse()
        .map_err(|error: Error| error.context(format!("{text:?}")))
}

#[tonic::async_trait]
impl content_server::Content for Content {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let scope = Scope::of(&request)?;
        let digest = digest(&request.into_inner().digest)?;
        let info = self
            .0
            .blocking(move |daemon| daemon.content.info(&scope, &digest))
            .await?;
        Ok(Response::new(InfoResponse {
            info: Some(encode(info)),
        }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let new = required(request.info, "info")?;
        let digest = digest(&new.digest)?;
        let paths = paths(request.update_mask);
        let info = self
            .0
            .blocking(move |daemon| {
                daemon.content.update(&scope, &digest, |labels| {
                    mask_labels(
                        labels,
                        &new.labels,
                        &paths,
                        &format!("content info {:?}", new.digest),
                    )
                })
            })
            .await?;
        Ok(Response::new(UpdateResponse {
            info: Some(encode(info)),
        }))
    }

    type ListStream = Stream<ListContentResponse>;

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut infos = self.0.blocking(move |daemon| daemon.content.list(&scope)).await?;
        infos.retain(|info| filters.matches(info));
        let infos: Vec<_> = infos.into_iter().map(encode).collect();
        let batches = infos
            .chunks(BATCH)
            .map(|batch| ListContentResponse { info: batch.to_vec() });
        Ok(Response::new(stream(batches.collect())))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let digest = digest(&request.into_inner().digest)?;
        self.0
            .blocking(move |daemon| daemon.content.delete(&scope, &digest))
            .await?;
        self.0.garbage.notify_one();
        Ok(Response::new(()))
    }

    type ReadStream = Stream<ReadContentResponse>;

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let digest = digest(&request.digest)?;
        let reader = Arc::new(
            self.0
                .blocking(move |daemon| daemon.content.reader(&scope, &digest))
                .await?,
        );
        let size = reader.size();
        // A negative offset means the start, a size that is not positive means to the end.
        let start = u64::try_from(request.offset).unwrap_or(0);
        if start > size {
            return Err(Error::new(Kind::OutOfRange, format!("read past object length {size} bytes")).into());
        }
        let end = match u64::try_from(request.size) {
            Ok(wanted) if wanted > 0 => start.saturating_add(wanted).min(size),
            _ => size,
        };
        let daemon = Arc::clone(&self.0);
        let chunks = futures_util::stream::try_unfold(start, move |offset| {
            let (daemon, reader) = (Arc::clone(&daemon), Arc::clone(&reader));
            async move {
                if offset >= end {
                    return Ok(None);
                }
                let data = daemon
                    .blocking(move |_| {
                        // At most CHUNK, so it fits.
                        let mut data = vec![0; (end - offset).min(CHUNK) as usize];
                        reader.read_exact_at(&mut data, offset)?;
                        Ok(data)
                    })
                    .await?;
                let next = offset + data.len() as u64;
                // The offset counts from where the caller began, as containerd's does.
                let response = ReadContentResponse {
                    offset: length(offset - start),
                    data: Bytes::from(data),
                };
                Ok::<_, Status>(Some((response, next)))
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let scope = Scope::of(&request)?;
        let reference = request.into_inner().r#ref;
        let status = self
            .0
            .blocking(move |daemon| {
                daemon
                    .content
                    .status(&scope, &reference)
                    .map_err(|error| error.context(format!("could not get status for ref {reference:?}")))
            })
            .await?;
        Ok(Response::new(StatusResponse {
            status: Some(encode_status(status)),
        }))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut statuses = self
            .0
            .blocking(move |daemon| daemon.content.statuses(&scope))
            .await?;
        statuses.retain(|status| filters.matches(status));
        let statuses = statuses.into_iter().map(encode_status).collect();
        Ok(Response::new(ListStatusesResponse { statuses }))
    }

    type WriteStream = Stream<WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let scope = Scope::of(&request)?;
        Ok(Response::new(write::serve(
            Arc::clone(&self.0),
            scope,
            request.into_inner(),
        )))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let reference = request.into_inner().r#ref;
        self.0
            .blocking(move |daemon| daemon.content.abort(&scope, &reference))
            .await?;
        Ok(Response::new(()))
    }
}
