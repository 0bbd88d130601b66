//! The parent half of a creation: the state directory, the control groups, the clone, and the conversation with the child half.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::undo::Undo;
use crate::caller::limits_to_raise;
use crate::cgroup::{Cgroup, CgroupPlan, Entrance};
use crate::hook;
use crate::init::{self, Failure, HookFailure, Meanwhile, Message, Work};
use crate::intel_rdt::{self, Resctrl};
use crate::pidfd_socket::PidfdSocket;
use crate::plan::{Opened, Plan};
use crate::process::{
    Conversation, Early, Groups, Heard, Request, Spawned, Streams, gate, spawn, start_time,
};
use crate::record::{Config, Record};
use crate::seccomp::cache::Cache;
use crate::seccomp::later;
use crate::source::Sources;
use crate::spec::Spec;
use crate::sys::process::raise_hard_limit;
use crate::sys::socket::MAX_PASSED;
use crate::terminal::ConsoleSocket;
use crate::trace::trace;
use crate::{ContainerId, Error, Status, Timestamp, kernel, net_device, user_namespace};

/// What building one container needs to know.
pub(super) struct Construction<'a> {
    pub(super) id: &'a ContainerId,
    pub(super) bundle: PathBuf,
    pub(super) spec: &'a Spec,
    pub(super) streams: &'a Streams,
    pub(crate) console: Option<ConsoleSocket>,
    pub(super) pidfd: Option<PidfdSocket>,
    pub(super) pid_file: Option<&'a Path>,
    pub(super) preserve_fds: u32,
    /// Open the start gate before the process comes to it.
    pub(super) opens_gate: bool,
    /// Where filters are kept.
    pub(super) filters: &'a Cache,
    pub(super) resctrl: Option<Resctrl>,
}

/// What was built, besides what [`Undo`] holds.
pub(crate) struct Built {
    pub(crate) record: Record,
    pub(crate) console: Option<OwnedFd>,
    /// The connection through the start gate, if that is open.
    pub(crate) starting: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
}

impl Construction<'_> {
    pub(super) fn build(
        mut self,
        mut plan: Plan,
        cgroup_plan: &CgroupPlan,
        namespaces: Vec<Opened>,
        undo: &mut Undo,
    ) -> Result<Built, Error> {
        let Some(directory) = &undo.directory else {
            return Err(Error::Invalid("the state directory is gone".into()));
        };
        trace!("state directory of {} is made", self.id);
        directory.note_cgroups(&cgroup_plan.paths())?;
        let by_unit = cgroup_plan.needs_process();
        let wait_for_parent = plan.mappings.is_some() || !plan.net_devices.is_empty() || by_unit;
        let usher = plan.namespaces.need_usher();
        let may_be_awaited = !wait_for_parent && !usher && !kernel::is_old();
        let mut meanwhile = match may_be_awaited && (1..=MAX_PASSED).contains(&cgroup_plan.v1_count()) {
            true => meanwhile(&plan),
            false => None,
        };
        if !by_unit {
            let begun = match meanwhile {
                None => None,
                Some(_) => cgroup_plan.create_v2()?,
            };
            undo.cgroup = Some(match begun {
                Some(begun) => begun,
                None => {
                    meanwhile = None;
                    cgroup_plan.create()?
                }
            });
        }
        let gate = gate::make(directory.fd())?;
        let staging = match plan.rootfs.staging {
            true => Some(directory.make_staging()?),
            false => None,
        };
        let mut entrances = match &undo.cgroup {
            Some(cgroup) if meanwhile.is_none() => cgroup.entrances()?,
            _ => Vec::new(),
        };
        let is_root = rustix::process::geteuid().is_root();
        let raise = match plan.namespaces.has(libc::CLONE_NEWUSER) {
            true => limits_to_raise(&plan.process)?,
            false => Vec::new(),
        };
        // A procfs can be mounted only by root of the pid namespace's own user namespace.
        let host_proc = !plan.namespaces.makes(libc::CLONE_NEWPID)
            && (!plan.sysctls.is_empty() || plan.process.label.is_some())
            && (plan.namespaces.has(libc::CLONE_NEWUSER) || user_namespace::in_user_namespace());
        let net = joined_net(&plan, &namespaces)?;
        let (early, join) = match usher {
            true => (Early::default(), namespaces),
            false => split(namespaces, &plan),
        };
        let oom_score = plan.process.oom_score_adj;
        let born_outside = plan.mappings.is_none();
        let Spawned {
            child,
            socket,
            filter,
        } = spawn(Request {
            create: plan.namespaces.create,
            early,
            cgroup: undo.cgroup.as_ref().map(Cgroup::v2_dir_fd).transpose()?.flatten(),
            groups: match meanwhile {
                None => Groups::Made(&entrances),
                Some(meanwhile) => Groups::Awaited(meanwhile),
            },
            streams: self.streams,
            preserve_fds: self.preserve_fds,
            gate: Some(gate.as_fd()),
            wait_for_parent,
            join,
            old_kernel: kernel::is_old(),
            host_proc,
            join_process: None,
            usher,
            drop_groups: plan.drop_groups,
            show_at_gate: !is_root && !kernel::is_old(),
            oom_score: own_oom_score(oom_score.filter(|_| !is_root)),
            raise: if born_outside { raise.clone() } else { Vec::new() },
            work: Work::Container(&mut plan),
        })?;
        drop(gate);
        let child = &*undo.child.insert(child);
        let conversation = Conversation::new(&socket, &child.pidfd);
        let recorded = (|| {
            if by_unit {
                // What started is removed, whatever comes next.
                undo.cgroup = Some(cgroup_plan.start_unit(child.pid)?);
                undo.cgroup = Some(cgroup_plan.fill(child.pid)?);
            }
            let Some(cgroup) = &mut undo.cgroup else {
                return Err(Error::Invalid("the control group is gone".into()));
            };
            if meanwhile.is_some() {
                cgroup_plan.complete(cgroup)?;
                entrances = cgroup.entrances()?;
                conversation.admit(&entrances)?;
            }
            if let Some(mappings) = &plan.mappings {
                user_namespace::write(child.pid, mappings, is_root)?;
                // It has been born without the privilege.
                for (resource, hard) in &raise {
                    raise_hard_limit(child.pid, *resource, *hard).map_err(|errno| {
                        Error::io(format!("raise resource limit {resource} to {hard}"), errno)
                    })?;
                }
            }
            if let Some(score) = oom_score.filter(|_| is_root) {
                write_oom_score(child.pid, score)?;
            }
            if !plan.net_devices.is_empty() {
                let target = match net {
                    Some(net) => net,
                    None => open_net(child.pid)?,
                };
                net_device::move_all(&plan.net_devices, target.as_fd())?;
            }
            if let (Some(resctrl), Some(settings)) = (&self.resctrl, &plan.intel_rdt) {
                undo.intel_rdt = Some(resctrl.enter(settings, self.id, child.pid)?);
            }
            if wait_for_parent {
                conversation.go()?;
            }
            // While the child half builds.
            let record = record(
                self.id,
                &self.bundle,
                self.spec,
                child.pid,
                cgroup,
                &plan,
                undo.intel_rdt.clone(),
            )?;
            directory.write(&record)?;
            // What the child half needs last.
            let new = match &filter {
                Some(socket) => later::hand_over(self.spec, self.filters, socket)?,
                None => None,
            };
            let starting = match self.opens_gate {
                true => gate::open(directory.fd())?,
                false => None,
            };
            if let Some(filter) = new {
                later::keep(self.spec, &filter, self.filters);
            }
            Ok((record, starting))
        })();
        // A process that ended while it was written about has said why.
        let failure = |error| match conversation.last_words() {
            Some(Heard::Message(Message::Failed(failure))) => step_failed(failure, &plan, &entrances),
            Some(Heard::Hook(failure, output)) => self.hook_failed(failure, output),
            _ => error,
        };
        let (record, starting) = recorded.map_err(failure)?;
        let has_staging = staging.is_some();
        let sources = Sources::new(child, staging);
        let console = self.attend(&conversation, sources, &plan, &record, &entrances)?;
        if let Some(socket) = self.pidfd.take() {
            socket.send(PidfdSocket::FIRST, &child.pidfd)?;
        }
        if has_staging {
            directory.remove_staging()?;
        }
        if let Some(path) = self.pid_file {
            write_pid_file(path, child.pid)?;
        }
        let mut warnings = plan.process.warnings;
        warnings.extend(plan.rootfs.warnings);
        Ok(Built {
            record,
            console,
            starting,
            warnings,
        })
    }

    /// Follows the child half until it waits at the gate; answers the terminal's master, if it stays here.
    fn attend(
        &mut self,
        conversation: &Conversation<'_>,
        mut sources: Sources<'_>,
        plan: &Plan,
        record: &Record,
        entrances: &[Entrance],
    ) -> Result<Option<OwnedFd>, Error> {
        let mut console = None;
        loop {
            match conversation.listen()? {
                Heard::Message(Message::Ready) => {
                    trace!("init: closing the pipe to signal completion");
                    return Ok(console);
                }
                Heard::Message(Message::BeforePivot) => {
                    self.run_hooks(record)?;
                    conversation.go()?;
                }
                Heard::Message(Message::Listener(number)) => {
                    let listener = conversation.fetch(number)?;
                    let state = record.state(record.pid, Status::Creating);
                    match &plan.process.agent {
                        Some(agent) => agent.send(listener, record.pid, &state)?,
                        None => return Err(Error::Ended("handing over a listener")),
                    }
                }
                Heard::Message(Message::Source(index)) => {
                    conversation.give(&sources.open(plan, index)?)?;
                }
                Heard::Message(Message::Failed(failure)) => {
                    return Err(step_failed(failure, plan, entrances));
                }
                Heard::Console(master) => match self.console.take() {
                    Some(socket) => socket.send(master)?,
                    None => console = Some(master),
                },
                Heard::Hook(failure, output) => {
                    return Err(self.hook_failed(failure, output));
                }
                Heard::Message(_) | Heard::Born(..) | Heard::Closed => {
                    return Err(Error::Ended("building the container"));
                }
            }
        }
    }

    fn hook_failed(&self, failure: HookFailure, output: OwnedFd) -> Error {
        let hooks = self.spec.oci().hooks.clone().unwrap_or_default();
        hook::failed(failure, &hooks, output.into())
    }

    fn run_hooks(&self, record: &Record) -> Result<(), Error> {
        let Some(hooks) = &self.spec.oci().hooks else {
            return Ok(());
        };
        let state = record.state(record.pid, Status::Creating);
        hook::run("prestart", &hooks.prestart, &state)?;
        hook::run("createRuntime", &hooks.create_runtime, &state)
    }
}

/// What the child half can do while its v1 groups are made.
fn meanwhile(plan: &Plan) -> Option<Meanwhile> {
    let (namespaces, rootfs) = (&plan.namespaces, &plan.rootfs);
    let found = Meanwhile {
        namespaces: namespaces.create & libc::CLONE_NEWNET as u64,
        // A cgroup namespace is made in the groups, and what is mounted in the host's namespace is seen there at once.
        mounts: rootfs.groupless > 0
            && !rootfs.staging
            && namespaces.create & libc::CLONE_NEWNS as u64 != 0
            && namespaces.unshare & libc::CLONE_NEWCGROUP as u64 == 0,
    };
    (found.mounts || found.namespaces != 0).then_some(found)
}

/// What is recorded of a container whose first process is `pid`.
pub(crate) fn record(
    id: &ContainerId,
    bundle: &Path,
    spec: &Spec,
    pid: i32,
    cgroup: &Cgroup,
    plan: &Plan,
    intel_rdt: Option<intel_rdt::Group>,
) -> Result<Record, Error> {
    let oci = spec.oci();
    let root = oci.root.as_ref().map(|root| root.path.as_path());
    Ok(Record {
        version: Record::VERSION,
        id: id.to_string(),
        oci_version: oci.oci_version.clone(),
        rootfs: bundle.join(root.unwrap_or(Path::new("rootfs"))),
        bundle: bundle.to_owned(),
        pid,
        start_time: start_time(pid).ok_or(Error::Ended("being recorded"))?,
        created: now(),
        annotations: oci.annotations.clone(),
        cgroups: cgroup.paths().clone(),
        unit: cgroup.unit().cloned(),
        resources: None,
        namespaces: plan.namespaces.all(),
        own_namespaces: plan.namespaces.create | plan.namespaces.unshare,
        denies_setgroups: plan.denies_setgroups,
        intel_rdt,
        no_hooks: oci.hooks.is_none(),
        config: Config(spec.kept_original()),
    })
}

pub(super) fn step_failed(failure: Failure, plan: &Plan, entrances: &[Entrance]) -> Error {
    init::error(failure, Some(plan), &plan.process, entrances)
}

/// What the new process writes to its own `oom_score_adj`.
pub(crate) fn own_oom_score(score: Option<i32>) -> Option<CString> {
    score.and_then(|score| CString::new(score.to_string()).ok())
}

/// The network namespace that is joined, if there is one and devices are to be moved into it.
pub(super) fn joined_net(plan: &Plan, namespaces: &[Opened]) -> Result<Option<OwnedFd>, Error> {
    let is_net = |namespace: &&Opened| namespace.kind == libc::CLONE_NEWNET as u64;
    match namespaces.iter().find(is_net) {
        Some(net) if !plan.net_devices.is_empty() => {
            let copied = net.fd.try_clone();
            copied
                .map(Some)
                .map_err(|error| Error::io("duplicate a namespace", error))
        }
        _ => Ok(None),
    }
}

/// The network namespace of a process, a child that has not been reaped.
pub(super) fn open_net(pid: i32) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/ns/net");
    let opened = fs::File::open(&path).map_err(|error| Error::io(format!("open {path}"), error))?;
    Ok(opened.into())
}

/// Which namespaces are joined before the clone.
pub(super) fn split(namespaces: Vec<Opened>, plan: &Plan) -> (Early, Vec<Opened>) {
    let new_user = plan.namespaces.makes(libc::CLONE_NEWUSER);
    let (early, late): (Vec<_>, Vec<_>) = namespaces
        .into_iter()
        .partition(|namespace| new_user || namespace.kind == libc::CLONE_NEWPID as u64);
    let early = early.into_iter().map(|namespace| (namespace.fd, namespace.kind));
    (
        Early {
            namespaces: early.collect(),
            affinity: None,
        },
        late,
    )
}

pub(super) fn now() -> String {
    format!("{:.9}", Timestamp::now())
}

pub(crate) fn write_oom_score(pid: i32, score: i32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/oom_score_adj");
    fs::write(&path, score.to_string()).map_err(|error| Error::io(format!("write {score} to {path}"), error))
}

/// Writes a pid file: it is there with its content, or not. What is there under its name, or under that of its making, is
/// replaced, and neither followed nor written to.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let what = || format!("write pid file {}", path.display());
    let invalid = || Error::Invalid(format!("{} is no file name for a pid", path.display()));
    let name = path.file_name().ok_or_else(invalid)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let new = path.with_file_name(hidden);
    let make = || {
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&new)
    };
    let written = match make() {
        // Of a runtime that was killed; or somebody else's.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::remove_file(&new).and_then(|()| make())
        }
        made => made,
    }
    .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
    .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| Error::io(what(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_replaces_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "old and longer").unwrap();
        write_pid_file(&path, 42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write_pid_file(Path::new("/"), 1).is_err());
        // Neither is written through what somebody has put there.
        let other = directory.path().join("other");
        fs::write(&other, "not a pid").unwrap();
        let hidden = directory.path().join(".pid");
        fs::hard_link(&other, &hidden).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        write_pid_file(&path, 43).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "not a pid");
        assert_eq!(fs::read_to_string(&path).unwrap(), "43");
        rustix::fs::mkfifoat(rustix::fs::CWD, &hidden, 0o600.into()).unwrap();
        write_pid_file(&path, 44).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "44");
    }
}
