//! The Transfer service: registry or archive into the image store, the image store into a registry or archive, names
//! onto names, and what a client sends straight back to it.
//!
//! The operation is a task of its own that is told when the caller goes away, so that it ends in order and gives its
//! lease back. Refuses options that are not here yet, by name.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use prost_types::Any;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use wharf_proto::{
    any,
    containerd::{
        services::transfer::v1::{TransferRequest, transfer_server},
        types::transfer::{
            AuthRequest, AuthResponse, AuthType, HttpDebug, ImageExportStream, ImageImportStream, ImageStore,
            OciRegistry, RegistryResolver,
        },
    },
};

use super::required;
use crate::{
    daemon::Daemon,
    error::{Error, Kind, Result},
    namespace::Scope,
    registry::{self, CredentialSource, Credentials, DockerConfig, NoCredentials},
    transfer::{self, Destination, Name, Platform, Progress, Selection, Stream, Unpack},
};

/// Progress that waits for a slow reader.
const PROGRESS: usize = 1024;
/// How long the last progress may take to reach the client.
const FLUSH: Duration = Duration::from_secs(5);

/// The service.
pub struct Transfer(pub Arc<Daemon>);

#[tonic::async_trait]
impl transfer_server::Transfer for Transfer {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let source = required(request.source, "source")?;
        let destination = required(request.destination, "destination")?;
        let stream = request.options.unwrap_or_default().progress_stream;
        let (progress, flushed) = match stream.as_str() {
            "" => (Progress::default(), None),
            id => {
                let (progress, task) = report(self.0.transfer.streams.take(&scope, id)?);
                (progress, Some(task))
            }
        };
        let operation = operation(&self.0, scope, &source, &destination, progress)?;
        let cancelled = CancellationToken::new();
        let _guard = cancelled.clone().drop_guard();
        let task = tokio::spawn(async move { operation.run(cancelled).await });
        let outcome = task.await.map_err(|error| Error::unknown("transfer", error));
        if let Some(flushed) = flushed {
            // A client that does not read its progress still gets its answer.
            drop(tokio::time::timeout(FLUSH, flushed).await);
        }
        outcome??;
        Ok(Response::new(()))
    }
}

/// Forwards progress to the client until all senders are gone.
fn report(mut stream: Stream) -> (Progress, tokio::task::JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel(PROGRESS);
    let task = tokio::spawn(async move {
        while let Some(progress) = receiver.recv().await {
            if stream.send(any::pack(&progress)).await.is_err() {
                return;
            }
        }
    });
    (Progress::to(sender), task)
}

/// What a request asks for, decoded and checked.
enum Work {
    Pull(Box<registry::Client>),
    /// An archive, and whether its layers are to be compressed.
    Import(Stream, bool),
    /// What the client sends over one stream, to be sent over the other.
    Echo(Stream, Stream),
    Tag(String),
    Push {
        client: Box<registry::Client>,
        name: String,
        platforms: Vec<Platform>,
    },
    Export {
        names: Vec<String>,
        selection: Selection,
        output: Stream,
    },
}

struct Operation {
    daemon: Arc<Daemon>,
    scope: Scope,
    work: Work,
    destination: Destination,
    progress: Progress,
}

impl Operation {
    /// Runs it to its end, or drops it where it stands when the caller is gone: each step cleans up behind itself.
    async fn run(self, cancelled: CancellationToken) -> Result<()> {
        let Self {
            daemon,
            scope,
            work,
            destination,
            progress,
        } = self;
        match work {
            Work::Pull(client) => {
                transfer::pull(&daemon, &scope, *client, destination, progress, &cancelled).await?;
            }
            Work::Import(stream, compress) => {
                let input = (transfer::read_bytes(stream), compress);
                transfer::import(&daemon, &scope, input, destination, progress, &cancelled).await?;
            }
            Work::Echo(input, output) => {
                transfer::echo(&daemon, input, output, &cancelled).await?;
            }
            Work::Tag(name) => {
                transfer::tag(&daemon, &scope, name, destination).await?;
            }
            Work::Push {
                client,
                name,
                platforms,
            } => {
                transfer::push(&daemon, &scope, &name, &platforms, *client, progress, &cancelled).await?;
            }
            Work::Export {
                names,
                selection,
                output,
            } => {
                transfer::export(&daemon, &scope, names, selection, output, progress, &cancelled).await?;
            }
        }
        Ok(())
    }
}

fn operation(
    daemon: &Arc<Daemon>,
    scope: Scope,
    source: &Any,
    destination: &Any,
    progress: Progress,
) -> Result<Operation> {
    let refused = |what: &str| {
        Err(Error::unimplemented(format!(
            "{what} is not supported yet: transfer"
        )))
    };
    let work = if let Some(registry) = unpack::<OciRegistry>(source)? {
        Work::Pull(Box::new(client(daemon, &scope, registry, false)?))
    } else if let Some(archive) = unpack::<ImageImportStream>(source)? {
        let stream = daemon.transfer.streams.take(&scope, &archive.stream)?;
        if let Some(output) = unpack::<ImageExportStream>(destination)? {
            let output = daemon.transfer.streams.take(&scope, &output.stream)?;
            return Ok(Operation {
                daemon: Arc::clone(daemon),
                scope,
                work: Work::Echo(stream, output),
                destination: Destination::default(),
                progress,
            });
        }
        Work::Import(stream, archive.force_compress)
    } else if let Some(store) = unpack::<ImageStore>(source)? {
        if let Some(registry) = unpack::<OciRegistry>(destination)? {
            let work = Work::Push {
                client: Box::new(client(daemon, &scope, registry, true)?),
                name: store.name,
                platforms: store.platforms.into_iter().map(Platform::from).collect(),
            };
            return Ok(Operation {
                daemon: Arc::clone(daemon),
                scope,
                work,
                destination: Destination::default(),
                progress,
            });
        }
        if let Some(archive) = unpack::<ImageExportStream>(destination)? {
            return Ok(Operation {
                work: export(daemon, &scope, store, archive)?,
                daemon: Arc::clone(daemon),
                scope,
                destination: Destination::default(),
                progress,
            });
        }
        Work::Tag(store.name)
    } else {
        return refused(&format!("the source {:?}", source.type_url));
    };
    let Some(store) = unpack::<ImageStore>(destination)? else {
        return refused(&format!("{:?} to {:?}", source.type_url, destination.type_url));
    };
    Ok(Operation {
        daemon: Arc::clone(daemon),
        scope,
        work,
        destination: decode(store),
        progress,
    })
}

/// The images that `store` names, on their way to `archive`.
fn export(daemon: &Daemon, scope: &Scope, store: ImageStore, archive: ImageExportStream) -> Result<Work> {
    let mut names = Vec::new();
    if !store.name.is_empty() {
        names.push(store.name);
    }
    for reference in store.extra_references {
        if reference.is_prefix {
            return Err(Error::unimplemented("prefix lookup on export"));
        }
        names.push(reference.name);
    }
    Ok(Work::Export {
        names,
        selection: Selection {
            platforms: archive.platforms.into_iter().map(Platform::from).collect(),
            all_platforms: archive.all_platforms,
            skip_docker_manifest: archive.skip_compatibility_manifest,
            skip_non_distributable: archive.skip_non_distributable,
        },
        output: daemon.transfer.streams.take(scope, &archive.stream)?,
    })
}

fn unpack<M: prost::Message + prost::Name + Default>(message: &Any) -> Result<Option<M>> {
    any::unpack(message)
        .map_err(|error| Error::invalid(format!("malformed {}", M::full_name())).caused_by(error))
}

fn decode(store: ImageStore) -> Destination {
    Destination {
        name: store.name,
        labels: store.labels,
        platforms: store.platforms.into_iter().map(Platform::from).collect(),
        manifest_limit: store.manifest_limit as usize,
        all_metadata: store.all_metadata,
        names: store
            .extra_references
            .into_iter()
            .map(|reference| Name {
                name: reference.name,
                is_prefix: reference.is_prefix,
                allow_overwrite: reference.allow_overwrite,
                add_digest: reference.add_digest,
                skip_named_digest: reference.skip_named_digest,
            })
            .collect(),
        unpacks: store
            .unpacks
            .into_iter()
            .map(|wish| Unpack {
                platform: wish.platform.map_or_else(Platform::host, Platform::from),
                snapshotter: wish.snapshotter,
            })
            .collect(),
    }
}

fn client(daemon: &Daemon, scope: &Scope, registry: OciRegistry, push: bool) -> Result<registry::Client> {
    let reference: registry::Reference = registry.reference.parse()?;
    let resolver: RegistryResolver = registry.resolver.unwrap_or_default();
    let configured = &daemon.registry;
    let hosts = match resolver.host_dir.as_str() {
        "" => configured.hosts.clone(),
        named => {
            let directory = PathBuf::from(named);
            if !directory.is_absolute() {
                return Err(Error::invalid(format!(
                    "host_dir {named:?} must be an absolute path"
                )));
            }
            vec![directory]
        }
    };
    let log = request_log(daemon, scope, &resolver)?;
    let plain_http = match resolver.default_scheme.as_str() {
        "" => None,
        "http" => Some(true),
        "https" => Some(false),
        other => return Err(Error::invalid(format!("default scheme {other:?}"))),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &resolver.headers {
        let malformed = || Error::invalid(format!("header {name:?}"));
        let mut value = HeaderValue::try_from(value).map_err(|_malformed| malformed())?;
        value.set_sensitive(true);
        headers.insert(
            HeaderName::try_from(name).map_err(|_malformed| malformed())?,
            value,
        );
    }
    let source: Arc<dyn CredentialSource> = match resolver.auth_stream.as_str() {
        "" => match &configured.docker_config {
            Some(path) => Arc::new(DockerConfig::new(path)),
            None => Arc::new(NoCredentials),
        },
        id => Arc::new(Asked {
            stream: Mutex::new(daemon.transfer.streams.take(scope, id)?),
            reference: registry.reference.clone(),
        }),
    };
    let options = registry::Options {
        plain_http,
        headers,
        hosts,
        push,
        log,
    };
    registry::Client::new(reference, options, source)
}

/// Who is told of requests to the registry: the client over its stream, if it names one, or the daemon's log.
fn request_log(daemon: &Daemon, scope: &Scope, resolver: &RegistryResolver) -> Result<registry::RequestLog> {
    let (heads, times) = match resolver.http_debug() {
        HttpDebug::Disabled => return Ok(registry::RequestLog::default()),
        HttpDebug::Debug => (true, false),
        HttpDebug::Trace => (false, true),
        HttpDebug::Both => (true, true),
    };
    let client = match resolver.logs_stream.as_str() {
        "" => None,
        id => Some(transfer::write_texts(daemon.transfer.streams.take(scope, id)?)),
    };
    Ok(registry::RequestLog::new(heads, times, client))
}

/// Credentials that the client is asked for over its stream.
struct Asked {
    stream: Mutex<Stream>,
    reference: String,
}

#[async_trait]
impl CredentialSource for Asked {
    async fn credentials(&self, host: &str) -> Result<Credentials> {
        let mut stream = self.stream.lock().await;
        let request = AuthRequest {
            host: host.to_owned(),
            reference: self.reference.clone(),
            ..AuthRequest::default()
        };
        stream.send(any::pack(&request)).await?;
        let answer = stream.receive().await?.ok_or_else(|| {
            Error::new(
                Kind::Unauthenticated,
                format!("{host}: the client closed its credentials"),
            )
        })?;
        let answer = unpack::<AuthResponse>(&answer)?
            .ok_or_else(|| Error::invalid(format!("expected an AuthResponse, not {:?}", answer.type_url)))?;
        Ok(match answer.auth_type() {
            AuthType::None => Credentials::Anonymous,
            AuthType::Credentials if answer.username.is_empty() => Credentials::Anonymous,
            AuthType::Credentials => Credentials::Basic {
                username: answer.username,
                password: answer.secret,
            },
            // containerd's clients answer so when they know nothing.
            AuthType::Refresh if answer.secret.is_empty() => Credentials::Anonymous,
            AuthType::Refresh => Credentials::Refresh(answer.secret),
            AuthType::Header => Credentials::Header(answer.secret),
        })
    }
}
