//! Which snapshotters an instance has.
//!
//! `overlayfs` always; `native` always; `btrfs` where the root is on btrfs; and the external ones that are configured. One
//! that is left out by configuration does not exist; one that cannot work here is told of with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{DEFAULT, Snapshotter, btrfs::Btrfs, native::Native, overlay::Overlay, proxy};
use crate::error::{Error, Result};

/// What can be configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Names of built-in snapshotters to leave out.
    pub disabled: BTreeSet<String>,
    /// Options that every overlay mount gets.
    pub overlay_options: Vec<String>,
    /// External snapshotters, by name.
    pub proxies: BTreeMap<String, Proxy>,
}

/// An external snapshotter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The unix socket on which it serves `containerd.services.snapshots.v1`.
    pub address: PathBuf,
    /// What clients are told that it can do.
    pub capabilities: Vec<String>,
    /// Facts that clients are told about it.
    pub exports: BTreeMap<String, String>,
}

/// The snapshotters of an instance.
pub struct Loaded {
    /// Those that work, by name.
    pub snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Those that do not work here, and why.
    pub skipped: BTreeMap<String, Error>,
}

/// Opens the snapshotters below `root`; `instance` names the daemon's root to external ones. To be called where tokio runs.
///
/// # Errors
///
/// `InvalidArgument` for an external snapshotter with the name of a built-in one; `Unknown` from the disk.
pub fn load(root: &Path, settings: &Settings, instance: &str) -> Result<Loaded> {
    let mut loaded = Loaded {
        snapshotters: BTreeMap::new(),
        skipped: BTreeMap::new(),
    };
    let wanted = |name: &str| !settings.disabled.contains(name);
    let mut add = |name: &str, opened: Result<Arc<dyn Snapshotter>>| -> Result<()> {
        match opened {
            Ok(snapshotter) => drop(loaded.snapshotters.insert(name.to_owned(), snapshotter)),
            Err(error) if error.kind() == crate::Kind::FailedPrecondition && name != DEFAULT => {
                loaded.skipped.insert(name.to_owned(), error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    };
    if wanted(DEFAULT) {
        let overlay = Overlay::open(&root.join("overlay"), &settings.overlay_options);
        add(DEFAULT, overlay.map(|overlay| Arc::new(overlay) as _))?;
    }
    if wanted("native") {
        let native = Native::open(&root.join("native"));
        add("native", native.map(|native| Arc::new(native) as _))?;
    }
    if wanted("btrfs") {
        let btrfs = Btrfs::open(&root.join("btrfs"));
        add("btrfs", btrfs.map(|btrfs| Arc::new(btrfs) as _))?;
    }
    for (name, settings) in &settings.proxies {
        let built_in = [DEFAULT, "native", "btrfs"].contains(&name.as_str());
        if built_in && wanted(name) {
            return Err(Error::invalid(format!(
                "proxy_plugins.{name}: there is a built-in snapshotter of that name; leave it out by disabled_plugins"
            )));
        }
        let proxy = proxy::Client::open(&root.join("proxy").join(name), name, settings, instance)?;
        add(name, Ok(Arc::new(proxy)))?;
    }
    Ok(loaded)
}
