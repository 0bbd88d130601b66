//! The Introspection service: which parts there are, and which instance this is.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::{
    services::introspection::v1::{
        Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
        introspection_server,
    },
    types::Platform,
};

use crate::{
    daemon::Daemon,
    error::{Error, Result as StoreResult},
    filter::{Fields, Filters},
};

/// The service.
pub struct Introspection(pub Arc<Daemon>);

/// The gRPC services, by the names of containerd's plugins for them.
const SERVICES: [&str; 8] = [
    "containers",
    "content",
    "healthcheck",
    "images",
    "introspection",
    "leases",
    "namespaces",
    "snapshots",
];

impl Introspection {
    fn plugins(&self) -> Vec<Plugin> {
        let plugin = |kind: &str, id: &str, platforms: Vec<Platform>| Plugin {
            r#type: format!("io.containerd.{kind}.v1"),
            id: id.to_owned(),
            platforms,
            ..Plugin::default()
        };
        let mut plugins = vec![
            plugin("content", "content", Vec::new()),
            plugin("metadata", "bolt", Vec::new()),
            plugin("gc", "scheduler", Vec::new()),
        ];
        plugins.extend(
            self.0
                .snapshots
                .snapshotters()
                .map(|name| plugin("snapshotter", name, vec![platform()])),
        );
        plugins.extend(SERVICES.map(|name| plugin("grpc", name, Vec::new())));
        plugins
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
        if request.options.is_some() {
            return Err(Error::unimplemented("plugin info with options").into());
        }
        let found = self
            .plugins()
            .into_iter()
            .find(|plugin| plugin.r#type == request.r#type && plugin.id == request.id)
            .ok_or_else(|| Error::not_found(format!("plugin {}.{}", request.r#type, request.id)))?;
        Ok(Response::new(PluginInfoResponse {
            plugin: Some(found),
            extra: None,
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
