//! An external snapshotter behind a unix socket: stargz, nydus, devmapper, another containerd.
//!
//! It speaks `containerd.services.snapshots.v1`. A number is there under one of these names:
//!
//! ```text
//! <instance>/<number>/active       until it is committed, and views
//! <instance>/<number>/committed    after that
//! what <root>/snapshots/proxy/<name>/<number>, a symbolic link, says: a snapshot that the other side made by itself
//! ```
//!
//! The last is how images are used without downloading them: asked to prepare what the label `containerd.io/snapshot.ref`
//! names, the other side answers that it exists already, and we look for it by that label. The link is durable before the
//! row that relies on it; several numbers may lead to one snapshot, which goes with the last of them.
//!
//! The instance's own name keeps daemons that share a snapshotter apart. The other side gets the labels under
//! `containerd.io/snapshot/` and that one, as containerd's plugins do, and the caller's namespace where there is a caller.
//! Refuses what does not answer in ten minutes.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::runtime::Handle;
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use wharf_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, Info, Kind as WireKind, ListSnapshotsRequest, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, UsageRequest, ViewSnapshotRequest,
    snapshots_client::SnapshotsClient,
};

use super::{
    About, Kind, Made, Mount, Proxy, Snapshotter, Stack, Usage,
    native::{numbers, open_root},
    store::TARGET,
};
use crate::{
    error::{Error, Kind as ErrorKind, Result},
    identifier::Labels,
    namespace::NAMESPACE_HEADER,
};

/// How long an answer may take: preparing may mean a download.
const PATIENCE: Duration = Duration::from_secs(600);
/// Whose call it is when nobody asked: clean-up.
const NOBODY: &str = "default";

/// The client of one external snapshotter.
pub struct Client {
    channel: Channel,
    runtime: Handle,
    /// The name that requests are for.
    name: String,
    /// What the names of our snapshots begin with.
    instance: String,
    /// Where the links are.
    links: PathBuf,
    about: About,
}

impl Client {
    /// Prepares the client of the snapshotter `name`; it is connected to when it is first needed. To be called where tokio
    /// runs.
    ///
    /// # Errors
    ///
    /// `Unknown` when the directory of the links cannot be made.
    pub fn open(links: &Path, name: &str, settings: &Proxy, instance: &str) -> Result<Self> {
        open_root(links)?;
        let address = settings.address.clone();
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let address = address.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(address).await?;
                Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://localhost")
            .timeout(PATIENCE)
            .connect_with_connector_lazy(connector);
        Ok(Self {
            channel,
            runtime: Handle::current(),
            name: name.to_owned(),
            instance: instance.to_owned(),
            links: links.to_owned(),
            about: About {
                capabilities: settings.capabilities.clone(),
                exports: settings
                    .exports
                    .clone()
                    .into_iter()
                    .chain([("address".to_owned(), settings.address.display().to_string())])
                    .collect(),
            },
        })
    }

    fn client(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
            .max_decoding_message_size(crate::config::MAX_MESSAGE)
            .max_encoding_message_size(crate::config::MAX_MESSAGE)
    }

    /// Waits for an answer, on a thread that may block.
    fn wait<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T> {
        self.runtime.block_on(call).map_err(|status| self.error(&status))
    }

    /// The other side's error in our words: the kind's own are said once.
    fn error(&self, status: &Status) -> Error {
        let kind = match status.code() {
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists => ErrorKind::AlreadyExists,
            Code::InvalidArgument => ErrorKind::InvalidArgument,
            Code::FailedPrecondition => ErrorKind::FailedPrecondition,
            Code::Unavailable => ErrorKind::Unavailable,
            Code::ResourceExhausted => ErrorKind::ResourceExhausted,
            Code::PermissionDenied => ErrorKind::PermissionDenied,
            Code::Unimplemented => ErrorKind::Unimplemented,
            Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
            _ => ErrorKind::Unknown,
        };
        let text = status.message();
        let text = kind
            .words()
            .and_then(|words| text.strip_suffix(words)?.strip_suffix(": "))
            .unwrap_or(text);
        Error::new(kind, format!("snapshotter {}: {text}", self.name))
    }

    fn own(&self, number: u64, state: &str) -> String {
        format!("{}/{number}/{state}", self.instance)
    }

    fn link(&self, number: u64) -> PathBuf {
        self.links.join(number.to_string())
    }

    /// The name that a link says.
    fn linked(&self, number: u64) -> Result<Option<String>> {
        let path = self.link(number);
        match fs::read_link(&path) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(format!("read {}", path.display()), source)),
        }
    }

    /// The other side's name of a committed snapshot.
    fn committed(&self, number: u64) -> Result<String> {
        Ok(self
            .linked(number)?
            .unwrap_or_else(|| self.own(number, "committed")))
    }

    /// The name of a parent, or of none.
    fn parent(&self, stack: Stack<'_>) -> Result<String> {
        stack
            .parents
            .first()
            .map_or(Ok(String::new()), |parent| self.committed(*parent))
    }

    /// Finds the snapshot that the other side made for `target`, and makes `number` stand for it.
    fn find(&self, stack: Stack<'_>, target: &str, parent: &str) -> Result<Usage> {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let filter = format!(
            "labels.{}=={},parent=={}",
            quoted(TARGET),
            quoted(target),
            quoted(parent)
        );
        let found = self
            .list(stack.namespace, vec![filter])?
            .into_iter()
            // Not every snapshotter knows filters.
            .find(|info| {
                info.kind() == WireKind::Committed
                    && info.parent == parent
                    && info.labels.get(TARGET).map(String::as_str) == Some(target)
            })
            .ok_or_else(|| {
                Error::not_found(format!("target snapshot {target:?} in snapshotter {}", self.name))
            })?;
        let path = self.link(stack.number);
        std::os::unix::fs::symlink(&found.name, &path)
            .and_then(|()| fs::File::open(&self.links)?.sync_all())
            .map_err(|source| Error::io(format!("create {}", path.display()), source))?;
        self.measure(stack.namespace, &found.name)
    }

    fn list(&self, namespace: &str, filters: Vec<String>) -> Result<Vec<Info>> {
        self.wait(async {
            let request = ListSnapshotsRequest {
                snapshotter: self.name.clone(),
                filters,
            };
            let mut stream = self.client().list(named(namespace, request)).await?.into_inner();
            let mut infos = Vec::new();
            while let Some(message) = stream.message().await? {
                infos.extend(message.info);
            }
            Ok(infos)
        })
    }

    fn measure(&self, namespace: &str, key: &str) -> Result<Usage> {
        let request = UsageRequest {
            snapshotter: self.name.clone(),
            key: key.to_owned(),
        };
        let usage = self.wait(async { self.client().usage(named(namespace, request)).await })?;
        let usage = usage.into_inner();
        Ok(Usage {
            size: usage.size.try_into().unwrap_or(0),
            inodes: usage.inodes.try_into().unwrap_or(0),
        })
    }

    /// Removes a name; whether it was there.
    fn forget(&self, key: String) -> Result<bool> {
        let request = RemoveSnapshotRequest {
            snapshotter: self.name.clone(),
            key,
        };
        match self.wait(async { self.client().remove(named(NOBODY, request)).await }) {
            Err(error) if error.is_not_found() => Ok(false),
            other => other.map(|_empty| true),
        }
    }
}

fn named<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // Namespaces are identifiers, which are ASCII.
    if let Ok(value) = MetadataValue::try_from(namespace) {
        request.metadata_mut().insert(NAMESPACE_HEADER, value);
    }
    request
}

/// The label that keeps a snapshot although nothing refers to it.
const ROOT: &str = "containerd.io/gc.root";

/// The labels that are the snapshotter's business. One that collects garbage itself, as another containerd does, is told that
/// this is none: whether it is, is decided here.
fn inherited(labels: &Labels) -> Labels {
    let ours = |key: &str| key == TARGET || key.starts_with("containerd.io/snapshot/");
    labels
        .iter()
        .filter(|(key, _)| ours(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain([(ROOT.to_owned(), jiff::Timestamp::now().to_string())])
        .collect()
}

impl Snapshotter for Client {
    fn create(&self, stack: Stack<'_>) -> Result<Made> {
        let (snapshotter, key) = (self.name.clone(), self.own(stack.number, "active"));
        let parent = self.parent(stack)?;
        let labels = inherited(stack.labels);
        let made = if stack.kind == Kind::View {
            let request = ViewSnapshotRequest {
                snapshotter,
                key,
                parent: parent.clone(),
                labels,
            };
            self.wait(async { self.client().view(named(stack.namespace, request)).await })
                .map(drop)
        } else {
            let request = PrepareSnapshotRequest {
                snapshotter,
                key,
                parent: parent.clone(),
                labels,
            };
            self.wait(async { self.client().prepare(named(stack.namespace, request)).await })
                .map(drop)
        };
        match (made, stack.labels.get(TARGET)) {
            (Ok(()), _) => Ok(Made::Fresh),
            (Err(error), Some(target)) if error.is_already_exists() => {
                self.find(stack, target, &parent).map(Made::Existing)
            }
            // The name is ours and new: what exists there is a fault, which must not look like the caller's.
            (Err(error), None) if error.is_already_exists() => {
                Err(Error::unknown("unexpected answer from the snapshotter", error))
            }
            (Err(error), _) => Err(error),
        }
    }

    // It knows what it lost.
    fn restore(&self, _stack: Stack<'_>) -> Result<()> {
        Ok(())
    }

    // What the other side keeps is its own affair.
    fn keeps_layers_apart(&self) -> bool {
        false
    }

    fn mounts(&self, stack: Stack<'_>) -> Result<Vec<Mount>> {
        let request = MountsRequest {
            snapshotter: self.name.clone(),
            key: self.own(stack.number, "active"),
        };
        let answer = self.wait(async { self.client().mounts(named(stack.namespace, request)).await })?;
        Ok(answer.into_inner().mounts)
    }

    fn seal(&self, stack: Stack<'_>, rebased: bool) -> Result<Usage> {
        let name = self.own(stack.number, "committed");
        let request = CommitSnapshotRequest {
            snapshotter: self.name.clone(),
            name: name.clone(),
            key: self.own(stack.number, "active"),
            labels: inherited(stack.labels),
            parent: if rebased {
                self.parent(stack)?
            } else {
                String::new()
            },
        };
        match self.wait(async { self.client().commit(named(stack.namespace, request)).await }) {
            // A commit before a crash of ours that did not come to its row.
            Err(error) if error.is_already_exists() || error.is_not_found() => {
                self.measure(stack.namespace, &name).map_err(|_unknown| error)
            }
            other => {
                other?;
                self.measure(stack.namespace, &name)
            }
        }
    }

    fn usage(&self, stack: Stack<'_>) -> Result<Usage> {
        self.measure(stack.namespace, &self.own(stack.number, "active"))
    }

    fn remove(&self, number: u64) -> Result<()> {
        if let Some(name) = self.linked(number)? {
            let mut shared = false;
            for other in numbers(&self.links)?.into_iter().filter(|other| *other != number) {
                shared |= self.linked(other)?.as_deref() == Some(name.as_str());
            }
            if !shared {
                self.forget(name)?;
            }
            let path = self.link(number);
            return fs::remove_file(&path)
                .map_err(|source| Error::io(format!("remove {}", path.display()), source));
        }
        if !self.forget(self.own(number, "committed"))? {
            self.forget(self.own(number, "active"))?;
        }
        Ok(())
    }

    fn numbers(&self) -> Result<BTreeSet<u64>> {
        let mut all = numbers(&self.links)?;
        for info in self.list(NOBODY, Vec::new())? {
            let number = info
                .name
                .strip_prefix(&self.instance)
                .and_then(|rest| rest.strip_prefix('/')?.split_once('/'))
                .and_then(|(number, _)| number.parse::<u64>().ok());
            all.extend(number);
        }
        Ok(all)
    }

    fn about(&self) -> About {
        self.about.clone()
    }
}
