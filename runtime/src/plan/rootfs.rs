//! The root file system: its mounts, devices, covered and read-only paths.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::mount::Context;
use super::options::Parameters;
use super::text::{Target, beneath_root, c_path, c_string};
use super::{Device, Error, Facts, Link, Namespaces, Operation, Source, device, mount};
use crate::rootfs::Way;
use crate::spec::oci;
use crate::sys::Fd;

/// The root file system, ready to be built by the child half.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootfsPlan {
    /// The directory on the host, absolute.
    pub path: CString,
    /// Propagation of the host's mounts into the new mount namespace; `MS_REC` included. Nothing: it is the host's.
    pub propagation: Option<u64>,
    /// Propagation of the container's root when it stands, if the configuration asks for one.
    pub root_propagation: Option<u64>,
    /// Make the root read-only at the end.
    pub read_only: bool,
    /// How it becomes the root.
    pub(crate) way: Way,
    /// Whole file systems of the host that are taken out of sight when the old root stays below the new one.
    pub hidden: Vec<CString>,
    /// Mounts are made on a staging place.
    pub staging: bool,
    /// In order.
    pub operations: Vec<Operation>,
    /// How many of them, from the first on, have nothing to do with control groups and cost next to nothing: file systems
    /// that are new and empty.
    pub(crate) groupless: usize,
    /// The others are entries of a directory that no other step of the plan comes near: they may be made last.
    pub(crate) entries_last: bool,
    /// Nodes; none when `/dev` is the host's.
    pub devices: Vec<Device>,
    /// Links of `/dev`.
    pub links: Vec<Link>,
    /// `/dev/console`, to be covered with the terminal.
    pub console: Option<Target>,
    /// Make it if it is not there: not in a `/dev` of the host's.
    pub console_made: bool,
    /// Covered with nothing: `/dev/null` for a file, an empty directory for a directory.
    pub masked: Vec<CString>,
    /// Parameters of the tmpfs that is that directory, the first that the kernel takes.
    pub empty: Vec<Parameters>,
    /// Bound on themselves read-only.
    pub read_only_paths: Vec<CString>,
    /// The working directory, made when it is missing; nothing for `/`.
    pub cwd: Option<Target>,
    /// Room for the mounts that are kept open until then.
    pub(crate) late: Vec<Late>,
    /// What was left out, one sentence each.
    pub warnings: Vec<String>,
}

/// A mount that is kept open while the root file system is built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Late {
    pub(crate) mount: Fd,
    /// It is made read-only at the end.
    pub(crate) read_only: bool,
}

pub(super) fn compile(
    spec: &oci::Spec,
    linux: &oci::Linux,
    namespaces: &Namespaces,
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
    let dev_of_host = mounts.iter().rfind(|mount| covers_dev_with_host(mount));
    let own_dev = dev_of_host.is_none();
    let propagation = root_propagation(linux)?;
    let own_mounts = namespaces.has(libc::CLONE_NEWNS);
    let restricts = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
    if restricts && !own_mounts {
        return Err(Error::field(
            "linux.maskedPaths and linux.readonlyPaths",
            "unable to restrict sys entries without a private MNT namespace",
        ));
    }
    if facts.no_pivot && propagation.is_some_and(|kind| kind & libc::MS_PRIVATE != 0) {
        return Err(Error::field(
            "linux.rootfsPropagation",
            "of [r]private is not safe without pivot_root",
        ));
    }
    let path = facts.bundle.join(&root.path);
    let mut warnings = Vec::new();
    let context = Context {
        rootfs: &path,
        label,
        user_namespace: namespaces.has(libc::CLONE_NEWUSER),
        facts,
    };
    let operations = mount::compile(mounts, &context, &mut warnings)?;
    let (mut legacy, mut late) = (false, 0);
    for operation in &operations {
        if let Operation::Mount(mount) = operation {
            legacy |= matches!(mount.source, Source::New { legacy: true, .. });
            late += usize::from(mount.late_read_only || mount.has_entries);
        }
    }
    let cwd = spec.process.as_ref().map(|process| beneath_root(&process.cwd));
    let groupless = operations
        .iter()
        .take_while(|operation| is_groupless(operation))
        .count();
    let read_only_paths = paths("linux.readonlyPaths", &linux.readonly_paths)?;
    let devices = match own_dev {
        true => device::compile(&linux.devices)?,
        false => Vec::new(),
    };
    let cwd = match cwd {
        Some(cwd) if !cwd.as_os_str().is_empty() => Some(Target::new("process.cwd", &cwd)?),
        _ => None,
    };
    let made: Vec<&CStr> = devices
        .iter()
        .map(|device| &device.target)
        .chain(&cwd)
        .map(|target| target.path.as_c_str())
        .collect();
    let entries_last = are_apart(operations.split_at(groupless), &made, &read_only_paths);
    Ok(RootfsPlan {
        path: c_path("root.path", &path)?,
        propagation: own_mounts.then_some(propagation.unwrap_or(libc::MS_SLAVE | libc::MS_REC)),
        root_propagation: propagation,
        read_only: root.readonly,
        way: match (own_mounts, facts.no_pivot) {
            (false, _) => Way::Chroot,
            (true, true) => Way::Move,
            (true, false) => Way::Pivot,
        },
        hidden: facts
            .whole_views
            .iter()
            .map(|path| c_path("/proc/self/mountinfo", path))
            .collect::<Result<_, _>>()?,
        staging: facts.staging || legacy,
        groupless,
        entries_last,
        operations,
        devices,
        links: if own_dev { device::links()? } else { Vec::new() },
        console: match terminal && !dev_of_host.is_some_and(spreads) {
            true => Some(Target::new("process.terminal", Path::new("/dev/console"))?),
            false => None,
        },
        console_made: own_dev,
        masked: paths("linux.maskedPaths", &linux.masked_paths)?,
        empty: match linux.masked_paths.is_empty() {
            true => Vec::new(),
            false => empty_directory(label)?,
        },
        read_only_paths,
        cwd,
        late: Vec::with_capacity(late),
        warnings,
    })
}

/// Whether a process can do that before it is in its control groups. What comes from the host may be a group or a disk, and what
/// is copied from the image may be large.
fn is_groupless(operation: &Operation) -> bool {
    let Operation::Mount(mount) = operation else {
        return false;
    };
    let Source::New { kind, .. } = &mount.source else {
        return false;
    };
    let is_empty = matches!(
        kind.to_bytes(),
        b"proc" | b"sysfs" | b"tmpfs" | b"devpts" | b"mqueue"
    );
    is_empty && !mount.copy_up && mount.entry.is_none()
}

/// Whether the operations after the first ones only fill the directory that was made before, and nothing else is made in it or of it
/// (a copy that is made read-only would lack what is made later).
fn are_apart((first, rest): (&[Operation], &[Operation]), made: &[&CStr], read_only: &[CString]) -> bool {
    let directory = first.iter().rev().find_map(|operation| match operation {
        Operation::Mount(mount) if mount.has_entries => Some(as_path(&mount.target.path)),
        _ => None,
    });
    directory.is_some_and(|directory| {
        let fills = |operation: &Operation| match operation {
            Operation::Mount(mount) => mount.entry.is_some(),
            Operation::Link { at, .. } => as_path(&at.path).starts_with(directory),
            Operation::Remount { .. } => false,
        };
        rest.iter().all(fills)
            && !made.iter().any(|path| as_path(path).starts_with(directory))
            && !read_only.iter().any(|path| directory.starts_with(as_path(path)))
    })
}

fn as_path(text: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(text.to_bytes()))
}

/// Paths in the container, each once.
fn paths(field: &str, paths: &[String]) -> Result<Vec<CString>, Error> {
    let mut clean = Vec::with_capacity(paths.len());
    let mut known = BTreeSet::new();
    for (index, path) in paths.iter().enumerate() {
        let path = beneath_root(Path::new(path));
        if path.as_os_str().is_empty() {
            continue;
        }
        let path = c_path(&format!("{field}[{index}]"), &path)?;
        if known.insert(path.clone()) {
            clean.push(path);
        }
    }
    Ok(clean)
}

/// A tmpfs into which nothing fits. Ubuntu's kernel 5.4 wants a second inode.
fn empty_directory(label: Option<&str>) -> Result<Vec<Parameters>, Error> {
    let inodes = [c"1", c"2"];
    inodes
        .into_iter()
        .map(|inodes| {
            let mut parameters = vec![
                (c"source".to_owned(), Some(c"tmpfs".to_owned())),
                (c"ro".to_owned(), None),
                (c"nr_blocks".to_owned(), Some(c"1".to_owned())),
                (c"nr_inodes".to_owned(), Some(inodes.to_owned())),
            ];
            if let Some(label) = label {
                parameters.push((c"context".to_owned(), Some(c_string("linux.mountLabel", label)?)));
            }
            Ok(parameters)
        })
        .collect()
}

/// Whether what is mounted below this mount appears on the host too.
fn spreads(mount: &oci::Mount) -> bool {
    mount
        .options
        .iter()
        .any(|option| option == "shared" || option == "rshared")
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
