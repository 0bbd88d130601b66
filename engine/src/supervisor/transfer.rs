//! Movement of images: containerd's Transfer service, with the streams it refers to.
//!
//! Owns the order of things (each stream is open and acknowledged before the transfer that names it begins) and the
//! flow control of the byte stream: no more is sent than the receiver's window allows.

use super::{CallError, CallResult, Client, call::failed};
use prost_types::Any;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wharf_proto::any;
use wharf_proto::containerd::services::streaming::v1::{StreamInit, streaming_client::StreamingClient};
use wharf_proto::containerd::services::transfer::v1::{
    TransferOptions, TransferRequest, transfer_client::TransferClient,
};
use wharf_proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, Data, ImageImportStream, ImageReference, ImageStore, OciRegistry,
    Progress, RegistryResolver, UnpackConfiguration, WindowUpdate,
};
use wharf_proto::containerd::types::{Descriptor, Platform};

const PIECE: usize = 32 * 1024;

/// How a transfer goes on.
#[derive(Debug, Clone, Default)]
pub struct ProgressEvent {
    /// The supervisor's word: `waiting`, `downloading`, `complete`, `exists`, `extracting`, …
    pub event: String,
    /// The object, often a digest with a prefix.
    pub name: String,
    /// Bytes done.
    pub current: i64,
    /// Bytes altogether.
    pub total: i64,
    /// What the object is, when it is a blob.
    pub descriptor: Option<Descriptor>,
}

/// Credentials for one registry.
#[derive(Clone)]
pub struct RegistryAuth {
    /// The user; empty with an identity token.
    pub username: String,
    /// The password or the identity token.
    pub secret: String,
}

/// Where an image comes from.
pub enum Source {
    /// A registry.
    Registry {
        /// The full reference.
        reference: String,
        /// Whether the registry is spoken to without TLS.
        plain_http: bool,
        /// Credentials, for this registry's host only.
        auth: Option<RegistryAuth>,
        /// The host that the credentials are for.
        host: String,
    },
    /// A tar archive in the OCI or Docker layout.
    Archive(Box<dyn AsyncRead + Send + Unpin>),
}

impl Client {
    /// Brings an image into the store under `name`, unpacked for `platform` by `snapshotter`. With `extra_name`, an
    /// archive's image gets this name whatever the archive calls it.
    ///
    /// # Errors
    ///
    /// What the supervisor said; or a stream broke.
    pub async fn transfer_image(
        &self,
        source: Source,
        name: &str,
        platform: Platform,
        snapshotter: &str,
        progress: mpsc::Sender<ProgressEvent>,
    ) -> CallResult<()> {
        let mut tasks = tokio::task::JoinSet::new();
        let mut destination = ImageStore {
            name: name.to_owned(),
            platforms: vec![platform.clone()],
            unpacks: vec![UnpackConfiguration {
                platform: Some(platform),
                snapshotter: snapshotter.to_owned(),
            }],
            ..Default::default()
        };
        let source = match source {
            Source::Registry {
                reference,
                plain_http,
                auth,
                host,
            } => {
                // What has no image for this platform is refused then, an index or a single image.
                destination.manifest_limit = 1;
                let auth_stream = match auth {
                    Some(auth) => {
                        let id = stream_id("auth")?;
                        let (sender, receiver) = self.stream(&id).await?;
                        tasks.spawn(answer_auth(sender, receiver, auth, host));
                        id
                    }
                    None => String::new(),
                };
                any::pack(&OciRegistry {
                    reference,
                    resolver: Some(RegistryResolver {
                        auth_stream,
                        headers: Default::default(),
                        default_scheme: if plain_http {
                            "http".to_owned()
                        } else {
                            String::new()
                        },
                        ..Default::default()
                    }),
                })
            }
            Source::Archive(archive) => {
                let id = stream_id("import")?;
                let (sender, receiver) = self.stream(&id).await?;
                tasks.spawn(send_bytes(sender, receiver, archive));
                destination.extra_references = vec![ImageReference {
                    name: name.to_owned(),
                    allow_overwrite: true,
                    ..Default::default()
                }];
                any::pack(&ImageImportStream {
                    stream: id,
                    ..Default::default()
                })
            }
        };
        let progress_id = stream_id("progress")?;
        let (sender, receiver) = self.stream(&progress_id).await?;
        tasks.spawn(forward_progress(sender, receiver, progress));
        let outcome = TransferClient::new(self.channel.clone())
            .transfer(TransferRequest {
                source: Some(source),
                destination: Some(any::pack(&destination)),
                options: Some(TransferOptions {
                    progress_stream: progress_id,
                }),
            })
            .await
            .map_err(failed("transfer image", name));
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        outcome.map(drop)
    }

    async fn stream(&self, id: &str) -> CallResult<(mpsc::Sender<Any>, Streaming<Any>)> {
        let (sender, receiver) = mpsc::channel(4);
        let init = any::pack(&StreamInit { id: id.to_owned() });
        sender
            .send(init)
            .await
            .map_err(|error| CallError::other("open stream", id, error))?;
        let mut incoming = StreamingClient::new(self.channel.clone())
            .stream(ReceiverStream::new(receiver))
            .await
            .map_err(failed("open stream", id))?
            .into_inner();
        incoming.message().await.map_err(failed("open stream", id))?;
        Ok((sender, incoming))
    }
}

fn stream_id(purpose: &str) -> CallResult<String> {
    let token = getrandom::u64().map_err(|error| CallError::other("draw", "a stream's name", error))?;
    Ok(format!("{purpose}-{token:016x}"))
}

async fn send_bytes(
    sender: mpsc::Sender<Any>,
    mut windows: Streaming<Any>,
    mut archive: Box<dyn AsyncRead + Send + Unpin>,
) {
    send_pieces(sender, &mut windows, &mut archive).await;
    // Dropping our half of the call before the other side has ended its own would take back what it has not read yet.
    while let Ok(Some(_)) = windows.message().await {}
}

async fn send_pieces(
    sender: mpsc::Sender<Any>,
    windows: &mut Streaming<Any>,
    archive: &mut (dyn AsyncRead + Send + Unpin),
) {
    let mut window: usize = 0;
    let mut buffer = vec![0; PIECE];
    loop {
        while window == 0 {
            let Ok(Some(message)) = windows.message().await else {
                return;
            };
            if let Ok(Some(update)) = any::unpack::<WindowUpdate>(&message) {
                window += usize::try_from(update.update).unwrap_or(0);
            }
        }
        let limit = window.min(PIECE);
        let count = match archive.read(&mut buffer[..limit]).await {
            // A failed read ends the stream early; the importer sees a truncated archive and refuses it.
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        window -= count;
        let data = any::pack(&Data {
            data: buffer[..count].to_vec(),
        });
        if sender.send(data).await.is_err() {
            return;
        }
    }
}

async fn answer_auth(
    sender: mpsc::Sender<Any>,
    mut requests: Streaming<Any>,
    auth: RegistryAuth,
    host: String,
) {
    while let Ok(Some(message)) = requests.message().await {
        let Ok(Some(request)) = any::unpack::<AuthRequest>(&message) else {
            continue;
        };
        // A redirect or a mirror must not see what was given for this registry.
        let answer = if request.host == host {
            AuthResponse {
                auth_type: if auth.username.is_empty() {
                    AuthType::Refresh
                } else {
                    AuthType::Credentials
                }
                .into(),
                secret: auth.secret.clone(),
                username: auth.username.clone(),
                ..Default::default()
            }
        } else {
            AuthResponse::default()
        };
        if sender.send(any::pack(&answer)).await.is_err() {
            return;
        }
    }
}

async fn forward_progress(
    sender: mpsc::Sender<Any>,
    mut stream: Streaming<Any>,
    progress: mpsc::Sender<ProgressEvent>,
) {
    while let Ok(Some(message)) = stream.message().await {
        if let Ok(Some(event)) = any::unpack::<Progress>(&message) {
            let event = ProgressEvent {
                event: event.event,
                name: event.name,
                current: event.progress,
                total: event.total,
                descriptor: event.desc,
            };
            if progress.send(event).await.is_err() {
                break;
            }
        }
    }
    drop(sender);
}
