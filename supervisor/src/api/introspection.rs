//! The Introspection service: which parts there are, and which instance this is.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::{
    services::introspection::v1::{
        Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
        introspection_server,
    },
    types::{Platform, RuntimeRequest},
};
use wharf_proto::{any, google::rpc::Status as GoogleStatus};

use crate::{
    daemon::Daemon,
    error::{Error, Result as StoreResult},
    filter::{Fields, Filters},
};

/// The service.
pub struct Introspection(pub Arc<Daemon>);

/// Everything but the snapshotters, under the types and names that clients look for.
const PARTS: [(&str, &[&str]); 13] = [
    ("io.containerd.content.v1", &["content"]),
    ("io.containerd.metadata.v1", &["bolt"]),
    ("io.containerd.gc.v1", &["scheduler"]),
    ("io.containerd.event.v1", &["exchange"]),
    ("io.containerd.differ.v1", &["walking"]),
    ("io.containerd.runtime.v2", &["task"]),
    ("io.containerd.monitor.container.v1", &["restart"]),
    ("io.containerd.mount-manager.v1", &["bolt"]),
    ("io.containerd.sandbox.controller.v1", &["shim"]),
    ("io.containerd.sandbox.store.v1", &["local"]),
    ("io.containerd.streaming.v1", &["manager"]),
    ("io.containerd.transfer.v1", &["local"]),
    (
        "io.containerd.grpc.v1",
        &[
            "containers",
            "content",
            "diff",
            "events",
            "healthcheck",
            "images",
            "introspection",
            "leases",
            "mounts",
            "namespaces",
            "sandbox-controllers",
            "sandboxes",
            "snapshots",
            "streaming",
            "tasks",
            "transfer",
            "version",
        ],
    ),
];
/// What the restart monitor can do.
const RESTART_POLICIES: [&str; 4] = ["no", "always", "on-failure", "unless-stopped"];
/// The types of those parts that exist for one platform.
const PLATFORM_BOUND: [&str; 2] = ["io.containerd.differ.v1", "io.containerd.runtime.v2"];
/// The type of what runs containers.
const RUNTIME: &str = "io.containerd.runtime.v2";
/// The type of snapshotters.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";

impl Introspection {
    fn plugins(&self) -> Vec<Plugin> {
        let snapshotters = self.0.snapshots.snapshotters().map(|(id, state)| {
            let mut plugin = Plugin {
                r#type: SNAPSHOTTER.to_owned(),
                id: id.to_owned(),
                platforms: vec![platform()],
                ..Plugin::default()
            };
            match state {
                Ok(about) => {
                    plugin.capabilities = about.capabilities;
                    plugin.exports = about.exports;
                }
                Err(error) => {
                    plugin.init_err = Some(failure(error));
                }
            }
            plugin
        });
        let parts = PARTS
            .into_iter()
            .flat_map(|(kind, ids)| ids.iter().map(move |id| (kind, *id)))
            .map(|(kind, id)| Plugin {
                r#type: kind.to_owned(),
                id: id.to_owned(),
                platforms: if PLATFORM_BOUND.contains(&kind) {
                    vec![platform()]
                } else {
                    Vec::new()
                },
                // Clients look here for the policies that they may write into labels.
                capabilities: match id {
                    "restart" => RESTART_POLICIES.map(str::to_owned).to_vec(),
                    _ => Vec::new(),
                },
                ..Plugin::default()
            });
        snapshotters.chain(parts).chain(self.opt()).collect()
    }

    /// The directory into which clients install programs.
    fn opt(&self) -> Option<Plugin> {
        let mut plugin = Plugin {
            r#type: "io.containerd.internal.v1".to_owned(),
            id: "opt".to_owned(),
            ..Plugin::default()
        };
        match self.0.opt.state()? {
            Ok(directory) => {
                let path = directory.display().to_string();
                plugin.exports.insert("path".to_owned(), path);
            }
            Err(error) => plugin.init_err = Some(failure(error)),
        }
        Some(plugin)
    }

    /// What a part tells of itself for `options`: the task service, what a runtime is.
    async fn extra(&self, plugin: &Plugin, options: &prost_types::Any) -> StoreResult<prost_types::Any> {
        if let Some(reason) = &plugin.init_err {
            return Err(Error::precondition(format!(
                "cannot get extra info, plugin not successfully loaded: {}",
                reason.message
            )));
        }
        if (plugin.r#type.as_str(), plugin.id.as_str()) != (RUNTIME, "task") {
            return Err(Error::unimplemented("plugin does not provided extra information"));
        }
        let request = any::unpack::<RuntimeRequest>(options)
            .map_err(|error| Error::invalid("options").caused_by(error))?
            .ok_or_else(|| Error::invalid(format!("unknown request type {:?}", options.type_url)))?;
        let info = self.0.tasks.runtime_info(request).await?;
        Ok(any::pack(&info))
    }
}

/// Why a part is not there.
fn failure(error: &Error) -> GoogleStatus {
    GoogleStatus {
        code: error.kind().code().into(),
        message: error.to_string(),
        ..GoogleStatus::default()
    }
}

/// The host's platform, in Go's words.
fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        ..Platform::default()
    }
}

impl Fields for Plugin {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["type"] => Some(self.r#type.clone()),
            ["id"] => Some(self.id.clone()),
            ["capabilities", name] => self.capabilities.iter().find(|known| known == name).cloned(),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl introspection_server::Introspection for Introspection {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Result<Response<PluginsResponse>, Status> {
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut plugins = self.plugins();
        plugins.retain(|plugin| filters.matches(plugin));
        Ok(Response::new(PluginsResponse { plugins }))
    }

    async fn server(&self, _request: Request<()>) -> Result<Response<ServerResponse>, Status> {
        let pidns = pid_namespace()?;
        Ok(Response::new(ServerResponse {
            uuid: self.0.uuid.clone(),
            pid: std::process::id().into(),
            pidns,
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let request = request.into_inner();
        let found = self
            .plugins()
            .into_iter()
            .find(|plugin| plugin.r#type == request.r#type && plugin.id == request.id)
            .ok_or_else(|| Error::not_found(format!("plugin {}.{}", request.r#type, request.id)))?;
        let extra = match request.options {
            None => None,
            Some(options) => Some(self.extra(&found, &options).await?),
        };
        Ok(Response::new(PluginInfoResponse {
            plugin: Some(found),
            extra,
        }))
    }
}

/// The inode of the daemon's pid namespace.
fn pid_namespace() -> StoreResult<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let path = "/proc/self/ns/pid";
    Ok(std::fs::metadata(path)
        .map_err(|source| Error::io(format!("stat {path}"), source))?
        .ino())
}
