//! What tasks, sandboxes and activations of mounts left in the state directory: bundles with their shims, mounts and
//! cgroups.
//!
//! A bundle whose shim answers is a running container's, daemon or not. Of any other the daemon's start makes an end, and so
//! does a repair.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    report::{Fault, Item, Report},
    scan::entries,
};
use crate::{
    boot,
    error::{Error, Result},
    metadata::{self, Key, MOUNTS, Phase, Read as _},
    task::mounts_below,
};

/// Where cgroups are, in a host with one hierarchy or with several.
const CGROUPS: [&str; 3] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/memory",
];

/// How a shim is reached; other facts are the daemon's.
#[derive(Deserialize)]
struct Bootstrap {
    address: String,
}

/// Of an OCI spec, where its cgroup is.
#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    cgroups_path: String,
}

/// Looks at all bundles, activations and mounts below `state`.
pub(super) fn scan(state: &Path, metadata: &metadata::Store, report: &mut Report) -> Result<()> {
    let mut owned = activations(state, metadata, report)?;
    let mut namespaces = entries(&state.join("tasks"))?;
    namespaces.extend(entries(&state.join("sandboxes"))?);
    for (namespace, directory) in namespaces {
        for (id, path) in entries(&directory)? {
            let live = is_live(&path)?;
            let size = own_size(&path)?;
            let shown = path.strip_prefix(state).unwrap_or(&path).display().to_string();
            if live {
                let owner = format!("{namespace}/{id} (its shim runs)");
                report.items.push(Item {
                    kind: "bundle",
                    path: shown,
                    size,
                    owner: owner.clone(),
                });
                report.items.extend(cgroup(&path).map(|path| Item {
                    kind: "cgroup",
                    path,
                    size: 0,
                    owner: owner.clone(),
                }));
                owned.push((path, owner));
            } else {
                let problem = match cgroup(&path) {
                    Some(cgroup) => format!("its shim is dead, its cgroup {cgroup} is left"),
                    None => "its shim is dead".to_owned(),
                };
                report.faults.push(Fault {
                    kind: "bundle",
                    path: shown,
                    size,
                    problem,
                    repair: "clean up after the shim, and remove it",
                    repaired: false,
                    row: None,
                });
            }
        }
    }
    for point in mounts_below(state)? {
        let shown = point.strip_prefix(state).unwrap_or(&point).display().to_string();
        match owned.iter().find(|(bundle, _)| point.starts_with(bundle)) {
            Some((_, owner)) => report.items.push(Item {
                kind: "mount",
                path: shown,
                size: 0,
                owner: owner.clone(),
            }),
            None => report.faults.push(Fault {
                kind: "mount",
                path: shown,
                size: 0,
                problem: "it belongs to no running container".into(),
                repair: "unmount it",
                repaired: false,
                row: None,
            }),
        }
    }
    Ok(())
}

/// The directories of activations that are whole, and whose they are; of others the daemon's start makes an end.
fn activations(
    state: &Path,
    metadata: &metadata::Store,
    report: &mut Report,
) -> Result<Vec<(PathBuf, String)>> {
    let (directory, boot) = (state.join("mounts"), boot::id()?);
    let mut owned = Vec::new();
    for (key, row) in metadata.read(|txn| txn.scan(MOUNTS, &Key::prefix(&[])?))? {
        if row.phase() == Phase::Active && row.boot == boot {
            let owner = format!("{} (mounts)", key.parts()?.join(": "));
            owned.push((directory.join(row.number.to_string()), owner));
        }
    }
    for (_, path) in entries(&directory)? {
        if !owned.iter().any(|(place, _)| *place == path) {
            report.faults.push(Fault {
                kind: "mounts",
                path: path.strip_prefix(state).unwrap_or(&path).display().to_string(),
                size: 0,
                problem: "it belongs to nobody".into(),
                repair: "take it down",
                repaired: false,
                row: None,
            });
        }
    }
    Ok(owned)
}

/// What the bundle's own files take; what is mounted in it is a snapshot's.
fn own_size(bundle: &Path) -> Result<u64> {
    let mut size = 0;
    for (_, path) in entries(bundle)? {
        // A shim that ends meanwhile takes its socket with it.
        if let Ok(metadata) = fs::symlink_metadata(&path)
            && metadata.is_file()
        {
            size += metadata.blocks() * 512;
        }
    }
    Ok(size)
}

/// Whether somebody listens where the bundle says that its shim does.
fn is_live(bundle: &Path) -> Result<bool> {
    let read = |name: &str| match fs::read_to_string(bundle.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other
            .map(Some)
            .map_err(|source| Error::io(format!("read {}", bundle.join(name).display()), source)),
    };
    let address = match read("bootstrap.json")? {
        Some(text) => serde_json::from_str::<Bootstrap>(&text)
            .map(|bootstrap| bootstrap.address)
            .unwrap_or_default(),
        None => read("address")?.unwrap_or_default(),
    };
    let Some(path) = address.trim().strip_prefix("unix://") else {
        return Ok(false);
    };
    match UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(false)
        }
        // It may only be slow.
        Err(_) => Ok(true),
    }
}

/// The bundle's cgroup, where there is one.
fn cgroup(bundle: &Path) -> Option<String> {
    let spec = fs::read(bundle.join("config.json")).ok()?;
    let path = serde_json::from_slice::<Spec>(&spec).ok()?.linux.cgroups_path;
    let below = path.trim_start_matches('/');
    // A systemd path has another form, and a spec may say nothing.
    if below.is_empty() || below.contains(':') || below.split('/').any(|part| part == "..") {
        return None;
    }
    CGROUPS
        .iter()
        .map(|root| Path::new(root).join(below))
        .find(|path| path.is_dir())
        .map(|path| path.display().to_string())
}
