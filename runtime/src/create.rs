//! Creating a container: from a bundle to a process that waits at the start gate.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::value::RawValue;

use crate::cgroup::{Cgroup, CgroupPlan, Entrance, Layout};
use crate::hook::{self, Place};
use crate::init::{Failure, Message, Work, describe};
use crate::plan::{Facts, Opened, Plan};
use crate::process::{
    Conversation, Early, Heard, Request, Streams, gate, open_joins, reap, spawn, start_time, wait_exit,
};
use crate::record::{Directory, Record};
use crate::spec::Spec;
use crate::sys::Fd;
use crate::sys::process::{Child, pidfd_signal};
use crate::terminal::ConsoleSocket;
use crate::{Container, ContainerId, Error, Runtime, State, Status, Stdio, lsm, spec, user_namespace};

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
    /// `linux.cgroupsPath` is `slice:prefix:name`, for systemd.
    pub systemd_cgroup: bool,
    /// A listening unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
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
            console_socket: None,
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
        if options.systemd_cgroup {
            return Err(Error::Unsupported("the systemd cgroup driver".into()));
        }
        let bundle = fs::canonicalize(&options.bundle)
            .map_err(|error| Error::io(format!("open bundle {}", options.bundle.display()), error))?;
        let (plan, cgroups) = compile(spec, &bundle, &options)?;
        if plan.namespaces.makes(libc::CLONE_NEWTIME) {
            check_time_namespaces()?;
        }
        let streams = Streams::new(options.stdio, plan.process.terminal.is_some())?;
        let console = console_socket(options.console_socket.as_deref(), &plan)?;
        let namespaces = open_joins(&plan.namespaces.join)?;
        let directory = Directory::claim(self.root(), &options.id)?;
        let mut undo = Undo {
            directory: Some(directory),
            cgroup: None,
            child: None,
        };
        let construction = Construction {
            id: &options.id,
            bundle,
            spec,
            streams: &streams,
            console,
            pid_file: options.pid_file.as_deref(),
            preserve_fds: options.preserve_fds,
        };
        construction
            .build(plan, &cgroups, namespaces, &mut undo)
            .and_then(|built| undo.keep(built, options.id.clone(), spec, &cgroups))
            .map_err(|error| undo.perform(error))
    }
}

fn compile(spec: &Spec, bundle: &Path, options: &CreateOptions) -> Result<(Plan, CgroupPlan), Error> {
    let layout = Layout::detect()?;
    let linux = spec.oci().linux.as_ref();
    let cgroups = CgroupPlan::compile(
        &layout,
        linux.map(|linux| linux.cgroups_path.as_path()),
        options.id.as_str(),
        linux.and_then(|linux| linux.resources.as_ref()),
    )?;
    let facts = Facts {
        id: &options.id,
        bundle,
        cgroup_version: layout.version(),
        cgroup_paths: &cgroups.paths(),
        new_cgroup_namespace: false,
        lsm: lsm::Enabled::detect_for(spec.oci()),
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
    };
    let plan = Plan::compile(spec.oci(), &facts)?;
    Ok((plan, cgroups))
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
    pid_file: Option<&'a Path>,
    preserve_fds: u32,
}

/// What was built, besides what [`Undo`] holds.
struct Built {
    record: Record,
    console: Option<OwnedFd>,
}

impl Construction<'_> {
    fn build(
        mut self,
        mut plan: Plan,
        cgroup_plan: &CgroupPlan,
        namespaces: Vec<Opened>,
        undo: &mut Undo,
    ) -> Result<Built, Error> {
        let cgroup = undo.cgroup.insert(cgroup_plan.create()?);
        let Some(directory) = &undo.directory else {
            return Err(Error::Invalid("the state directory is gone".into()));
        };
        let gate = gate::make(directory.fd())?;
        let entrances = cgroup.entrances()?;
        let wait_for_parent = plan.mappings.is_some();
        let (early, join) = split(namespaces, &plan);
        let (child, socket) = spawn(Request {
            create: plan.namespaces.create,
            early,
            cgroup: cgroup.v2_dir_fd()?,
            entrances: &entrances,
            streams: self.streams,
            preserve_fds: self.preserve_fds,
            gate: Some(gate.as_fd()),
            wait_for_parent,
            join,
            join_process: None,
            work: Work::Container(&mut plan),
        })?;
        drop(gate);
        let child = &*undo.child.insert(child);
        let conversation = Conversation::new(&socket, &child.pidfd);
        let recorded = (|| {
            if let Some(mappings) = &plan.mappings {
                user_namespace::write(child.pid, mappings)?;
            }
            if let Some(score) = plan.process.oom_score_adj {
                write_oom_score(child.pid, score)?;
            }
            if wait_for_parent {
                conversation.go()?;
            }
            // While the child half builds.
            let record = self.record(child, cgroup, &plan)?;
            directory.write(&record)?;
            Ok(record)
        })();
        // A process that ended while it was written about has said why.
        let failure = |error| {
            conversation
                .last_words()
                .map_or(error, |failure| step_failed(failure, &plan, &entrances))
        };
        let record = recorded.map_err(failure)?;
        let console = self.attend(&conversation, &plan, &record, &entrances)?;
        if let Some(path) = self.pid_file {
            write_pid_file(path, child.pid)?;
        }
        Ok(Built { record, console })
    }

    /// Follows the child half until it waits at the gate; answers the terminal's master, if it stays here.
    fn attend(
        &mut self,
        conversation: &Conversation<'_>,
        plan: &Plan,
        record: &Record,
        entrances: &[Entrance],
    ) -> Result<Option<OwnedFd>, Error> {
        let mut console = None;
        loop {
            match conversation.listen()? {
                Heard::Message(Message::Ready) => return Ok(console),
                Heard::Message(Message::BeforePivot) => {
                    self.run_hooks(conversation, plan, record)?;
                    conversation.go()?;
                }
                Heard::Message(Message::Failed(failure)) => {
                    return Err(step_failed(failure, plan, entrances));
                }
                Heard::Console(master) => match self.console.take() {
                    Some(socket) => socket.send(master)?,
                    None => console = Some(master),
                },
                Heard::Message(Message::Console | Message::Executing) | Heard::Closed => {
                    return Err(Error::Ended("building the container"));
                }
            }
        }
    }

    fn run_hooks(&self, conversation: &Conversation<'_>, plan: &Plan, record: &Record) -> Result<(), Error> {
        let Some(hooks) = &self.spec.oci().hooks else {
            return Ok(());
        };
        let state = record.state(record.pid, Status::Creating);
        hook::run("prestart", &hooks.prestart, &state, Place::Runtime)?;
        hook::run("createRuntime", &hooks.create_runtime, &state, Place::Runtime)?;
        let inside = Place::Container(conversation.pidfd, hook::namespaces(plan.namespaces.all()));
        hook::run("createContainer", &hooks.create_container, &state, inside)
    }

    fn record(&self, child: &Child, cgroup: &Cgroup, plan: &Plan) -> Result<Record, Error> {
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
            namespaces: plan.namespaces.all(),
            own_namespaces: plan.namespaces.create | plan.namespaces.unshare,
            config: config.to_owned(),
        })
    }
}

fn step_failed(failure: Failure, plan: &Plan, entrances: &[Entrance]) -> Error {
    Error::Step {
        description: describe(failure, Some(plan), &plan.process, entrances),
        errno: failure.errno,
    }
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
}

impl Undo {
    /// Nothing is undone: it becomes the container.
    fn keep(
        &mut self,
        built: Built,
        id: ContainerId,
        spec: &Spec,
        cgroups: &CgroupPlan,
    ) -> Result<Container, Error> {
        let (Some(directory), Some(cgroup)) = (self.directory.take(), self.cgroup.take()) else {
            return Err(Error::Invalid("the container is gone".into()));
        };
        Ok(Container {
            id,
            directory,
            record: built.record,
            cgroup,
            pidfd: self.child.take().map(|child| child.pidfd),
            console: built.console,
            warnings: Mutex::new(
                spec.warnings()
                    .iter()
                    .chain(cgroups.warnings())
                    .cloned()
                    .collect(),
            ),
        })
    }

    /// Undoes in reverse; the answer is `error`, with what could not be undone beside it.
    fn perform(&mut self, error: Error) -> Error {
        let mut left = Vec::new();
        if let Some(child) = self.child.take() {
            left.extend(end(&child).err());
        }
        if let Some(cgroup) = self.cgroup.take() {
            // Children that the first process made without a pid namespace of its own.
            left.extend(cgroup.kill(libc::SIGKILL).err().map(Error::Cgroup));
            left.extend(cgroup.remove().err().map(Error::Cgroup));
        }
        if let Some(directory) = self.directory.take() {
            left.extend(directory.remove().err());
        }
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
