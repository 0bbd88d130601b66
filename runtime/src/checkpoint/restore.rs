//! Making a container again from what was saved.
//!
//! In order: everything is read and checked; the state directory and the control groups are made; criu is started in a mount
//! namespace in which the root file system is a mount of its own, and is put into the groups; it is asked. When a step fails
//! everything is taken back, and processes that were made are killed before they ran.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::images::Directory;
use super::message::{self, Answer, Common, Feature, Kind, Mapped, Notice, Restored, restored_mount};
use super::options::RestoreOptions;
use super::place::Root;
use super::service::{self, Circumstances, Criu, FIRST, Running, Unheard, c_path};
use super::{Error as Refused, LSM, OLDEST, configuration, namespace_key, verify};
use crate::cgroup::{CgroupPlan, Layout};
use crate::create::{self, Built, Undo};
use crate::init::make_mountpoints;
use crate::intel_rdt::Resctrl;
use crate::plan::{
    External, Host, Opened, Plan, external_devices, external_mounts, mountpoints, namespace_name,
};
use crate::process::{Streams, open_joins};
use crate::record::{NOTIFY_DIRECTORY, NOTIFY_TARGET, Record};
use crate::seccomp::later;
use crate::spec::Spec;
use crate::sys::process::{Child, Ended, Notice as Told, pidfd_signal, wait};
use crate::sys::{Fd, fd};
use crate::terminal::ConsoleSocket;
use crate::trace::trace;
use crate::{Container, CreateOptions, Error, Runtime, Status, hook};

const LOG: &str = "restore.log";

impl Runtime {
    /// Makes a container again from a checkpoint, with criu. Blocks until its processes run.
    ///
    /// The first process is a child of the caller, who reaps it. Of the hooks `prestart` and `createRuntime` are run, in new
    /// namespaces. When this fails nothing is left but criu's log.
    ///
    /// # Errors
    ///
    /// The name is taken, the configuration is refused, there is no criu or it lacks something, a file of the checkpoint is
    /// refused, criu fails, or what it made does not fit the configuration.
    pub fn restore(&self, options: RestoreOptions) -> Result<Container, Error> {
        let spec = self.configuration(&options.bundle)?;
        self.restore_as(options, &spec)
    }

    /// As [`Self::restore`], of a configuration that the caller has already loaded.
    ///
    /// # Errors
    ///
    /// As [`Self::restore`].
    pub fn restore_as(&self, mut options: RestoreOptions, spec: &Spec) -> Result<Container, Error> {
        let bundle = fs::canonicalize(&options.bundle)
            .map_err(|error| Error::io(format!("open bundle {}", options.bundle.display()), error))?;
        let mut created = CreateOptions::new(options.id.clone(), &options.bundle);
        created.systemd_cgroup = options.systemd_cgroup;
        created.rootless = options.rootless;
        let (mut plan, cgroups) = self.compile(spec.oci(), spec, &bundle, &created)?;
        later::check(spec, &self.filters)?;
        let resctrl = create::resctrl(&plan)?;
        let streams = Streams::new(
            std::mem::take(&mut options.stdio),
            plan.process.terminal.is_some(),
        )?;
        let console = create::console_socket(options.console_socket.as_deref(), &plan)?;
        let namespaces = open_joins(&plan.namespaces.join)?;
        let warnings = create::check_joined(spec, &mut plan, &namespaces)?;
        let criu = find_criu(&options)?;
        let images = Directory::open(&options.settings.images, false)?;
        images.check_images()?;
        let pipes = images.read_pipes()?;
        let work = options.settings.work.as_deref();
        let work = work.map(|work| Directory::open(work, true)).transpose()?;
        work.as_ref().unwrap_or(&images).check_work(LOG)?;
        let host = Host {
            bundle: &bundle,
            cgroup_version: Layout::detect()?.version(),
            cgroup_paths: &cgroups.paths(),
            cgroup_namespace: plan.namespaces.has(libc::CLONE_NEWCGROUP),
        };
        let points = mountpoints(spec.oci(), &host)?;
        let mut external = external_mounts(spec.oci(), &host)?;
        external.extend(external_devices(spec.oci())?);
        let directory = crate::record::Directory::claim(self.root(), &options.id)?;
        let mut undo = Undo {
            directory: Some(directory),
            cgroup: None,
            child: None,
            intel_rdt: None,
        };
        let mut restoration = Restoration {
            options: &options,
            spec,
            plan: &plan,
            bundle: &bundle,
            rootfs: Path::new(OsStr::from_bytes(plan.rootfs.path.to_bytes())),
            criu: &criu,
            images: &images,
            work: work.as_ref(),
            namespaces: &namespaces,
            resctrl,
            console,
            pipes,
            master: None,
            first: None,
            cgroups: Vec::new(),
        };
        restoration
            .make_targets(&points)
            .and_then(|()| restoration.perform(&cgroups, external, &streams, &mut undo))
            .and_then(|built| undo.keep(built, options.id.clone(), warnings.chain(spec, &cgroups)))
            .map(|container| Container {
                filters: self.filters.clone(),
                ..container
            })
            .map_err(|error| undo.perform(error))
    }
}

fn find_criu(options: &RestoreOptions) -> Result<Criu, Error> {
    let criu = Criu::find(options.settings.criu.as_deref())?;
    criu.need(OLDEST)?;
    for (given, flag) in [
        (&options.lsm_profile, "--lsm-profile"),
        (&options.lsm_mount_context, "--lsm-mount-context"),
    ] {
        if given.is_some() && !criu.is_at_least(LSM) {
            return Err(Refused::Lacks(format!("{flag} requires at least CRIU 3.16")).into());
        }
    }
    if options.settings.lazy_pages {
        criu.need_feature(Feature::LazyPages)?;
    }
    Ok(criu)
}

/// One restore under way.
struct Restoration<'a> {
    options: &'a RestoreOptions,
    spec: &'a Spec,
    plan: &'a Plan,
    bundle: &'a Path,
    rootfs: &'a Path,
    criu: &'a Criu,
    images: &'a Directory,
    work: Option<&'a Directory>,
    namespaces: &'a [Opened],
    resctrl: Option<Resctrl>,
    console: Option<ConsoleSocket>,
    /// Streams of the process that was saved, to be replaced.
    pipes: Vec<(String, i32)>,
    /// The terminal, when criu has handed it over.
    master: Option<OwnedFd>,
    /// The first process, when criu has made it.
    first: Option<Child>,
    /// The groups that criu was put into.
    cgroups: Vec<(String, String)>,
}

impl Restoration<'_> {
    /// Makes the targets of mounts that are not there, as the creation of a container does.
    fn make_targets(&self, points: &[crate::plan::Mountpoint]) -> Result<(), Error> {
        let (heard, report) = service::report_pipe()?;
        let reporter = Fd::of(&report);
        let path = &self.plan.rootfs.path;
        let namespaces = libc::CLONE_NEWNS as u64;
        let child = service::clone(namespaces, Told::Nothing, || {
            make_mountpoints(path, points, reporter)
        })?;
        drop(report);
        let trouble = service::read_trouble(heard);
        wait(Fd::of(&child.pidfd)).map_err(|errno| Error::io("wait for a process", errno))?;
        let Some(trouble) = trouble? else {
            return Ok(());
        };
        let place = points
            .get(trouble.index as usize)
            .map(|point| point.place.to_string_lossy());
        let what = match place {
            Some(place) => format!("create criu restore mountpoint for /{place} mount"),
            None => format!("open the root file system {}", path.to_string_lossy()),
        };
        Err(Error::io(what, trouble.errno))
    }

    fn perform(
        &mut self,
        cgroup_plan: &CgroupPlan,
        mut external: Vec<External>,
        streams: &Streams,
        undo: &mut Undo,
    ) -> Result<Built, Error> {
        let Some(directory) = &undo.directory else {
            return Err(Error::Invalid("the state directory is gone".into()));
        };
        // Whoever looks for a service manager in there finds what it had.
        directory.make_notify_directory()?;
        external.push(External {
            place: NOTIFY_TARGET.into(),
            source: directory.path()?.join(NOTIFY_DIRECTORY),
        });
        directory.note_cgroups(&cgroup_plan.paths())?;
        let by_unit = cgroup_plan.needs_process();
        if !by_unit {
            undo.cgroup = Some(cgroup_plan.create()?);
        }
        let staging = directory.make_staging()?;
        let place = fs::canonicalize(&staging).map_err(|error| Error::io("find the state", error))?;
        let place = c_path(&place)?;
        // criu wants a root that is a mount, with nothing mounted over what is above it. Where the container is in the
        // host's mount namespace criu has to be, too.
        let own_mounts = self.plan.namespaces.has(libc::CLONE_NEWNS);
        let circumstances = Circumstances {
            streams: given_streams(streams, self.plan.process.terminal.is_some())?,
            directories: [self.images].into_iter().chain(self.work).collect(),
            more: self
                .inherited_namespaces()
                .map(|namespace| namespace.fd.as_fd())
                .collect(),
            root: own_mounts.then_some((self.plan.rootfs.path.as_c_str(), place.as_c_str())),
        };
        let running = self.criu.start(&circumstances)?;
        drop(circumstances);
        if by_unit {
            // What started is removed, whatever comes next.
            undo.cgroup = Some(cgroup_plan.start_unit(running.pid())?);
            undo.cgroup = Some(cgroup_plan.fill(running.pid())?);
        }
        let Some(cgroup) = &undo.cgroup else {
            return Err(Error::Invalid("the control group is gone".into()));
        };
        if !by_unit {
            cgroup.join(running.pid())?;
        }
        if let (Some(resctrl), Some(settings)) = (&self.resctrl, &self.plan.intel_rdt) {
            undo.intel_rdt = Some(resctrl.enter(settings, &self.options.id, running.pid())?);
        }
        let path = format!("/proc/{}/cgroup", running.pid());
        let text = fs::read_to_string(&path).map_err(|error| Error::io(format!("read {path}"), error))?;
        self.cgroups = verify::parse_cgroups(&text);
        let root = match own_mounts {
            true => place.as_bytes().to_vec(),
            false => self.plan.rootfs.path.as_bytes().to_vec(),
        };
        running.send(&self.request(&external, &root)?)?;
        let heard = self.converse(&running, undo);
        let finished = heard.and_then(|record| {
            let ended = running.finish()?;
            match ended {
                Some(ended) if ended != Ended::Exited(0) => Err(self.broken(format!("failed: {ended:?}"))),
                _ => Ok(record),
            }
        });
        // It is a child of this process's, whatever became of criu.
        undo.child = self.first.take();
        let record = finished?;
        if let Some(directory) = &undo.directory {
            directory.remove_staging()?;
        }
        if let (Some(path), Some(child)) = (&self.options.pid_file, &undo.child) {
            create::write_pid_file(path, child.pid)?;
        }
        let mut warnings = self.plan.process.warnings.clone();
        warnings.extend(self.plan.rootfs.warnings.iter().cloned());
        if verify::left_out(self.plan, self.options.settings.manage_cgroups) != 0 {
            warnings.push("criu makes no cgroup namespace while it ignores control groups".to_owned());
        }
        Ok(Built {
            record,
            console: self.master.take(),
            starting: None,
            warnings,
        })
    }

    /// The namespaces that criu is given open.
    fn inherited_namespaces(&self) -> impl Iterator<Item = &Opened> {
        let is_given = |namespace: &&Opened| namespace_key(namespace.kind).is_some();
        self.namespaces.iter().filter(is_given)
    }

    fn request(&self, external: &[External], root: &[u8]) -> Result<super::wire::Message, Error> {
        let rootfs = Root::open(self.rootfs)?;
        let mut mounts = Vec::with_capacity(external.len() + 1);
        for external in external {
            mounts.push(restored_mount(&rootfs.resolve(external.clone())?));
        }
        // What files are covered with.
        mounts.push(Mapped {
            key: b"/dev/null".to_vec(),
            value: b"/dev/null".to_vec(),
        });
        let mut inherited = Vec::new();
        let first = FIRST + 1 + i32::from(self.work.is_some());
        for (number, namespace) in (first..).zip(self.inherited_namespaces()) {
            let Some((key, since)) = namespace_key(namespace.kind) else {
                continue;
            };
            if !self.criu.is_at_least(since) {
                return Err(Refused::Lacks(format!(
                    "criu lacks support for external {} namespace during the restoration process (old criu version?)",
                    namespace_name(namespace.kind)
                ))
                .into());
            }
            inherited.push((key.to_owned(), number));
        }
        inherited.extend(self.pipes.iter().cloned());
        let mut join = Vec::new();
        for joined in &self.plan.namespaces.join {
            match joined.kind as libc::c_int {
                libc::CLONE_NEWNET | libc::CLONE_NEWPID => {}
                libc::CLONE_NEWCGROUP => {
                    return Err(Error::Unsupported(
                        "restoring into a cgroup namespace that exists".into(),
                    ));
                }
                _ => join.push((
                    namespace_name(joined.kind),
                    joined.path.as_os_str().as_encoded_bytes().to_vec(),
                )),
            }
        }
        let common = Common {
            images: FIRST,
            work: self.work.map(|_| FIRST + 1),
            log: LOG,
            configuration: configuration(&self.spec.oci().annotations),
            root,
            mounts: &mounts,
        };
        let restored = Restored {
            cgroups: &self.cgroups,
            inherited: &inherited,
            join: &join,
        };
        let options = message::restore_options(self.options, &common, &restored);
        trace!("Using CRIU in {} mode", Kind::Restore.name());
        Ok(message::request(Kind::Restore, Some(&options)))
    }

    /// Answers criu's notices until it is done. A notice that cannot be answered well ends the restore, by criu.
    fn converse(&mut self, running: &Running, undo: &Undo) -> Result<Record, Error> {
        let mut refused = None;
        let mut record = None;
        loop {
            let (answer, passed) = match running.hear() {
                Ok(heard) => heard,
                Err(Unheard(problem)) => return Err(refused.unwrap_or_else(|| self.broken(problem))),
            };
            match &answer {
                Answer { success: false, .. } => return Err(refused.unwrap_or_else(|| self.failed(answer))),
                Answer {
                    kind: Some(Kind::Notify),
                    notice: Some(notice),
                    ..
                } => {
                    trace!("notify: {}", notice.script);
                    let attended = match refused {
                        None => self.attend(notice, passed, undo, &mut record),
                        Some(_) => Ok(()),
                    };
                    if let Err(error) = attended {
                        // criu does not mind what it hears so late.
                        self.kill(undo);
                        refused = Some(error);
                    }
                    match (
                        running.send(&message::acknowledgement(refused.is_none())),
                        &refused,
                    ) {
                        (Err(error), None) => return Err(error),
                        // It has noticed what became of its processes.
                        (Err(_), Some(_)) | (Ok(()), _) => {}
                    }
                }
                Answer {
                    kind: Some(Kind::Restore),
                    ..
                } => {
                    return match (refused, record) {
                        (Some(error), _) => Err(error),
                        (None, Some(record)) => Ok(record),
                        (None, None) => Err(self.broken("does not tell which process it made".into())),
                    };
                }
                _ => return Err(self.broken("answers what was not asked".into())),
            }
        }
    }

    fn attend(
        &mut self,
        notice: &Notice,
        passed: Option<OwnedFd>,
        undo: &Undo,
        record: &mut Option<Record>,
    ) -> Result<(), Error> {
        match notice.script.as_str() {
            "setup-namespaces" => {
                let pid = self.hold(notice)?;
                self.run_hooks(pid, undo)
            }
            "post-restore" => {
                let pid = self.hold(notice)?;
                let written = self.record(pid, undo)?;
                *record = Some(written);
                Ok(())
            }
            // Credentials and filters are there by now, and nothing has run.
            "pre-resume" => match &self.first {
                Some(first) => {
                    let mode = self.options.settings.manage_cgroups;
                    verify::check(first.pid, self.plan, mode, self.namespaces, &self.cgroups)
                }
                None => Err(self.broken("does not tell which process it made".into())),
            },
            "orphan-pts-master" => match (passed, self.console.take()) {
                (None, _) => Err(self.broken("hands over no terminal".into())),
                (Some(master), Some(console)) => console.send(master),
                (Some(master), None) => {
                    self.master = Some(
                        fd::above_streams(master).map_err(|errno| Error::io("take the terminal", errno))?,
                    );
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    /// Takes hold of the first process, a child of this one; once.
    fn hold(&mut self, notice: &Notice) -> Result<i32, Error> {
        let wrong = || self.broken(format!("tells a wrong process at {}", notice.script));
        let pid = notice
            .pid
            .and_then(Pid::from_raw)
            .filter(|pid| pid.as_raw_pid() > 0)
            .ok_or_else(wrong)?;
        let number = pid.as_raw_pid();
        if let Some(first) = &self.first {
            return match first.pid == number {
                true => Ok(number),
                false => Err(wrong()),
            };
        }
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Error::io("open a pidfd", errno))?;
        let pidfd = fd::above_streams(pidfd).map_err(|errno| Error::io("open a pidfd", errno))?;
        // As long as it is a child that nobody has reaped its number is nobody else's.
        if crate::process::parent(number) != Some(std::process::id().cast_signed()) {
            return Err(wrong());
        }
        self.first = Some(Child { pid: number, pidfd });
        Ok(number)
    }

    fn run_hooks(&self, pid: i32, undo: &Undo) -> Result<(), Error> {
        let Some(hooks) = &self.spec.oci().hooks else {
            return Ok(());
        };
        if hooks.prestart.is_empty() && hooks.create_runtime.is_empty() {
            return Ok(());
        }
        let Some(cgroup) = &undo.cgroup else {
            return Err(Error::Invalid("the control group is gone".into()));
        };
        let record = create::record(
            &self.options.id,
            self.bundle,
            self.spec,
            pid,
            cgroup,
            self.plan,
            None,
        )?;
        let state = record.state(pid, Status::Creating);
        hook::run("prestart", &hooks.prestart, &state)?;
        hook::run("createRuntime", &hooks.create_runtime, &state)
    }

    fn record(&self, pid: i32, undo: &Undo) -> Result<Record, Error> {
        let (Some(cgroup), Some(directory)) = (&undo.cgroup, &undo.directory) else {
            return Err(Error::Invalid("the control group is gone".into()));
        };
        let intel_rdt = undo.intel_rdt.clone();
        let mut record = create::record(
            &self.options.id,
            self.bundle,
            self.spec,
            pid,
            cgroup,
            self.plan,
            intel_rdt,
        )?;
        if verify::has_own_time(pid)? {
            record.namespaces |= libc::CLONE_NEWTIME as u64;
            record.own_namespaces |= libc::CLONE_NEWTIME as u64;
        }
        directory.write(&record)?;
        Ok(record)
    }

    /// Kills what was made: it is not to run.
    fn kill(&self, undo: &Undo) {
        let signalled = self
            .first
            .as_ref()
            .map(|first| pidfd_signal(Fd::of(&first.pidfd), libc::SIGKILL));
        // Without a pid namespace the end of the first process is not that of the others. When this fails criu is told, and the
        // undoing of the restore kills once more, and tells.
        let killed = undo.cgroup.as_ref().map(|cgroup| cgroup.kill(libc::SIGKILL));
        trace!("killed what was restored: {signalled:?} {killed:?}");
    }

    fn log(&self) -> &Directory {
        self.work.unwrap_or(self.images)
    }

    fn failed(&self, answer: Answer) -> Error {
        Refused::Failed {
            what: Kind::Restore.name(),
            errno: answer.errno,
            said: answer.said,
            log: self.log().log(LOG),
            excerpt: self.log().excerpt(LOG),
        }
        .into()
    }

    fn broken(&self, problem: String) -> Error {
        Refused::Broken {
            problem,
            log: self.log().log(LOG),
            excerpt: self.log().excerpt(LOG),
        }
        .into()
    }
}

/// What criu has as its streams, and processes get whose pipes it replaces; nothing for a container with a terminal.
fn given_streams(streams: &Streams, terminal: bool) -> Result<Option<[OwnedFd; 3]>, Error> {
    if terminal {
        return Ok(None);
    }
    let copies = match streams {
        Streams::Given(given) => given.each_ref().map(OwnedFd::try_clone),
        Streams::Callers => [
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            rustix::stdio::stderr(),
        ]
        .map(|stream| match stream.try_clone_to_owned() {
            // One that is closed is the null device.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from),
            copied => copied,
        }),
    };
    let [stdin, stdout, stderr] = copies;
    let failed = |error| Error::io("duplicate a stream", error);
    let given = [
        stdin.map_err(failed)?,
        stdout.map_err(failed)?,
        stderr.map_err(failed)?,
    ];
    debug_assert!(given.iter().all(|stream| stream.as_raw_fd() >= 0));
    Ok(Some(given))
}
