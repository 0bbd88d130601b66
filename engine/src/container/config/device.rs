//! Devices: the rules every container has, and nodes of the host that a request asks for.

use crate::api::types::{DeviceMapping, HostConfig};
use crate::error::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use serde_json::{Value, json};
use std::path::Path;

/// Nodes and rules for the OCI spec.
#[derive(Debug, Default, PartialEq)]
pub struct Devices {
    /// `linux.devices`.
    pub nodes: Vec<Value>,
    /// `linux.resources.devices`.
    pub rules: Vec<Value>,
}

// zero, null, full, random, urandom, tty, console, ptmx, and the terminals of devpts (any minor).
const ALWAYS: [(u32, Option<u32>); 9] = [
    (1, Some(5)),
    (1, Some(3)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The devices of a container.
///
/// # Errors
///
/// A path of the host is not a device, or the permissions are not of `r`, `w` and `m`.
pub fn devices(host: &HostConfig) -> Result<Devices> {
    let mut devices = Devices::default();
    if host.privileged {
        devices.rules.push(json!({ "allow": true, "access": "rwm" }));
        add_all(Path::new("/dev"), &mut devices.nodes, 0);
    } else {
        devices.rules.push(json!({ "allow": false, "access": "rwm" }));
        // Making a node is harmless: opening it is what the other rules are about.
        for kind in ["c", "b"] {
            devices
                .rules
                .push(json!({ "allow": true, "type": kind, "access": "m" }));
        }
        for (major, minor) in ALWAYS {
            let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
            if let Some(minor) = minor {
                rule["minor"] = minor.into();
            }
            devices.rules.push(rule);
        }
    }
    for mapping in &host.devices {
        add_mapping(mapping, host.privileged, &mut devices)?;
    }
    Ok(devices)
}

fn add_mapping(mapping: &DeviceMapping, privileged: bool, devices: &mut Devices) -> Result<()> {
    let inside = if mapping.path_in_container.is_empty() {
        &mapping.path_on_host
    } else {
        &mapping.path_in_container
    };
    if !inside.starts_with("/dev/") || inside.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!(
            "invalid device path in the container: {inside:?} is not below /dev"
        )));
    }
    let access = if mapping.cgroup_permissions.is_empty() {
        "rwm"
    } else {
        &mapping.cgroup_permissions
    };
    if !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(Error::invalid(format!("invalid device mode: {access}")));
    }
    let message = || {
        format!(
            "error gathering device information while adding custom device {:?}",
            mapping.path_on_host
        )
    };
    let (kind, major, minor, node) = stat(Path::new(&mapping.path_on_host), inside)
        .ok_or_else(|| Error::invalid(format!("{}: not a device node", message())))?;
    devices.nodes.retain(|other| other["path"] != inside.as_str());
    devices.nodes.push(node);
    if !privileged {
        let rule = json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
        devices.rules.push(rule);
    }
    Ok(())
}

fn stat(path: &Path, inside: &str) -> Option<(&'static str, u32, u32, Value)> {
    // O_PATH: looking at a device must not open it.
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(fd).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let node = json!({
        "path": inside, "type": kind, "major": major, "minor": minor,
        "fileMode": stat.st_mode & 0o7777, "uid": stat.st_uid, "gid": stat.st_gid,
    });
    Some((kind, major, minor, node))
}

fn add_all(directory: &Path, nodes: &mut Vec<Value>, depth: usize) {
    // What the container has of its own, or what is no device tree.
    const SKIPPED: [&str; 7] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "tty"];
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if depth == 0 && SKIPPED.iter().any(|name| *name == entry.file_name()) || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() && depth < 4 {
            add_all(&path, nodes, depth + 1);
        } else if let Some((.., node)) = stat(&path, &path.to_string_lossy()) {
            nodes.push(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(path: &str, inside: &str, access: &str) -> Result<Devices> {
        let mapping = DeviceMapping {
            path_on_host: path.to_owned(),
            path_in_container: inside.to_owned(),
            cgroup_permissions: access.to_owned(),
        };
        devices(&HostConfig {
            devices: vec![mapping],
            ..Default::default()
        })
    }

    #[test]
    fn a_host_device_gets_a_node_and_a_rule() {
        let made = with("/dev/null", "/dev/zilch", "r").unwrap();
        assert_eq!(made.nodes[0]["path"], "/dev/zilch");
        assert_eq!(made.nodes[0]["minor"], 3);
        let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "r" });
        assert_eq!(made.rules.last(), Some(&rule));
        assert_eq!(made.rules[0], json!({ "allow": false, "access": "rwm" }));
    }

    #[test]
    fn what_is_not_a_device_is_refused() {
        assert!(with("/etc/passwd", "", "").is_err());
        assert!(with("/dev/null", "/etc/x", "").is_err());
        assert!(with("/dev/null", "/dev/../etc/x", "").is_err());
        assert!(with("/dev/null", "", "rx").is_err());
    }
}
