//! The configuration compiled: everything the child half does, as data.
//!
//! Compiling is pure: the configuration and [`Facts`] about the host go in, a checked [`Plan`] comes out, and nothing of
//! the host is touched. Every path is a C string, every flag a number, every refusal has been made. The child
//! half decides nothing but what only the kernel can tell it (does this path exist, is it a directory).
//!
//! Refused here: fields that this runtime does not carry out, by name. Nothing is read and ignored.

mod caller;
mod capability;
mod cgroup_mount;
mod device;
mod error;
mod external;
mod hook;
mod limit;
mod mapping;
mod members;
mod mount;
mod namespace;
mod net_device;
mod options;
mod process;
mod rootfs;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

pub use caller::Caller;
pub use device::{Device, Link};
pub use error::Error;
pub(crate) use external::{External, Host, Mountpoint, external_devices, external_mounts, mountpoints};
pub use hook::{Hook, Hooks, StateText};
pub(crate) use hook::{HookState, one as compile_hook};
pub use limit::{Affinity, Cpus, MemoryPolicy};
pub(crate) use mapping::check_joined;
pub use mapping::{IdRange, Mappings, host_id, parse as parse_mappings, text as mapping_text};
pub(crate) use mount::extent;
pub use mount::{IdMap, Mount, Operation, OverProc, Source};
pub use namespace::{Join, Namespaces, Opened, name as namespace_name};
pub use net_device::NetDevice;
pub use options::Locked;
pub(crate) use options::words as mount_option_words;
pub use process::{Label, ProcessPlan};
pub(crate) use rootfs::Late;
pub use rootfs::RootfsPlan;
pub use text::Target;

use crate::cgroup::Version;
use crate::spec::oci;
use crate::{ContainerId, intel_rdt, seccomp};

/// The longest name of a host or a domain (`__NEW_UTS_LEN`).
const UTS_NAME_MAX: usize = 64;

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
    /// Where whole procfs and sysfs mounts are visible, if the root is moved.
    pub whole_views: &'a [PathBuf],
    /// The kernel lacks a part of the new mount API: mounts are made on a staging place.
    pub staging: bool,
    /// Join no new session keyring.
    pub no_new_keyring: bool,
    /// Who creates the container, or executes in it.
    pub caller: Caller,
    /// The configuration's filter comes later: there is only room for it.
    pub filter_comes_later: bool,
}

/// A container, compiled.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces made and joined.
    pub namespaces: Namespaces,
    /// Of a new user namespace.
    pub mappings: Option<Mappings>,
    /// Leave the caller's supplementary groups when root of a user namespace is assumed: whoever may not set groups
    /// keeps them.
    pub drop_groups: bool,
    /// The user namespace it will be in forbids `setgroups(2)`.
    pub denies_setgroups: bool,
    /// Network devices of the host that the container takes over.
    pub net_devices: Vec<NetDevice>,
    /// The group of resctrl that it is in.
    pub intel_rdt: Option<intel_rdt::Settings>,
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
    /// Those that run in the container.
    pub hooks: Hooks,
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
        refuse(spec)?;
        let namespaces = Namespaces::compile(linux)?;
        let mappings = mapping::compile(linux, &namespaces, &facts.caller)?;
        facts.caller.check(spec, linux, &namespaces, mappings.as_ref())?;
        let denies = mappings.as_ref().is_some_and(|mappings| mappings.deny_setgroups);
        let denies_setgroups = denies || !facts.caller.may_set_groups;
        let drop_groups = facts.caller.is_root() && facts.caller.may_set_groups;
        let facts = Facts {
            new_cgroup_namespace: namespaces.has(libc::CLONE_NEWCGROUP),
            ..*facts
        };
        let process = spec
            .process
            .as_ref()
            .ok_or_else(|| Error::field("process", "is needed"))?;
        let mut process = compile_process(process, linux, &facts)?;
        // What is asked for is about processes that are executed later.
        process.affinity = Affinity::default();
        let name = |field: &str, value: &str| {
            if value.is_empty() {
                return Ok(None);
            }
            if !namespaces.has(libc::CLONE_NEWUTS) {
                return Err(Error::field(field, "needs a uts namespace"));
            }
            if value.len() > UTS_NAME_MAX {
                return Err(Error::field(
                    field,
                    format!("is longer than {UTS_NAME_MAX} bytes"),
                ));
            }
            text::c_string(field, value).map(Some)
        };
        Ok(Self {
            hostname: name("hostname", &spec.hostname)?,
            domainname: name("domainname", &spec.domainname)?,
            rootfs: rootfs::compile(spec, linux, &namespaces, process.terminal.is_some(), &facts)?,
            sysctls: sysctls(linux, &namespaces)?,
            hooks_before_pivot: spec.hooks.as_ref().is_some_and(has_early_hooks),
            hooks: hook::compile(spec, &facts)?,
            net_devices: net_device::compile(linux, &namespaces)?,
            intel_rdt: linux.intel_rdt.as_ref().map(rdt).transpose()?,
            namespaces,
            mappings,
            drop_groups,
            denies_setgroups,
            process,
        })
    }

    /// The user namespace that is joined does not allow `setgroups(2)`.
    pub(crate) fn keep_groups(&mut self) {
        self.drop_groups = false;
        self.denies_setgroups = true;
        self.process.groups = None;
    }

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
    facts.caller.check_groups(&process.user)?;
    let mut plan = process::compile(process)?;
    if !facts.caller.is_root() || !facts.caller.may_set_groups {
        plan.groups = None;
    }
    plan.seccomp = match &linux.seccomp {
        Some(_) if facts.filter_comes_later => Some(seccomp::Program::awaited()),
        Some(profile) => Some(seccomp::compile(profile)?),
        None => None,
    };
    if plan.seccomp.as_ref().is_some_and(seccomp::Program::has_listener) {
        plan.agent = linux.seccomp.as_ref().map(seccomp::Agent::of);
    }
    plan.personality = linux.personality.as_ref().map(limit::personality).transpose()?;
    let memory_policy = linux.memory_policy.as_ref();
    plan.memory_policy = memory_policy.map(limit::memory_policy).transpose()?;
    let cpu = linux
        .resources
        .as_ref()
        .and_then(|resources| resources.cpu.as_ref());
    plan.some_cpus = cpu.is_some_and(|cpu| !cpu.cpus.is_empty());
    plan.label = facts.lsm.label(process)?;
    if !facts.no_new_keyring {
        plan.keyring = Some(text::c_string("id", format!("_ses.{}", facts.id))?);
    }
    Ok(plan)
}

fn has_early_hooks(hooks: &oci::Hooks) -> bool {
    [&hooks.prestart, &hooks.create_runtime]
        .into_iter()
        .any(|hooks| !hooks.is_empty())
}

/// `linux.intelRdt`, with the switches of versions before 1.3 for what is one now.
fn rdt(given: &oci::LinuxIntelRdt) -> Result<intel_rdt::Settings, Error> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let settings = intel_rdt::Settings {
        class: some(&given.clos_id),
        cache: some(&given.l3_cache_schema),
        bandwidth: some(&given.mem_bw_schema),
        schemata: given.schemata.clone(),
        monitoring: given.enable_monitoring || given.enable_cmt || given.enable_mbm,
    };
    settings
        .check()
        .map_err(|error| Error::field("linux.intelRdt.closID", error.to_string()))?;
    Ok(settings)
}

/// Fields of the specification that are not carried out.
fn refuse(spec: &oci::Spec) -> Result<(), Error> {
    match spec.vm {
        Some(_) => Err(Error::Unsupported("vm".into())),
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
            text::c_path(&field, Path::new(&format!("sys/{path}")))?,
            text::c_string(&field, value)?,
        ));
    }
    compiled.sort();
    Ok(compiled)
}
