//! Creating a container: from a bundle to a process that waits at the start gate.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::value::RawValue;

use crate::caller::limits_to_raise;
use crate::cgroup::{Cgroup, CgroupPlan, Entrance, Layout};
use crate::hook;
use crate::init::{self, Failure, HookFailure, Message, Work};
use crate::intel_rdt::{self, Resctrl};
use crate::pidfd_socket::PidfdSocket;
use crate::plan::{self, Caller, Facts, Opened, Plan};
use crate::process::{
    Conversation, Early, Heard, Request, Streams, gate, open_joins, reap, spawn, start_time, wait_exit,
};
use crate::record::{Directory, NOTIFY_DIRECTORY, NOTIFY_SOCKET, Record};
use crate::resources;
use crate::source::Sources;
use crate::spec::{Spec, oci};
use crate::sys::Fd;
use crate::sys::process::{Child, pidfd_signal, raise_hard_limit};
use crate::terminal::ConsoleSocket;
use crate::trace::trace;
use crate::{
    Container, ContainerId, Error, Runtime, State, Status, Stdio, kernel, lsm, mountinfo, net_device,
    seccomp, spec, user_namespace,
};

/// How a container is created.
#[derive(Debug)]
pub struct CreateOptions {
    /// The name; must not be taken.
    pub id: ContainerId,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// The standard streams.
    pub stdio: Stdio,
    /// Where to write the first process's pid, as decimal digits.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps; every other one is closed.
    pub preserve_fds: u32,
    /// Move the root mount instead of `pivot_root` (for a host that runs from an initramfs; weaker).
    pub no_pivot: bool,
    /// Keep the caller's session keyring instead of joining a new one.
    pub no_new_keyring: bool,
    /// systemd makes the control group; `linux.cgroupsPath` is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Do without a control group that may not be made, unless limits or a path are asked for; and speak to the user's systemd.
    /// Decided by the caller's ids when nothing is said.
    pub rootless: Option<bool>,
    /// A listening unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// A listening unix socket that receives a pidfd of the first process.
    pub pidfd_socket: Option<PathBuf>,
    /// Variables (`NAME=value`) for the first process besides those of the configuration.
    pub environment: Vec<String>,
    /// Mount a directory with a socket for `sd_notify(3)` at `/run/notify`; [`crate::Notifications`] listens there.
    pub notify: bool,
}

impl CreateOptions {
    /// Options with every switch off, inherited streams and no files.
    #[must_use]
    pub fn new(id: ContainerId, bundle: impl Into<PathBuf>) -> Self {
        Self {
            id,
            bundle: bundle.into(),
            stdio: Stdio::Inherit,
            pid_file: None,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            systemd_cgroup: false,
            rootless: None,
            console_socket: None,
            pidfd_socket: None,
            environment: Vec::new(),
            notify: false,
        }
    }
}

impl Runtime {
    /// Creates a container. Blocks until its process waits at the start gate.
    ///
    /// The process is a child of the caller, who reaps it. When this fails nothing is left: no process (it is
    /// reaped here), no control group, no state.
    ///
    /// # Errors
    ///
    /// The name is taken, the configuration is refused, or a step fails.
    pub fn create(&self, options: CreateOptions) -> Result<Container, Error> {
        let spec = spec::load(&options.bundle)?;
        self.create_as(options, &spec)
    }

    /// As [`Self::create`], of a configuration that the caller has already loaded (to decide about the streams, say).
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn create_as(&self, options: CreateOptions, spec: &Spec) -> Result<Container, Error> {
        let bundle = fs::canonicalize(&options.bundle)
            .map_err(|error| Error::io(format!("open bundle {}", options.bundle.display()), error))?;
        let (mut plan, cgroups) = match self.changed(spec, &options)? {
            Some(changed) => compile(&changed, &bundle, &options)?,
            None => compile(spec.oci(), &bundle, &options)?,
        };
        let resctrl = resctrl(&plan)?;
        if plan.namespaces.makes(libc::CLONE_NEWTIME) {
            check_time_namespaces()?;
        }
        let streams = Streams::new(options.stdio, plan.process.terminal.is_some())?;
        let console = console_socket(options.console_socket.as_deref(), &plan)?;
        let pidfd = options.pidfd_socket.as_deref();
        let pidfd = pidfd.map(PidfdSocket::connect).transpose()?;
        let namespaces = open_joins(&plan.namespaces.join)?;
        let warnings = check_joined(spec, &mut plan, &namespaces)?;
        let directory = Directory::claim(self.root(), &options.id)?;
        let notified = match options.notify {
            true => directory.make_notify_directory(),
            false => Ok(()),
        };
        let mut undo = Undo {
            directory: Some(directory),
            cgroup: None,
            child: None,
            intel_rdt: None,
        };
        let construction = Construction {
            id: &options.id,
            bundle,
            spec,
            streams: &streams,
            console,
            pidfd,
            pid_file: options.pid_file.as_deref(),
            preserve_fds: options.preserve_fds,
            resctrl,
        };
        notified
            .and_then(|()| construction.build(plan, &cgroups, namespaces, &mut undo))
            .and_then(|built| undo.keep(built, options.id.clone(), warnings.chain(spec, &cgroups)))
            .map_err(|error| undo.perform(error))
    }
}

/// Where the container finds the notify socket's directory.
const NOTIFY_TARGET: &str = "/run/notify";

impl Runtime {
    /// The configuration with what the options add to it, if they do.
    fn changed(&self, spec: &Spec, options: &CreateOptions) -> Result<Option<oci::Spec>, Error> {
        if options.environment.is_empty() && !options.notify {
            return Ok(None);
        }
        let mut changed = spec.oci().clone();
        let process = changed.process.get_or_insert_default();
        process.env.extend(options.environment.iter().cloned());
        if options.notify {
            process
                .env
                .push(format!("NOTIFY_SOCKET={NOTIFY_TARGET}/{NOTIFY_SOCKET}"));
            let root =
                std::path::absolute(self.root()).map_err(|error| Error::io("find the state root", error))?;
            changed.mounts.push(oci::Mount {
                destination: NOTIFY_TARGET.into(),
                source: root.join(options.id.as_str()).join(NOTIFY_DIRECTORY),
                options: ["bind", "nosuid", "noexec", "nodev", "ro"]
                    .map(str::to_owned)
                    .to_vec(),
                ..oci::Mount::default()
            });
        }
        Ok(Some(changed))
    }
}

fn compile(spec: &oci::Spec, bundle: &Path, options: &CreateOptions) -> Result<(Plan, CgroupPlan), Error> {
    let layout = Layout::detect()?;
    let cgroups = resources::plan(spec, &layout, options)?;
    let whole_views = match &spec.root {
        Some(root) if options.no_pivot => mountinfo::whole_views(&bundle.join(&root.path))?,
        _ => Vec::new(),
    };
    let facts = Facts {
        id: &options.id,
        bundle,
        cgroup_version: layout.version(),
        cgroup_paths: &cgroups.expected_paths(&layout),
        new_cgroup_namespace: false,
        lsm: lsm::Enabled::detect_for(spec),
        no_pivot: options.no_pivot,
        whole_views: &whole_views,
        staging: kernel::is_old(),
        no_new_keyring: options.no_new_keyring,
        caller: Caller::detect(&layout)?,
    };
    let plan = Plan::compile(spec, &facts)?;
    let profile = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    seccomp::tell(profile, plan.process.seccomp.as_ref());
    Ok((plan, cgroups))
}

/// Where the host divides caches, if the container is to have a share.
fn resctrl(plan: &Plan) -> Result<Option<Resctrl>, Error> {
    let Some(settings) = &plan.intel_rdt else {
        return Ok(None);
    };
    let resctrl = Resctrl::find()?.ok_or(intel_rdt::Error::NotEnabled)?;
    resctrl.check(settings)?;
    Ok(Some(resctrl))
}

/// What is known only when the namespaces that are joined are open.
fn check_joined(spec: &Spec, plan: &mut Plan, namespaces: &[Opened]) -> Result<Warnings, Error> {
    let mut warnings = Warnings::default();
    let Some(linux) = &spec.oci().linux else {
        return Ok(warnings);
    };
    for namespace in namespaces {
        match namespace.kind as libc::c_int {
            libc::CLONE_NEWUSER => {
                let maps = user_namespace::inspect(namespace.fd.as_fd())?;
                if plan::check_joined(linux, &maps)? {
                    warnings.add(
                        "config.json has both a userns path to join and a matching userns mapping specified -- you \
                         may only provide one",
                    );
                }
                if maps.deny_setgroups {
                    plan.keep_groups();
                }
            }
            // A name for the namespace of the runtime itself: what is set there is set for the host.
            libc::CLONE_NEWNET if is_own(namespace)? => {
                if let Some(name) = linux.sysctl.keys().find(|name| name.starts_with("net")) {
                    return Err(Error::Invalid(format!(
                        "linux.sysctl[{name}]: sysctl {name:?} not allowed in host network namespace"
                    )));
                }
            }
            _ => {}
        }
    }
    let asked = spec
        .oci()
        .process
        .as_ref()
        .map_or(0, |process| process.user.additional_gids.len());
    if plan.process.groups.is_none() && asked > 0 {
        warnings.add("process.user.additionalGids are not set: the user namespace does not allow setgroups");
    }
    Ok(warnings)
}

/// Whether it is a namespace that this process is in.
fn is_own(namespace: &Opened) -> Result<bool, Error> {
    let name = plan::namespace_name(namespace.kind);
    let path = format!("/proc/self/ns/{name}");
    let own = rustix::fs::stat(&path).map_err(|errno| Error::io(format!("stat {path}"), errno))?;
    let other = rustix::fs::fstat(&namespace.fd)
        .map_err(|errno| Error::io(format!("stat the {name} namespace"), errno))?;
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

/// What the caller is told about a container that was created.
#[derive(Debug, Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn add(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }

    /// These after those of the configuration and of the control groups.
    fn chain(self, spec: &Spec, cgroups: &CgroupPlan) -> Vec<String> {
        let earlier = spec.warnings().iter().chain(cgroups.warnings());
        earlier.cloned().chain(self.0).collect()
    }
}

/// The process makes its time namespace and enters it with `execve`, which older kernels do not do: it would stay in
/// the caller's.
fn check_time_namespaces() -> Result<(), Error> {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    match enters_time_namespace_by_exec(&release) {
        true => Ok(()),
        false => Err(Error::Unsupported(format!(
            "a time namespace on kernel {release}, before 6.3,"
        ))),
    }
}

fn enters_time_namespace_by_exec(release: &str) -> bool {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 3)
}

fn console_socket(path: Option<&Path>, plan: &Plan) -> Result<Option<ConsoleSocket>, Error> {
    match path {
        Some(_) if plan.process.terminal.is_none() => Err(Error::Invalid(
            "a console socket is given, but process.terminal is off".into(),
        )),
        path => path.map(ConsoleSocket::connect).transpose(),
    }
}

/// What building one container needs to know.
struct Construction<'a> {
    id: &'a ContainerId,
    bundle: PathBuf,
    spec: &'a Spec,
    streams: &'a Streams,
    console: Option<ConsoleSocket>,
    pidfd: Option<PidfdSocket>,
    pid_file: Option<&'a Path>,
    preserve_fds: u32,
    resctrl: Option<Resctrl>,
}

/// What was built, besides what [`Undo`] holds.
struct Built {
    record: Record,
    console: Option<OwnedFd>,
    warnings: Vec<String>,
}

impl Construction<'_> {
    fn build(
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
        if !by_unit {
            undo.cgroup = Some(cgroup_plan.create()?);
        }
        let gate = gate::make(directory.fd())?;
        let staging = match plan.rootfs.staging {
            true => Some(directory.make_staging()?),
            false => None,
        };
        let entrances = undo
            .cgroup
            .as_ref()
            .map(Cgroup::entrances)
            .transpose()?
            .unwrap_or_default();
        let wait_for_parent = plan.mappings.is_some() || !plan.net_devices.is_empty() || by_unit;
        let is_root = rustix::process::geteuid().is_root();
        let raise = match plan.namespaces.has(libc::CLONE_NEWUSER) {
            true => limits_to_raise(&plan.process)?,
            false => Vec::new(),
        };
        let usher = plan.namespaces.need_usher();
        // A procfs can be mounted only by root of the pid namespace's own user namespace.
        let host_proc = (plan.namespaces.has(libc::CLONE_NEWUSER) || user_namespace::in_user_namespace())
            && !plan.namespaces.makes(libc::CLONE_NEWPID)
            && (!plan.sysctls.is_empty() || plan.process.label.is_some());
        let net = joined_net(&plan, &namespaces)?;
        let (early, join) = match usher {
            true => (Early::default(), namespaces),
            false => split(namespaces, &plan),
        };
        let oom_score = plan.process.oom_score_adj;
        let born_outside = plan.mappings.is_none();
        let (child, socket) = spawn(Request {
            create: plan.namespaces.create,
            early,
            cgroup: undo.cgroup.as_ref().map(Cgroup::v2_dir_fd).transpose()?.flatten(),
            entrances: &entrances,
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
            let Some(cgroup) = &undo.cgroup else {
                return Err(Error::Invalid("the control group is gone".into()));
            };
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
            let record = self.record(child, cgroup, &plan, undo.intel_rdt.clone())?;
            directory.write(&record)?;
            Ok(record)
        })();
        // A process that ended while it was written about has said why.
        let failure = |error| match conversation.last_words() {
            Some(Heard::Message(Message::Failed(failure))) => step_failed(failure, &plan, &entrances),
            Some(Heard::Hook(failure, output)) => self.hook_failed(failure, output),
            _ => error,
        };
        let record = recorded.map_err(failure)?;
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
        let warnings = plan.process.warnings;
        Ok(Built {
            record,
            console,
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

    fn record(
        &self,
        child: &Child,
        cgroup: &Cgroup,
        plan: &Plan,
        intel_rdt: Option<intel_rdt::Group>,
    ) -> Result<Record, Error> {
        let oci = self.spec.oci();
        let root = oci.root.as_ref().map(|root| root.path.as_path());
        let config: &RawValue = serde_json::from_slice(self.spec.original())
            .map_err(|cause| Error::Spec(spec::Error::Syntax(cause)))?;
        Ok(Record {
            version: Record::VERSION,
            id: self.id.to_string(),
            oci_version: oci.oci_version.clone(),
            rootfs: self.bundle.join(root.unwrap_or(Path::new("rootfs"))),
            bundle: self.bundle.clone(),
            pid: child.pid,
            start_time: start_time(child.pid).ok_or(Error::Ended("being recorded"))?,
            created: now(),
            annotations: oci.annotations.clone(),
            cgroups: cgroup.paths().clone(),
            unit: cgroup.unit().cloned(),
            resources: None,
            namespaces: plan.namespaces.all(),
            own_namespaces: plan.namespaces.create | plan.namespaces.unshare,
            denies_setgroups: plan.denies_setgroups,
            intel_rdt,
            config: config.to_owned(),
        })
    }
}

fn step_failed(failure: Failure, plan: &Plan, entrances: &[Entrance]) -> Error {
    init::error(failure, Some(plan), &plan.process, entrances)
}

/// What the new process writes to its own `oom_score_adj`.
pub(crate) fn own_oom_score(score: Option<i32>) -> Option<CString> {
    score.and_then(|score| CString::new(score.to_string()).ok())
}

/// The network namespace that is joined, if there is one and devices are to be moved into it.
fn joined_net(plan: &Plan, namespaces: &[Opened]) -> Result<Option<OwnedFd>, Error> {
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
fn open_net(pid: i32) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/ns/net");
    let opened = fs::File::open(&path).map_err(|error| Error::io(format!("open {path}"), error))?;
    Ok(opened.into())
}

/// Which namespaces are joined before the clone.
fn split(namespaces: Vec<Opened>, plan: &Plan) -> (Early, Vec<Opened>) {
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

fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

pub(crate) fn write_oom_score(pid: i32, score: i32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/oom_score_adj");
    fs::write(&path, score.to_string()).map_err(|error| Error::io(format!("write {score} to {path}"), error))
}

/// Writes a pid file: it is there with its content, or not.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let what = || format!("write pid file {}", path.display());
    let invalid = || Error::Invalid(format!("{} is no file name for a pid", path.display()));
    let name = path.file_name().ok_or_else(invalid)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let new = path.with_file_name(hidden);
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&new)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| Error::io(what(), error))
}

/// What a creation that fails leaves behind, so far.
struct Undo {
    directory: Option<Directory>,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
    intel_rdt: Option<intel_rdt::Group>,
}

impl Undo {
    /// Nothing is undone: it becomes the container.
    fn keep(&mut self, built: Built, id: ContainerId, mut warnings: Vec<String>) -> Result<Container, Error> {
        let (Some(directory), Some(cgroup)) = (self.directory.take(), self.cgroup.take()) else {
            return Err(Error::Invalid("the container is gone".into()));
        };
        warnings.extend(built.warnings);
        let own_pids = built.record.own_namespaces & libc::CLONE_NEWPID as u64 != 0;
        if !cgroup.is_any() && !own_pids {
            warnings.push(
                "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is \
                 strongly discouraged (as it is impossible to properly kill all container's processes)."
                    .to_owned(),
            );
        }
        Ok(Container {
            id,
            directory,
            record: built.record,
            cgroup,
            pidfd: self.child.take().map(|child| child.pidfd),
            console: built.console,
            warnings: Mutex::new(warnings),
        })
    }

    /// Undoes in reverse; the answer is `error`, with what could not be undone beside it.
    fn perform(&mut self, error: Error) -> Error {
        let mut left = Vec::new();
        if let Some(child) = self.child.take() {
            left.extend(end(&child).err());
        }
        if let Some(group) = self.intel_rdt.take() {
            left.extend(group.remove().err().map(Error::IntelRdt));
        }
        let removal = match self.directory.as_ref().map(Directory::lock_removal).transpose() {
            Ok(Some(None)) => return error.with_leftovers(left),
            Ok(removal) => removal.flatten(),
            Err(second) => {
                left.push(second);
                return error.with_leftovers(left);
            }
        };
        if let Some(cgroup) = self.cgroup.take().filter(Cgroup::is_any) {
            // Children that the first process made without a pid namespace of its own.
            left.extend(cgroup.kill(libc::SIGKILL).err().map(Error::Cgroup));
            left.extend(cgroup.remove().err().map(Error::Cgroup));
        }
        if let Some(directory) = self.directory.take() {
            left.extend(directory.remove().err());
        }
        drop(removal);
        error.with_leftovers(left)
    }
}

/// Kills a child and reaps it.
pub(crate) fn end(child: &Child) -> Result<(), Error> {
    match pidfd_signal(Fd::of(&child.pidfd), libc::SIGKILL) {
        Ok(()) => {}
        Err(errno) if errno.number() == libc::ESRCH => {}
        Err(errno) => return Err(Error::io("kill the container process", errno)),
    }
    wait_exit(child.pidfd.as_fd(), crate::delete::PATIENCE)?;
    reap(child.pidfd.as_fd())
}

impl Record {
    /// The state that this record and the given facts of the moment make.
    pub(crate) fn state(&self, pid: i32, status: Status) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            pid,
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_namespaces_need_kernel_6_3() {
        for (release, enough) in [
            ("6.3.0", true),
            ("6.18.44-fc", true),
            ("7.0-rc1", true),
            ("6.2.16-generic", false),
            ("5.15.0", false),
            ("", false),
        ] {
            assert_eq!(enters_time_namespace_by_exec(release), enough, "{release}");
        }
    }

    #[test]
    fn a_pid_file_replaces_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "old and longer").unwrap();
        write_pid_file(&path, 42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write_pid_file(Path::new("/"), 1).is_err());
    }
}
