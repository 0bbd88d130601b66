//! What one instance of the supervisor needs to know.

use std::path::PathBuf;

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/wharf/supervisor".into(),
            state: "/run/wharf/supervisor".into(),
            address: "/run/wharf/wharfd.sock".into(),
            shim: None,
        }
    }
}
