//! What one instance of the supervisor needs to know.
//!
//! [`Config`] is what the crate is told; [`File`] is the file in which an administrator says it, and what is wrong there is
//! told by the name of the setting.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    layer::Processors,
    snapshot::Settings,
    transfer,
};

mod file;

pub use file::File;

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
    /// Where shims of ours make their sockets. Default: `s` below `state`, or below `/run/wharf-shims` if that is too deep for
    /// the path of a socket.
    pub shim_sockets: Option<PathBuf>,
    /// Where clients install programs. Default: below the root.
    pub opt: Opt,
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
    /// How often it is looked for containers that are to be restarted. Default: 10 s.
    pub restart_interval: std::time::Duration,
    /// What is configured of tracing, as the `OTEL_…` variables that say the same. Always empty without the feature `otlp`.
    pub tracing: Vec<(&'static str, String)>,
}

/// Where clients install programs: containerd's plugin `opt`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Opt {
    /// The directory `opt` below the root.
    #[default]
    BelowRoot,
    /// This directory, an absolute path.
    At(PathBuf),
    /// Nowhere.
    Disabled,
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

/// The longest directory for sockets whose names are SHA-256 digests: containerd's limit, as the kernel takes 107 bytes.
const LONGEST_SOCKET_DIRECTORY: usize = 42;

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
            shim_sockets: None,
            opt: Opt::default(),
            registry: Registry::default(),
            snapshots: Settings::default(),
            transfer: transfer::Settings::default(),
            processors: Processors::default(),
            grpc: Grpc::default(),
            metrics: None,
            restart_interval: crate::restart::INTERVAL,
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
        if let Opt::At(path) = &self.opt
            && (!path.is_absolute() || path.to_str().is_none_or(|text| text.contains(':')))
        {
            return Err(Error::invalid(format!(
                "plugins.\"io.containerd.internal.v1.opt\".path {} must be an absolute UTF-8 path without colon",
                path.display()
            )));
        }
        if let Some(path) = &self.shim_sockets
            && (!path.is_absolute() || path.as_os_str().len() > LONGEST_SOCKET_DIRECTORY)
        {
            return Err(Error::invalid(format!(
                "plugins.\"io.containerd.shim.v1.manager\".socket_dir {} must be an absolute path of at most \
                 {LONGEST_SOCKET_DIRECTORY} bytes",
                path.display()
            )));
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
