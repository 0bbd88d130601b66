//! The root file system: its mounts, devices, covered and read-only paths.

use std::ffi::CString;
use std::path::Path;

use super::text::{Target, beneath_root, c_path};
use super::{Device, Error, Facts, Link, Operation, device, mount};
use crate::spec::oci;

/// The root file system, ready to be built by the child half.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootfsPlan {
    /// The directory on the host, absolute.
    pub path: CString,
    /// Propagation of the host's mounts into the new mount namespace; `MS_REC` included.
    pub propagation: u64,
    /// Propagation of the container's root when it stands, if the configuration asks for one.
    pub root_propagation: Option<u64>,
    /// Make the root read-only at the end.
    pub read_only: bool,
    /// Move the root mount instead of `pivot_root`.
    pub no_pivot: bool,
    /// In order.
    pub operations: Vec<Operation>,
    /// Nodes; none when `/dev` is the host's.
    pub devices: Vec<Device>,
    /// Links of `/dev`.
    pub links: Vec<Link>,
    /// `/dev/console`, to be covered with the terminal.
    pub console: Option<Target>,
    /// Covered with nothing: `/dev/null` for a file, an empty directory for a directory.
    pub masked: Vec<CString>,
    /// Bound on themselves read-only.
    pub read_only_paths: Vec<CString>,
    /// The working directory, made when it is missing; nothing for `/`.
    pub cwd: Option<Target>,
}

pub(super) fn compile(
    spec: &oci::Spec,
    linux: &oci::Linux,
    terminal: bool,
    facts: &Facts<'_>,
) -> Result<RootfsPlan, Error> {
    let root = spec
        .root
        .as_ref()
        .ok_or_else(|| Error::field("root", "is needed"))?;
    if root.path.as_os_str().is_empty() {
        return Err(Error::field("root.path", "must not be empty"));
    }
    let label = Some(linux.mount_label.as_str()).filter(|label| !label.is_empty());
    if label.is_some() && !facts.lsm.selinux {
        return Err(Error::field(
            "linux.mountLabel",
            "SELinux is not enabled on this host",
        ));
    }
    let mounts = &spec.mounts;
    let own_dev = !mounts.iter().any(covers_dev_with_host);
    let propagation = root_propagation(linux)?;
    let paths = |field: &str, paths: &[String]| -> Result<Vec<CString>, Error> {
        let clean = paths.iter().map(|path| beneath_root(Path::new(path)));
        clean
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| c_path(field, &path))
            .collect()
    };
    let cwd = spec.process.as_ref().map(|process| beneath_root(&process.cwd));
    Ok(RootfsPlan {
        path: c_path("root.path", &facts.bundle.join(&root.path))?,
        propagation: propagation.unwrap_or(libc::MS_SLAVE | libc::MS_REC),
        root_propagation: propagation,
        read_only: root.readonly,
        no_pivot: facts.no_pivot,
        operations: mount::compile(mounts, label, facts)?,
        devices: if own_dev {
            device::compile(&linux.devices)?
        } else {
            Vec::new()
        },
        links: if own_dev { device::links()? } else { Vec::new() },
        console: match terminal && own_dev {
            true => Some(Target::new("process.terminal", Path::new("/dev/console"))?),
            false => None,
        },
        masked: paths("linux.maskedPaths", &linux.masked_paths)?,
        read_only_paths: paths("linux.readonlyPaths", &linux.readonly_paths)?,
        cwd: match cwd {
            Some(cwd) if !cwd.as_os_str().is_empty() => Some(Target::new("process.cwd", &cwd)?),
            _ => None,
        },
    })
}

/// A `/dev` that is bound from the host has its nodes, and they are not ours to change.
fn covers_dev_with_host(mount: &oci::Mount) -> bool {
    let bound = mount.typ == "bind"
        || mount
            .options
            .iter()
            .any(|option| option == "bind" || option == "rbind");
    bound && beneath_root(&mount.destination) == Path::new("dev")
}

fn root_propagation(linux: &oci::Linux) -> Result<Option<u64>, Error> {
    let name = linux.rootfs_propagation.as_str();
    if name.is_empty() {
        return Ok(None);
    }
    let (name, tree) = match name.strip_prefix('r') {
        Some(rest) => (rest, libc::MS_REC),
        None => (name, 0),
    };
    let kind = match name {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return Err(Error::field("linux.rootfsPropagation", "is no propagation type")),
    };
    Ok(Some(kind | tree))
}
