//! The configuration compiled: everything the child half does, as data.
//!
//! Compiling is pure: the configuration and [`Facts`] about the host go in, a checked [`Plan`] comes out, and nothing of
//! the host is touched. Every path is a C string, every flag a number, every refusal has been made. The child
//! half decides nothing but what only the kernel can tell it (does this path exist, is it a directory).
//!
//! Refused here: fields that this runtime does not carry out, by name. Nothing is read and ignored.

mod capability;
mod device;
mod error;
mod limit;
mod mapping;
mod mount;
mod namespace;
mod options;
mod process;
mod rootfs;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

pub use device::{Device, Link};
pub use error::Error;
pub use mapping::Mappings;
pub(crate) use mount::extent;
pub use mount::{Mount, Operation, OverProc, Source};
pub use namespace::{Join, Namespaces, Opened, name as namespace_name};
pub(crate) use options::words as mount_option_words;
pub use process::{Label, ProcessPlan};
pub use rootfs::RootfsPlan;
pub use text::Target;

use crate::cgroup::Version;
use crate::spec::oci;
use crate::{ContainerId, seccomp};

/// What compiling needs to know besides the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The container.
    pub id: &'a ContainerId,
    /// The bundle, absolute: relative paths of the configuration are below it.
    pub bundle: &'a Path,
    /// How the host arranges its control groups.
    pub cgroup_version: Version,
    /// The container's own groups: controller (empty for v2) to directory.
    pub cgroup_paths: &'a BTreeMap<String, PathBuf>,
    /// The container gets a cgroup namespace; filled in by [`Plan::compile`].
    pub new_cgroup_namespace: bool,
    /// Linux security modules of this host.
    pub lsm: crate::lsm::Enabled,
    /// Move the root mount instead of `pivot_root`.
    pub no_pivot: bool,
    /// Join no new session keyring.
    pub no_new_keyring: bool,
}

/// A container, compiled.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces made and joined.
    pub namespaces: Namespaces,
    /// Of a new user namespace.
    pub mappings: Option<Mappings>,
    /// `hostname`.
    pub hostname: Option<CString>,
    /// `domainname`.
    pub domainname: Option<CString>,
    /// The root file system and everything mounted in it.
    pub rootfs: RootfsPlan,
    /// Path below `/proc/sys`, relative to a procfs (`sys/net/…`), and value.
    pub sysctls: Vec<(CString, CString)>,
    /// Stop before the root changes, for hooks of the parent.
    pub hooks_before_pivot: bool,
    /// The first process.
    pub process: ProcessPlan,
}

impl Plan {
    /// Compiles a container's configuration.
    ///
    /// # Errors
    ///
    /// A field is not usable, or not supported yet.
    pub fn compile(spec: &oci::Spec, facts: &Facts<'_>) -> Result<Self, Error> {
        let default = oci::Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&default);
        refuse(spec, linux)?;
        let namespaces = Namespaces::compile(linux)?;
        let mappings = mapping::compile(linux, &namespaces)?;
        let facts = Facts {
            new_cgroup_namespace: namespaces.has(libc::CLONE_NEWCGROUP),
            ..*facts
        };
        let process = spec
            .process
            .as_ref()
            .ok_or_else(|| Error::field("process", "is needed"))?;
        let process = compile_process(process, linux, &facts)?;
        let name = |field: &str, value: &str| {
            if value.is_empty() {
                return Ok(None);
            }
            if !namespaces.has(libc::CLONE_NEWUTS) {
                return Err(Error::field(field, "needs a uts namespace"));
            }
            text::c_string(field, value).map(Some)
        };
        Ok(Self {
            hostname: name("hostname", &spec.hostname)?,
            domainname: name("domainname", &spec.domainname)?,
            rootfs: rootfs::compile(spec, linux, process.terminal.is_some(), &facts)?,
            sysctls: sysctls(linux, &namespaces)?,
            hooks_before_pivot: spec.hooks.as_ref().is_some_and(has_early_hooks),
            namespaces,
            mappings,
            process,
        })
    }
}

impl Plan {
    /// A process compiled only to name its parts in messages.
    pub(crate) fn process_for_messages(process: &oci::Process) -> Result<ProcessPlan, Error> {
        process::compile(process)
    }
}

/// Compiles a process of a container that `linux` describes: its first one, or one executed later.
///
/// # Errors
///
/// A field is not usable, or not supported yet.
pub fn compile_process(
    process: &oci::Process,
    linux: &oci::Linux,
    facts: &Facts<'_>,
) -> Result<ProcessPlan, Error> {
    let mut plan = process::compile(process)?;
    plan.seccomp = linux
        .seccomp
        .as_ref()
        .map(seccomp::compile)
        .transpose()
        .map_err(|error| Error::field("linux.seccomp", error.to_string()))?;
    plan.personality = linux.personality.as_ref().map(limit::personality).transpose()?;
    plan.label = facts.lsm.label(process)?;
    if !facts.no_new_keyring {
        plan.keyring = Some(text::c_string("id", format!("_ses.{}", facts.id))?);
    }
    Ok(plan)
}

fn has_early_hooks(hooks: &oci::Hooks) -> bool {
    [&hooks.prestart, &hooks.create_runtime, &hooks.create_container]
        .into_iter()
        .any(|hooks| !hooks.is_empty())
}

/// Fields of the specification that are not carried out yet.
fn refuse(spec: &oci::Spec, linux: &oci::Linux) -> Result<(), Error> {
    let asked = [
        ("linux.intelRdt", linux.intel_rdt.is_some()),
        ("linux.memoryPolicy", linux.memory_policy.is_some()),
        ("linux.netDevices", !linux.net_devices.is_empty()),
        ("vm", spec.vm.is_some()),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(Error::Unsupported(field.into())),
        None => Ok(()),
    }
}

/// Only what belongs to a namespace of the container's own may be set: the rest would change the host.
fn sysctls(linux: &oci::Linux, namespaces: &Namespaces) -> Result<Vec<(CString, CString)>, Error> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let mut compiled = Vec::new();
    for (name, value) in &linux.sysctl {
        let field = format!("linux.sysctl[{name}]");
        // Either separator may be used; what comes first is the separator, and the other one is part of a name.
        let dotted = match name.find(['.', '/']) {
            Some(at) if name.as_bytes()[at] == b'/' => {
                name.replace('.', "\0").replace('/', ".").replace('\0', "/")
            }
            _ => name.clone(),
        };
        let kind = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            libc::CLONE_NEWIPC
        } else if dotted.starts_with("net.") {
            libc::CLONE_NEWNET
        } else if dotted == "kernel.domainname" {
            libc::CLONE_NEWUTS
        } else if dotted == "kernel.hostname" {
            return Err(Error::field(field, "is set by hostname"));
        } else if dotted.starts_with("user.") {
            libc::CLONE_NEWUSER
        } else {
            return Err(Error::field(field, "is not separate for a container"));
        };
        if !namespaces.has(kind) {
            let name = namespace_name(kind as u64);
            return Err(Error::field(
                field,
                format!("needs a {name} namespace of its own"),
            ));
        }
        let path = dotted.replace('/', "\0").replace('.', "/").replace('\0', ".");
        if path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(Error::field(field, "is not a sysctl's name"));
        }
        compiled.push((
            text::c_string(&field, format!("sys/{path}"))?,
            text::c_string(&field, value)?,
        ));
    }
    compiled.sort();
    Ok(compiled)
}
