//! What one instance of the supervisor needs to know, and the file it can be told in. This one is long because each part of
//! the daemon has its table here, with the checks of it.
//!
//! ```toml
//! root = "/var/lib/wharf/supervisor"
//! state = "/run/wharf/supervisor"
//! address = "/run/wharf/wharfd.sock"
//! log_level = "info"
//! log_format = "text"                                          # or "json", or "journal" for lines with their priority
//! shim = "/usr/libexec/wharf/containerd-shim-wharf-v2"
//! disabled_plugins = ["io.containerd.snapshotter.v1.btrfs"]    # snapshotters only
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
//! [registry]
//! hosts = ["/etc/containerd/certs.d", "/etc/docker/certs.d"]
//! docker_config = "/root/.docker/config.json"
//! ```
//!
//! All keys are optional; a key that is not known is an error, so that a misspelt one is not silently without effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    layer::{Processor, Processors},
    snapshot::{self, Settings},
    transfer,
};

/// The configuration of one instance. Instances with their own root, state and address run side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Persistent state: metadata, content, snapshots. Default `/var/lib/wharf/supervisor`.
    pub root: PathBuf,
    /// State of this boot: bundles of tasks. Default `/run/wharf/supervisor`.
    pub state: PathBuf,
    /// The unix socket the gRPC API is served on, also given to shims. Default `/run/wharf/wharfd.sock`.
    pub address: PathBuf,
    /// The executable to start for the runtimes of Wharf and runc. Default: `containerd-shim-wharf-v2` beside the
    /// daemon's executable, then on `$PATH`.
    pub shim: Option<PathBuf>,
    /// How registries are reached.
    pub registry: Registry,
    /// Which snapshotters there are. Default: all that work here, and no external ones.
    pub snapshots: Settings,
    /// How much transfers do at the same time.
    pub transfer: transfer::Settings,
    /// External programs for layers that are not understood here. Default: none.
    pub processors: Processors,
    /// How the API is served.
    pub grpc: Grpc,
    /// Where metrics are served. By default nowhere.
    pub metrics: Option<Metrics>,
    /// What is configured of tracing, as the `OTEL_…` variables that say the same. Always empty without the feature `otlp`.
    pub tracing: Vec<(&'static str, String)>,
}

/// How the API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// The owner of the socket. Default: root.
    pub uid: u32,
    /// Its group. Default: root's.
    pub gid: u32,
    /// Its mode. Default 0660.
    pub mode: u32,
    /// The users whose processes may connect to it; empty, the default: whoever can open it.
    pub peer_uids: Vec<u32>,
    /// The API for clients with a certificate. By default there is none.
    pub tcp: Option<Tcp>,
    /// The largest request message, in bytes. Default 16 MiB.
    pub max_receive: usize,
    /// The largest response message, in bytes. Default 16 MiB.
    pub max_send: usize,
}

/// The API over TCP, with mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// What is listened on.
    pub address: SocketAddr,
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities that sign certificates of clients, PEM.
    pub authority: PathBuf,
}

/// Where metrics are served, over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// What is listened on.
    pub address: SocketAddr,
    /// Whether the time each call takes is counted as well.
    pub grpc_histogram: bool,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode: 0o660,
            peer_uids: Vec::new(),
            tcp: None,
            max_receive: MAX_MESSAGE,
            max_send: MAX_MESSAGE,
        }
    }
}

/// The largest message that is taken or sent unless told otherwise, in bytes: containerd's 16 MiB.
pub const MAX_MESSAGE: usize = 16 << 20;

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Directories with mirrors, certificate authorities and client certificates by registry, as containerd's `certs.d`.
    /// Default `/etc/containerd/certs.d` and `/etc/docker/certs.d`; the first one that speaks of a registry counts.
    pub hosts: Vec<PathBuf>,
    /// Docker's `config.json`, whose credentials and credential helpers are used where a caller brings none of its own.
    /// By default there is none: who may ask for a pull may then use them.
    pub docker_config: Option<PathBuf>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            hosts: vec!["/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()],
            docker_config: None,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/wharf/supervisor".into(),
            state: "/run/wharf/supervisor".into(),
            address: "/run/wharf/wharfd.sock".into(),
            shim: None,
            registry: Registry::default(),
            snapshots: Settings::default(),
            transfer: transfer::Settings::default(),
            processors: Processors::default(),
            grpc: Grpc::default(),
            metrics: None,
            tracing: Vec::new(),
        }
    }
}

impl Config {
    /// Checks what the services rely on: all three are absolute paths, and root and state are not the same.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the setting.
    pub fn validate(&self) -> Result<()> {
        for (name, path) in [
            ("root", &self.root),
            ("state", &self.state),
            ("address", &self.address),
        ] {
            if !path.is_absolute() {
                return Err(Error::invalid(format!(
                    "{name} {} must be an absolute path",
                    path.display()
                )));
            }
            // Paths are joined by `:` and `,` in the options of an overlay mount.
            let text = path.to_string_lossy();
            if text.contains([':', ',', '\\']) || path.to_str().is_none() {
                return Err(Error::invalid(format!(
                    "{name} {} must be UTF-8 without colon, comma and backslash",
                    path.display()
                )));
            }
        }
        for path in self.registry.hosts.iter().chain(&self.registry.docker_config) {
            if !path.is_absolute() {
                return Err(Error::invalid(format!(
                    "registry: {} must be an absolute path",
                    path.display()
                )));
            }
        }
        self.transfer.validate()?;
        if self.root == self.state {
            return Err(Error::invalid("root and state must be different directories"));
        }
        Ok(())
    }
}

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
    /// Plugins that are not loaded, by containerd's URIs. Only snapshotters can be left out.
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
        let config = Config {
            root: self.root.clone().unwrap_or(default.root),
            state: self.state.clone().unwrap_or(default.state),
            address: self.address.clone().unwrap_or(default.address),
            shim: self.shim.clone(),
            registry: self.registry.clone(),
            snapshots: self.snapshots()?,
            transfer: self.plugins.transfer.clone(),
            processors: self.processors()?,
            grpc: self.grpc()?,
            metrics: self.metrics()?,
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
        for uri in &self.disabled_plugins {
            let name = uri.strip_prefix(SNAPSHOTTER).ok_or_else(|| {
                Error::invalid(format!(
                    "disabled_plugins: {uri:?} is not a snapshotter ({SNAPSHOTTER}NAME)"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "root = \"/x\"\n").unwrap();
        assert_eq!(File::read(file.path()).unwrap().root, Some("/x".into()));
        std::fs::write(file.path(), "rooot = \"/x\"\n").unwrap();
        let error = File::read(file.path()).unwrap_err().to_string();
        assert!(error.contains("rooot"), "{error}");
    }

    fn config(text: &str) -> Result<Config> {
        toml::from_str::<File>(text)
            .map_err(|error| Error::invalid(error.to_string()))
            .and_then(|file| file.config())
    }

    #[test]
    fn the_default_file_means_the_default_configuration() {
        let text = File::default().complete().to_toml().unwrap();
        assert_eq!(config(&text).unwrap(), Config::default(), "{text}");
        let own = "log_level = 'debug'\n[grpc]\nuid = 7\nmode = 0o600\n[metrics]\naddress = '[::1]:1'\n\
                   [proxy_plugins.x]\ntype = 'snapshot'\naddress = '/x'\n";
        let file: File = toml::from_str(own).unwrap();
        let again: File = toml::from_str(&file.clone().complete().to_toml().unwrap()).unwrap();
        assert_eq!(again.config().unwrap(), file.config().unwrap());
        assert_eq!(file.config().unwrap().grpc.mode, 0o600);
    }

    #[test]
    fn tracing_is_configured_as_containerds_is() {
        let text = "[plugins.'io.containerd.tracing.processor.v1.otlp']\nendpoint = 'http://c:4318'\ninsecure = true\n\
                    [plugins.'io.containerd.internal.v1.tracing']\nsampling_ratio = 0.5\n";
        if cfg!(feature = "otlp") {
            let config = config(text).unwrap();
            assert_eq!(
                config.tracing[0],
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318".to_owned())
            );
            assert_eq!(config.tracing.last().unwrap().1, "0.5");
            assert!(super::tests::config(&text.replace("http:", "https:")).is_err());
        } else {
            let error = config(text).unwrap_err().to_string();
            assert!(error.contains("feature otlp"), "{error}");
        }
    }

    #[test]
    fn tcp_is_served_with_mutual_tls_only() {
        let all = "tcp_tls_cert = '/c'\ntcp_tls_key = '/k'\ntcp_tls_ca = '/a'\n";
        let tcp = config(&format!("[grpc]\ntcp_address = '127.0.0.1:1'\n{all}"))
            .unwrap()
            .grpc
            .tcp
            .unwrap();
        assert_eq!(tcp.authority, Path::new("/a"));
        for missing in ["tcp_tls_cert", "tcp_tls_key", "tcp_tls_ca"] {
            let rest: String = all
                .lines()
                .filter(|line| !line.starts_with(missing))
                .map(|line| format!("{line}\n"))
                .collect();
            let error = config(&format!("[grpc]\ntcp_address = '127.0.0.1:1'\n{rest}")).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
        assert!(
            config(&format!("[grpc]\n{all}")).is_err(),
            "files without an address"
        );
        for bad in [
            "[grpc]\nmode = 0o4777",
            "[grpc]\nmode = 0o060",
            "[grpc]\ntcp_address = 'localhost:1'\ntcp_tls_cert = '/c'\ntcp_tls_key = '/k'\ntcp_tls_ca = '/a'",
            "[grpc]\nmax_recv_message_size = 99999999999",
            "[metrics]\naddress = ':1338'",
        ] {
            assert!(config(bad).is_err(), "{bad}");
        }
        // containerd's default configuration says 0 where it means its own default.
        let zero = config("[grpc]\nmax_recv_message_size = 0\ntcp_address = ''").unwrap();
        assert_eq!(zero.grpc, Grpc::default());
    }

    #[test]
    fn paths_that_mount_options_cannot_carry_are_refused() {
        let with_root = |root: &str| {
            Config {
                root: root.into(),
                ..Config::default()
            }
            .validate()
        };
        with_root("/a/b").unwrap();
        for bad in ["a/b", "/a:b", "/a,b", "/a\\b", "/run/wharf/supervisor"] {
            assert!(with_root(bad).is_err(), "{bad:?} was accepted");
        }
    }

    fn settings(text: &str) -> Result<Settings> {
        toml::from_str::<File>(text)
            .map_err(|error| Error::invalid(error.to_string()))
            .and_then(|file| file.snapshots())
    }

    #[test]
    fn snapshotters_are_configured_as_containerds_are() {
        let settings = settings(
            "disabled_plugins = ['io.containerd.snapshotter.v1.btrfs']\n\
             [proxy_plugins.far]\ntype = 'snapshot'\naddress = 'unix:///run/far'\ncapabilities = ['rebase']\n\
             [proxy_plugins.far.exports]\nroot = '/r'\n\
             [plugins.'io.containerd.snapshotter.v1.overlayfs']\nmount_options = ['volatile']\n",
        )
        .unwrap();
        assert!(settings.disabled.contains("btrfs"));
        assert_eq!(settings.overlay_options, ["volatile"]);
        let far = &settings.proxies["far"];
        assert_eq!(
            (far.address.as_path(), &far.capabilities[..]),
            (Path::new("/run/far"), &["rebase".to_owned()][..])
        );
        assert_eq!(far.exports["root"], "/r");
    }

    #[test]
    fn processors_are_configured_as_containerds_are() {
        let processors = |text: &str| {
            toml::from_str::<File>(text)
                .map_err(|error| Error::invalid(error.to_string()))
                .and_then(|file| file.processors())
        };
        let one = "[stream_processors.one]\naccepts = ['a']\nreturns = 'b'\npath = 'decoder'\n";
        let read = processors(&format!("{one}args = ['-d']\nenv = ['K=V=W']\n")).unwrap();
        assert_eq!((read.0[0].id.as_str(), read.0[0].timeout.as_secs()), ("one", 300));
        for (from, to) in [
            ("['a']", "[]"),
            ("'b'", "''"),
            ("'decoder'", "'bin/decoder'"),
            ("'decoder'", "'decoder'\nenv = ['K']"),
            ("'decoder'", "'decoder'\ntimeout_seconds = 0"),
            ("'decoder'", "'decoder'\nshell = true"),
        ] {
            assert!(processors(&one.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        for text in [
            "disabled_plugins = ['io.containerd.grpc.v1.cri']",
            "[proxy_plugins.x]\ntype = 'diff'\naddress = '/x'",
            "[proxy_plugins.x]\ntype = 'snapshot'\naddress = 'x'",
            "[proxy_plugins.'a b']\ntype = 'snapshot'\naddress = '/x'",
            "[plugins.'io.containerd.snapshotter.v1.overlayfs']\nmount_options = ['lowerdir=/']",
            "[plugins.'io.containerd.snapshotter.v1.devmapper']\nroot_path = '/'",
        ] {
            assert!(settings(text).is_err(), "{text}");
        }
    }
}
