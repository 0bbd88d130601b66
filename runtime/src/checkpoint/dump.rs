//! Saving a container.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::images::{self, Directory};
use super::message::{self, Common, Dumped, Feature, Kind, Mapped, dumped_mount};
use super::place::Root;
use super::service::{Circumstances, Criu, FIRST, Unheard};
use super::{
    CheckpointOptions, EXTERNAL_PID, Error as Refused, FREEZES_V2, OLDEST, configuration, namespace_key,
};
use crate::cgroup::Layout;
use crate::plan::{External, Host, Namespaces, external_devices, external_mounts, namespace_name};
use crate::record::{NOTIFY_DIRECTORY, NOTIFY_TARGET};
use crate::spec::oci;
use crate::sys::process::Ended;
use crate::trace::trace;
use crate::{Container, Error, Status};

const LOG: &str = "dump.log";

impl Container {
    /// Saves the container's processes with criu, which ends them then, unless they are to run on. Blocks as long as that takes.
    /// Control groups and state stay, for [`Self::delete`]. When it fails the container runs on.
    ///
    /// # Errors
    ///
    /// The container is neither running nor paused, there is no criu or it lacks something ([`ErrorKind::Unsupported`]), a
    /// directory is refused, or criu fails: [`Refused::excerpt`] has what it says about that.
    ///
    /// [`ErrorKind::Unsupported`]: crate::ErrorKind::Unsupported
    pub fn checkpoint(&self, mut options: CheckpointOptions) -> Result<(), Error> {
        let status = self.status()?;
        if !matches!(status, Status::Running | Status::Paused) {
            return Err(self.wrong("checkpoint", status));
        }
        let settings = &options.settings;
        if let Some(parent) = options.parent.as_deref().filter(|parent| parent.is_absolute()) {
            images::check_parent(&settings.images, parent)?;
        }
        let criu = Criu::find(settings.criu.as_deref())?;
        criu.need(OLDEST)?;
        let images = Directory::open(&settings.images, true)?;
        if let Some(parent) = &options.parent {
            images::check_parent(&settings.images, parent)?;
        }
        images.check_images()?;
        let work = settings.work.as_deref();
        let work = work.map(|work| Directory::open(work, true)).transpose()?;
        let log = work.as_ref().unwrap_or(&images);
        log.check_work(LOG)?;
        let kind = if options.pre_dump {
            Kind::PreDump
        } else {
            Kind::Dump
        };
        if options.pre_dump {
            criu.need_feature(Feature::MemTrack)?;
        }
        if settings.lazy_pages {
            criu.need_feature(Feature::LazyPages)?;
        }
        let spec = self.spec()?;
        let external = self.external_namespaces(spec.oci(), &criu)?;
        // Where only memory is saved the rest is not looked at.
        let mounts = match options.pre_dump {
            true => Vec::new(),
            false => {
                images.write_descriptors(&self.descriptors()?)?;
                self.mounts(spec.oci())?
            }
        };
        let root = self.record.rootfs.as_os_str().as_encoded_bytes();
        let common = Common {
            images: FIRST,
            work: work.as_ref().map(|_| FIRST + 1),
            log: LOG,
            configuration: configuration(&self.record.annotations),
            root,
            mounts: &mounts,
        };
        let mut status = options.status.take();
        let dumped = Dumped {
            pid: self.record.pid,
            external: &external,
            freezer: self.freezer(&criu),
            // Later ones say when it is time.
            status: status
                .as_ref()
                .filter(|_| !criu.is_at_least(EXTERNAL_PID))
                .map(|_| FIRST + 1 + i32::from(work.is_some())),
        };
        let request = message::request(kind, Some(&message::dump_options(&options, &common, &dumped)));
        let by_number = dumped.status.is_some();
        trace!("Using CRIU in {} mode", kind.name());
        let running = criu.start(&Circumstances {
            directories: [&images].into_iter().chain(&work).collect(),
            more: status.iter().filter(|_| by_number).map(AsFd::as_fd).collect(),
            ..Circumstances::default()
        })?;
        running.send(&request)?;
        if by_number {
            // criu has its own: whoever waits at the other end must not wait for this one.
            drop(status.take());
        }
        let broken = |problem: String| Refused::Broken {
            problem,
            log: log.log(LOG),
            excerpt: log.excerpt(LOG),
        };
        loop {
            let (answer, _) = running.hear().map_err(|Unheard(problem)| broken(problem))?;
            if !answer.success {
                return Err(Refused::Failed {
                    what: kind.name(),
                    errno: answer.errno,
                    said: answer.said,
                    log: log.log(LOG),
                    excerpt: log.excerpt(LOG),
                }
                .into());
            }
            match (answer.kind, answer.notice) {
                (Some(Kind::Notify), Some(notice)) => {
                    trace!("notify: {}", notice.script);
                    if notice.script == "status-ready"
                        && let Some(status) = status.take()
                        && let Err(error) = File::from(status).write_all(&[0])
                    {
                        self.warn(format!("can't write \\0 to status fd: {error}"));
                    }
                    running.send(&message::acknowledgement(true))?;
                }
                (Some(answered), _) if answered == kind => break,
                _ => return Err(broken("answers what was not asked".into()).into()),
            }
        }
        match running.finish()? {
            // After the memory it waits for the rest, and calls it an error when that does not come.
            Some(ended) if kind != Kind::PreDump && ended != Ended::Exited(0) => {
                Err(broken(format!("failed: {ended:?}")).into())
            }
            _ => Ok(()),
        }
    }

    /// The namespaces that are joined by path, as criu takes them: whoever made them restores them.
    fn external_namespaces(&self, spec: &oci::Spec, criu: &Criu) -> Result<Vec<String>, Error> {
        let Some(linux) = &spec.linux else {
            return Ok(Vec::new());
        };
        let mut external = Vec::new();
        for join in Namespaces::compile(linux)?.join {
            let Some((key, since)) = namespace_key(join.kind) else {
                continue;
            };
            let name = namespace_name(join.kind);
            if !criu.is_at_least(since) {
                return Err(Refused::Lacks(format!(
                    "criu lacks support for external {name} namespace during checkpointing process (old criu version?)"
                ))
                .into());
            }
            // The one that it is in: the path may lead to another one by now.
            let path = format!("/proc/{}/ns/{name}", self.record.pid);
            let found = std::fs::metadata(&path).map_err(|error| Error::io(format!("stat {path}"), error))?;
            external.push(format!("{name}[{}]:{key}", found.ino()));
        }
        Ok(external)
    }

    /// By which criu stops the processes, instead of one after the other.
    fn freezer(&self, criu: &Criu) -> Option<&[u8]> {
        let path = match self.record.cgroups.get("freezer") {
            Some(path) => path,
            None if self.cgroup.is_v2() && criu.is_at_least(FREEZES_V2) => self.record.cgroups.get("")?,
            None => return None,
        };
        Some(path.as_os_str().as_encoded_bytes())
    }

    /// What of the container's file system is found again on the host.
    fn mounts(&self, spec: &oci::Spec) -> Result<Vec<Mapped>, Error> {
        let host = Host {
            bundle: &self.record.bundle,
            cgroup_version: Layout::detect()?.version(),
            cgroup_paths: &self.record.cgroups,
            cgroup_namespace: self.record.namespaces & libc::CLONE_NEWCGROUP as u64 != 0,
        };
        let mut external = external_mounts(spec, &host)?;
        external.extend(external_devices(spec)?);
        if rustix::fs::statat(
            self.directory.fd(),
            NOTIFY_DIRECTORY,
            rustix::fs::AtFlags::empty(),
        )
        .is_ok()
        {
            external.push(External {
                place: NOTIFY_TARGET.into(),
                source: NOTIFY_TARGET.into(),
            });
        }
        let root = Root::open(&self.record.rootfs)?;
        let mut mounts = Vec::with_capacity(external.len());
        for external in external {
            mounts.push(dumped_mount(&root.resolve(external)?));
        }
        self.add_masked(spec, &mut mounts)?;
        Ok(mounts)
    }

    /// Files that are covered have the null device on them. Directories have mounts of the container's.
    fn add_masked(&self, spec: &oci::Spec, mounts: &mut Vec<Mapped>) -> Result<(), Error> {
        let masked = spec.linux.as_ref().map(|linux| linux.masked_paths.as_slice());
        let masked = masked.unwrap_or_default();
        if masked.is_empty() {
            return Ok(());
        }
        let root = Root::open(Path::new(&format!("/proc/{}/root", self.record.pid)))?;
        for path in masked {
            if root.is_directory(Path::new(path))? == Some(false) {
                let place = root.real_path(Path::new(path))?;
                mounts.push(Mapped {
                    key: place.into_os_string().into_encoded_bytes(),
                    value: b"/dev/null".to_vec(),
                });
            }
        }
        Ok(())
    }

    /// What 0, 1 and 2 of the first process are; an empty name for one that is closed.
    fn descriptors(&self) -> Result<Vec<String>, Error> {
        (0..3)
            .map(|number| {
                let path = format!("/proc/{}/fd/{number}", self.record.pid);
                match std::fs::read_link(&path) {
                    Ok(name) => Ok(name.to_string_lossy().into_owned()),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
                    Err(error) => Err(Error::io(format!("read {path}"), error)),
                }
            })
            .collect()
    }
}
