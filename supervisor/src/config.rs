//! What one instance of the supervisor needs to know, and the file it can be told in.
//!
//! ```toml
//! root = "/var/lib/wharf/supervisor"
//! state = "/run/wharf/supervisor"
//! address = "/run/wharf/wharfd.sock"
//! log_level = "info"
//! shim = "/usr/libexec/wharf/containerd-shim-wharf-v2"
//! disabled_plugins = ["io.containerd.snapshotter.v1.btrfs"]    # snapshotters only
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
//! [registry]
//! hosts = ["/etc/containerd/certs.d", "/etc/docker/certs.d"]
//! docker_config = "/root/.docker/config.json"
//! ```
//!
//! All keys are optional; a key that is not known is an error, so that a misspelt one is not silently without effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

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
}

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
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
    /// See [`Config::registry`].
    #[serde(default)]
    pub registry: Registry,
    /// How much is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
    /// Plugins that are not loaded, by containerd's URIs. Only snapshotters can be left out.
    #[serde(default)]
    disabled_plugins: BTreeSet<String>,
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

/// An external plugin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugins {
    #[serde(default, rename = "io.containerd.snapshotter.v1.overlayfs")]
    overlay: OverlayPlugin,
    #[serde(default, rename = "io.containerd.transfer.v1.local")]
    transfer: transfer::Settings,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverlayPlugin {
    #[serde(default)]
    mount_options: Vec<String>,
}

/// What a snapshotter's URI begins with.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1.";

impl File {
    /// The settings of snapshotters.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the setting.
    pub fn snapshots(&self) -> Result<Settings> {
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

    /// How much transfers do at the same time.
    pub fn transfer(&self) -> transfer::Settings {
        self.plugins.transfer.clone()
    }

    /// The external programs for layers, by name.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the setting.
    pub fn processors(&self) -> Result<Processors> {
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
