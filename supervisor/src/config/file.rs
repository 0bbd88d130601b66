//! The configuration file of one instance.
//!
//! ```toml
//! root = "/var/lib/wharf/supervisor"
//! state = "/run/wharf/supervisor"
//! address = "/run/wharf/wharfd.sock"
//! log_level = "info"
//! log_format = "text"                                          # or "json", or "journal" for lines with their priority
//! shim = "/usr/libexec/wharf/containerd-shim-wharf-v2"
//! disabled_plugins = ["io.containerd.snapshotter.v1.btrfs"]    # snapshotters, and io.containerd.internal.v1.opt
//!
//! [grpc]                                                       # as containerd has it
//! uid = 0
//! gid = 0
//! mode = 0o660                                                 # of the socket
//! peer_uids = []                                               # who may connect, if not whoever can open the socket
//! tcp_address = "192.0.2.1:2376"                               # TCP is served with all three of these only
//! tcp_tls_cert = "/etc/wharf/server.pem"
//! tcp_tls_key = "/etc/wharf/server.key"
//! tcp_tls_ca = "/etc/wharf/clients.pem"                        # who signs the certificates of clients
//! max_recv_message_size = 16777216
//! max_send_message_size = 16777216
//!
//! [metrics]                                                    # as containerd has it
//! address = "127.0.0.1:1338"                                   # http://127.0.0.1:1338/v1/metrics
//! grpc_histogram = false
//!
//! [proxy_plugins.stargz]                                       # as containerd has it
//! type = "snapshot"
//! address = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"
//!
//! [plugins."io.containerd.snapshotter.v1.overlayfs"]
//! mount_options = ["metacopy=on"]                              # of every overlay
//!
//! [plugins."io.containerd.transfer.v1.local"]
//! max_concurrent_downloads = 4                                 # and more: see `transfer::Settings`
//!
//! [stream_processors.ocicrypt]                                 # as containerd has it, and a time-out
//! accepts = ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"]
//! returns = "application/vnd.oci.image.layer.v1.tar+gzip"
//! path = "ctd-decoder"
//! args = ["--decryption-keys-path", "/etc/containerd/ocicrypt/keys"]
//! env = ["OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt/ocicrypt_keyprovider.conf"]
//! timeout_seconds = 300                                        # without any output
//!
//! [plugins."io.containerd.tracing.processor.v1.otlp"]          # with the feature `otlp`; also by OTEL_…
//! endpoint = "http://127.0.0.1:4318"
//! protocol = "http/protobuf"
//! [plugins."io.containerd.internal.v1.tracing"]
//! service_name = "wharfd"
//! sampling_ratio = 1.0
//!
//! [plugins."io.containerd.internal.v1.opt"]
//! path = "/var/lib/wharf/supervisor/opt"                       # where `ctr install` puts programs; `opt` below the root
//!
//! [plugins."io.containerd.shim.v1.manager"]
//! socket_dir = "/run/containerd/s"                             # where `ctr shim` looks; by default `s` below the state,
//!                                                              # or below /run/wharf-shims if that is too deep for a socket
//!
//! [plugins."io.containerd.monitor.container.v1.restart"]
//! interval = "10s"                                             # between looks for containers whose labels ask to be restarted
//!
//! [registry]
//! hosts = ["/etc/containerd/certs.d", "/etc/docker/certs.d"]
//! docker_config = "/root/.docker/config.json"
//! ```
//!
//! Of containerd's `[debug]` there is nothing: `log_level` and `log_format` are above, and no profile is
//! served.
//!
//! All keys are optional; a key that is not known is an error, so that a misspelt one is not silently without effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Config, Grpc, Metrics, Opt, Registry, Tcp};
use crate::{
    error::{Error, Result},
    layer::{Processor, Processors},
    restart,
    snapshot::{self, Settings},
    transfer,
};

#[cfg(test)]
mod tests;

/// The configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// See [`Config::root`].
    pub root: Option<PathBuf>,
    /// See [`Config::state`].
    pub state: Option<PathBuf>,
    /// See [`Config::address`].
    pub address: Option<PathBuf>,
    /// See [`Config::shim`].
    pub shim: Option<PathBuf>,
    /// How much is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
    /// How it is written: `text`, `json`, or `journal`.
    pub log_format: Option<String>,
    /// Plugins that are not loaded, by containerd's URIs. Only snapshotters and `opt` can be left out.
    #[serde(default)]
    disabled_plugins: BTreeSet<String>,
    /// See [`Config::grpc`].
    #[serde(default)]
    grpc: GrpcTable,
    /// See [`Config::metrics`].
    #[serde(default)]
    metrics: MetricsTable,
    /// See [`Config::registry`].
    #[serde(default)]
    pub registry: Registry,
    /// External plugins, by name.
    #[serde(default)]
    proxy_plugins: BTreeMap<String, ProxyPlugin>,
    /// External programs for layers, by name.
    #[serde(default)]
    stream_processors: BTreeMap<String, StreamProcessor>,
    /// Settings of plugins, by URI.
    #[serde(default)]
    plugins: Plugins,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct GrpcTable {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
    peer_uids: Option<Vec<u32>>,
    tcp_address: Option<String>,
    tcp_tls_cert: Option<PathBuf>,
    tcp_tls_key: Option<PathBuf>,
    tcp_tls_ca: Option<PathBuf>,
    max_recv_message_size: Option<usize>,
    max_send_message_size: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MetricsTable {
    address: Option<String>,
    grpc_histogram: Option<bool>,
}

/// An external plugin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ProxyPlugin {
    r#type: String,
    address: String,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    exports: BTreeMap<String, String>,
}

/// An external program for layers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StreamProcessor {
    accepts: Vec<String>,
    returns: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    /// How long it may be silent.
    #[serde(default = "StreamProcessor::default_timeout")]
    timeout_seconds: u64,
}

impl StreamProcessor {
    fn default_timeout() -> u64 {
        300
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Plugins {
    #[serde(default, rename = "io.containerd.snapshotter.v1.overlayfs")]
    overlay: OverlayPlugin,
    #[serde(default, rename = "io.containerd.transfer.v1.local")]
    transfer: transfer::Settings,
    #[serde(default, rename = "io.containerd.tracing.processor.v1.otlp")]
    otlp: OtlpPlugin,
    #[serde(default, rename = "io.containerd.internal.v1.tracing")]
    tracing: TracingPlugin,
    #[serde(default, rename = "io.containerd.internal.v1.opt")]
    opt: OptPlugin,
    #[serde(default, rename = "io.containerd.shim.v1.manager")]
    shims: ShimPlugin,
    #[serde(
        default,
        rename = "io.containerd.monitor.container.v1.restart",
        alias = "io.containerd.internal.v1.restart"
    )]
    restart: RestartPlugin,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OtlpPlugin {
    endpoint: Option<String>,
    protocol: Option<String>,
    insecure: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TracingPlugin {
    service_name: Option<String>,
    sampling_ratio: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OptPlugin {
    path: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ShimPlugin {
    socket_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RestartPlugin {
    interval: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OverlayPlugin {
    #[serde(default)]
    mount_options: Vec<String>,
}

/// An address with its port. Names are not looked up: what they mean could change.
fn socket_address(setting: &str, text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        Error::invalid(format!(
            "{setting} {text:?} must be an IP address and a port, such as 127.0.0.1:1338"
        ))
    })
}

/// What a snapshotter's URI begins with.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1.";
/// The URI of the directory for installed programs.
const OPT: &str = "io.containerd.internal.v1.opt";

impl File {
    /// The file with the settings in it that have a default; without `log_format`, which depends on who reads, and the
    /// socket's mode, which TOML would write in decimal.
    #[must_use]
    pub fn complete(mut self) -> Self {
        let default = Config::default();
        self.root.get_or_insert(default.root);
        self.state.get_or_insert(default.state);
        self.address.get_or_insert(default.address);
        self.log_level.get_or_insert_with(|| "info".to_owned());
        let grpc = &mut self.grpc;
        grpc.uid.get_or_insert(default.grpc.uid);
        grpc.gid.get_or_insert(default.grpc.gid);
        grpc.peer_uids.get_or_insert_default();
        grpc.tcp_address.get_or_insert_default();
        grpc.max_recv_message_size.get_or_insert(default.grpc.max_receive);
        grpc.max_send_message_size.get_or_insert(default.grpc.max_send);
        self.metrics.address.get_or_insert_default();
        self.metrics.grpc_histogram.get_or_insert(false);
        self
    }

    /// The file as TOML.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::invalid("configuration").caused_by(error))
    }

    /// The checked configuration that the file asks for.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, `Unimplemented`: naming the setting.
    pub fn config(&self) -> Result<Config> {
        let default = Config::default();
        let set = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let config = Config {
            root: self.root.clone().unwrap_or(default.root),
            state: self.state.clone().unwrap_or(default.state),
            address: self.address.clone().unwrap_or(default.address),
            shim: self.shim.clone(),
            shim_sockets: set(&self.plugins.shims.socket_dir),
            opt: match set(&self.plugins.opt.path) {
                _ if self.disabled_plugins.contains(OPT) => Opt::Disabled,
                Some(path) => Opt::At(path),
                None => Opt::BelowRoot,
            },
            registry: self.registry.clone(),
            snapshots: self.snapshots()?,
            transfer: self.plugins.transfer.clone(),
            processors: self.processors()?,
            grpc: self.grpc()?,
            metrics: self.metrics()?,
            restart_interval: self.restart_interval()?,
            tracing: self.tracing()?,
        };
        config.validate()?;
        Ok(config)
    }

    fn grpc(&self) -> Result<Grpc> {
        let (table, default) = (&self.grpc, Grpc::default());
        let mode = table.mode.unwrap_or(default.mode);
        if mode & !0o777 != 0 || mode & 0o600 != 0o600 {
            return Err(Error::invalid(format!(
                "grpc.mode {mode:#o} must be within 0o600 and 0o777"
            )));
        }
        let size = |name: &str, value: Option<usize>, default: usize| match value.unwrap_or(default) {
            0 => Ok(default),
            size if size > u32::MAX as usize => {
                Err(Error::invalid(format!("grpc.{name} {size} is too large")))
            }
            size => Ok(size),
        };
        Ok(Grpc {
            uid: table.uid.unwrap_or(default.uid),
            gid: table.gid.unwrap_or(default.gid),
            mode,
            peer_uids: table.peer_uids.clone().unwrap_or_default(),
            tcp: self.tcp()?,
            max_receive: size(
                "max_recv_message_size",
                table.max_recv_message_size,
                default.max_receive,
            )?,
            max_send: size(
                "max_send_message_size",
                table.max_send_message_size,
                default.max_send,
            )?,
        })
    }

    /// TCP without certificates is refused, and so are certificates without TCP: they would have no effect.
    fn tcp(&self) -> Result<Option<Tcp>> {
        let table = &self.grpc;
        let files = [
            ("tcp_tls_cert", &table.tcp_tls_cert),
            ("tcp_tls_key", &table.tcp_tls_key),
            ("tcp_tls_ca", &table.tcp_tls_ca),
        ];
        let file = |(name, file): (&str, &Option<PathBuf>)| match file {
            Some(file) if file.is_absolute() => Ok(file.clone()),
            Some(file) => Err(Error::invalid(format!(
                "grpc.{name} {} must be an absolute path",
                file.display()
            ))),
            None => Err(Error::invalid(format!(
                "grpc.tcp_address is served with mutual TLS only: grpc.{name} must be set"
            ))),
        };
        let Some(address) = table.tcp_address.as_deref().filter(|address| !address.is_empty()) else {
            return match files.iter().find(|(_, file)| file.is_some()) {
                Some((name, _)) => Err(Error::invalid(format!(
                    "grpc.{name} has no effect without grpc.tcp_address"
                ))),
                None => Ok(None),
            };
        };
        Ok(Some(Tcp {
            address: socket_address("grpc.tcp_address", address)?,
            certificate: file(files[0])?,
            key: file(files[1])?,
            authority: file(files[2])?,
        }))
    }

    fn metrics(&self) -> Result<Option<Metrics>> {
        let address = self
            .metrics
            .address
            .as_deref()
            .filter(|address| !address.is_empty());
        address
            .map(|address| {
                Ok(Metrics {
                    address: socket_address("metrics.address", address)?,
                    grpc_histogram: self.metrics.grpc_histogram.unwrap_or_default(),
                })
            })
            .transpose()
    }

    fn restart_interval(&self) -> Result<std::time::Duration> {
        let interval = self.plugins.restart.interval.as_deref();
        interval.map_or(Ok(restart::INTERVAL), |text| {
            restart::interval(text)
                .map_err(|error| error.context("plugins.\"io.containerd.monitor.container.v1.restart\""))
        })
    }

    fn tracing(&self) -> Result<Vec<(&'static str, String)>> {
        let (otlp, tracing) = (&self.plugins.otlp, &self.plugins.tracing);
        let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let Some(endpoint) = set(&otlp.endpoint) else {
            return Ok(Vec::new());
        };
        if !cfg!(feature = "otlp") {
            return Err(Error::unimplemented(
                "plugins.\"io.containerd.tracing.processor.v1.otlp\": this wharfd was built without the feature otlp",
            ));
        }
        if otlp
            .insecure
            .is_some_and(|insecure| insecure != endpoint.starts_with("http://"))
        {
            return Err(Error::invalid(format!(
                "plugins.\"io.containerd.tracing.processor.v1.otlp\".insecure contradicts the endpoint {endpoint}"
            )));
        }
        let mut variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
        variables.extend(set(&otlp.protocol).map(|value| ("OTEL_EXPORTER_OTLP_PROTOCOL", value)));
        variables.extend(set(&tracing.service_name).map(|value| ("OTEL_SERVICE_NAME", value)));
        if let Some(ratio) = tracing.sampling_ratio {
            variables.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()));
            variables.push(("OTEL_TRACES_SAMPLER_ARG", ratio.to_string()));
        }
        Ok(variables)
    }

    /// The settings of snapshotters.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the setting.
    fn snapshots(&self) -> Result<Settings> {
        let mut settings = Settings {
            overlay_options: self.plugins.overlay.mount_options.clone(),
            ..Settings::default()
        };
        for option in &settings.overlay_options {
            if option.contains(',')
                || ["lowerdir", "upperdir", "workdir"]
                    .iter()
                    .any(|own| option.starts_with(own))
            {
                return Err(Error::invalid(format!("mount_options: {option:?} cannot be set")));
            }
        }
        for uri in self.disabled_plugins.iter().filter(|uri| *uri != OPT) {
            let name = uri.strip_prefix(SNAPSHOTTER).ok_or_else(|| {
                Error::invalid(format!(
                    "disabled_plugins: {uri:?} is neither a snapshotter ({SNAPSHOTTER}NAME) nor {OPT}"
                ))
            })?;
            settings.disabled.insert(name.to_owned());
        }
        for (name, plugin) in &self.proxy_plugins {
            if plugin.r#type != "snapshot" {
                return Err(Error::unimplemented(format!(
                    "proxy_plugins.{name}: type {:?}, only \"snapshot\" is supported",
                    plugin.r#type
                )));
            }
            let address = plugin.address.strip_prefix("unix://").unwrap_or(&plugin.address);
            if !address.starts_with('/') {
                return Err(Error::invalid(format!(
                    "proxy_plugins.{name}: address {address:?} must be an absolute path"
                )));
            }
            crate::identifier::validate(name)
                .map_err(|error| error.context(format!("proxy_plugins.{name}")))?;
            settings.proxies.insert(
                name.clone(),
                snapshot::Proxy {
                    address: address.into(),
                    capabilities: plugin.capabilities.clone(),
                    exports: plugin.exports.clone(),
                },
            );
        }
        Ok(settings)
    }

    /// The external programs for layers, by name.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the setting.
    fn processors(&self) -> Result<Processors> {
        let checked = self.stream_processors.iter().map(|(id, processor)| {
            let invalid = |what: &str| Error::invalid(format!("stream_processors.{id}: {what}"));
            if processor.path.is_empty() || processor.path.contains('/') && !processor.path.starts_with('/') {
                return Err(invalid("path must be absolute, or a name on $PATH"));
            }
            if processor.accepts.is_empty() || processor.accepts.contains(&String::new()) {
                return Err(invalid("accepts must name media types"));
            }
            if processor.returns.is_empty() {
                return Err(invalid("returns must name a media type"));
            }
            if processor
                .env
                .iter()
                .any(|pair| pair.split_once('=').is_none_or(|(key, _)| key.is_empty()))
            {
                return Err(invalid("env must have the form KEY=VALUE"));
            }
            if processor.timeout_seconds == 0 {
                return Err(invalid("timeout_seconds must not be 0"));
            }
            Ok(Processor {
                id: id.clone(),
                accepts: processor.accepts.clone(),
                returns: processor.returns.clone(),
                path: processor.path.clone(),
                args: processor.args.clone(),
                env: processor.env.clone(),
                timeout: std::time::Duration::from_secs(processor.timeout_seconds),
            })
        });
        checked.collect::<Result<_>>().map(Processors)
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none; `InvalidArgument` when it is not TOML or has an unknown key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!("configuration {}", path.display())),
            _ => Error::io(format!("read {}", path.display()), source),
        })?;
        toml::from_str(&text)
            .map_err(|error| Error::invalid(format!("configuration {}: {}", path.display(), error.message())))
    }
}
