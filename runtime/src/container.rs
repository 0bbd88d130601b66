//! The handles: a [`Runtime`] is a directory of states, a [`Container`] one of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::cgroup::{Cgroup, Layout, Stats};
use crate::intel_rdt::{self, Resctrl};
use crate::process::{gate, is_alive, open_pidfd};
use crate::record::{self, Directory, Record};
use crate::seccomp::cache::Cache;
use crate::spec::{Spec, oci};
use crate::{ContainerId, Error, State, Status, spec};

/// The containers below one state root.
#[derive(Clone, Debug)]
pub struct Runtime {
    root: PathBuf,
    pub(crate) filters: Cache,
    pub(crate) layout: Option<Arc<Layout>>,
}

impl Runtime {
    /// The root when none is given.
    pub const DEFAULT_ROOT: &str = "/run/wharf-runtime";

    /// The containers below `root`. Touches nothing; the directory is made (0711) by the first create.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            filters: Cache::default(),
            layout: None,
        }
    }

    /// Takes the host's control group hierarchies for these, which were read in this process before. Otherwise each creation reads
    /// them, which takes about 0.1 ms.
    #[must_use]
    pub fn on_layout(mut self, layout: Arc<Layout>) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Keeps compiled system call filters in `directory`, so that the next container with the same profile need not wait for
    /// it. The directory is made (0700) by the first one, and is good for every root of this user.
    #[must_use]
    pub fn keep_filters(mut self, directory: impl Into<PathBuf>) -> Self {
        self.filters = Cache::at(directory.into());
        self
    }

    /// The state root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Finds a container by its recorded state.
    ///
    /// # Errors
    ///
    /// There is none, or its state cannot be read.
    pub fn load(&self, id: &ContainerId) -> Result<Container, Error> {
        let missing = || Error::NotFound(id.clone());
        let directory = Directory::open(&self.root, id)?.ok_or_else(missing)?;
        let record = directory.read()?.ok_or_else(missing)?;
        let cgroup = Cgroup::from_paths(record.cgroups.clone())?.with_unit(record.unit.clone());
        Ok(Container {
            id: id.clone(),
            pidfd: open_pidfd(record.pid, record.start_time),
            directory,
            record,
            cgroup,
            console: None,
            starting: Mutex::default(),
            warnings: Mutex::default(),
            filters: self.filters.clone(),
        })
    }

    /// Removes what a creation or a removal of `id` that was cut short (by `kill -9`) left: its state, its control groups
    /// and the process in them; whether there was something.
    ///
    /// # Errors
    ///
    /// The name belongs to a container, or is being created; or a group or the state cannot be removed.
    pub fn remove_incomplete(&self, id: &ContainerId) -> Result<bool, Error> {
        let doomed = record::remove_doomed(&self.root, id)?;
        if Directory::open(&self.root, id)?.is_none() {
            return Ok(doomed);
        }
        Directory::claim(&self.root, id)?.remove()?;
        Ok(true)
    }

    /// The names below the root, sorted; one of them may be that of a creation that was cut short.
    ///
    /// # Errors
    ///
    /// The root cannot be read. A root that is not there has none.
    pub fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        record::ids(&self.root)
    }

    /// Every container's state, by id. One whose creation was cut short is not listed.
    ///
    /// # Errors
    ///
    /// The root or a state cannot be read. A root that is not there has none.
    pub fn list(&self) -> Result<Vec<State>, Error> {
        let mut states = Vec::new();
        for id in self.ids()? {
            match self.load(&id) {
                Ok(container) => states.push(container.state()?),
                // Deleted meanwhile, or being created.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(states)
    }
}

/// One container.
#[derive(Debug)]
pub struct Container {
    pub(crate) id: ContainerId,
    pub(crate) directory: Directory,
    pub(crate) record: Record,
    pub(crate) cgroup: Cgroup,
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) console: Option<OwnedFd>,
    /// Of a creation that opened the gate.
    pub(crate) starting: Mutex<Option<OwnedFd>>,
    pub(crate) warnings: Mutex<Vec<String>>,
    pub(crate) filters: Cache,
}

impl Container {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// What it is now.
    ///
    /// # Errors
    ///
    /// The freezer cannot be read.
    pub fn state(&self) -> Result<State, Error> {
        let status = self.status()?;
        let pid = if status == Status::Stopped {
            0
        } else {
            self.record.pid
        };
        Ok(self.record.state(pid, status))
    }

    /// The first process as the caller's pid namespace numbers it; nothing when it is gone.
    #[must_use]
    pub fn init_pid(&self) -> Option<i32> {
        self.is_alive().then_some(self.record.pid)
    }

    /// The number that the first process has or had, for whoever has to reap it.
    #[must_use]
    pub fn recorded_pid(&self) -> i32 {
        self.record.pid
    }

    /// What was asked for and is not done the way it was asked, one sentence each, for the caller to log; once.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<String> {
        let mut warnings = self
            .warnings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut warnings)
    }

    /// Whether the first process has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.pidfd.as_ref().is_some_and(|pidfd| is_alive(pidfd.as_fd()))
    }

    pub(crate) fn status(&self) -> Result<Status, Error> {
        Ok(match self.is_alive() {
            false => Status::Stopped,
            true if gate::is_there(self.directory.fd()) => Status::Created,
            true if self.cgroup.is_frozen()? => Status::Paused,
            true => Status::Running,
        })
    }

    pub(crate) fn wrong(&self, operation: &'static str, status: Status) -> Error {
        Error::WrongStatus {
            operation,
            id: self.id.clone(),
            status,
        }
    }

    /// The user and the group, where the caller is, that root of the container's own user namespace is; nothing without one.
    ///
    /// # Errors
    ///
    /// The configuration that it was created with is not usable.
    pub fn root_outside(&self) -> Result<Option<(u32, u32)>, Error> {
        if self.record.namespaces & libc::CLONE_NEWUSER as u64 == 0 {
            return Ok(None);
        }
        let spec = self.spec()?;
        Ok(spec.oci().linux.as_ref().and_then(oci::Linux::root_outside))
    }

    /// The configuration as it was at creation.
    pub(crate) fn spec(&self) -> Result<Spec, Error> {
        let text = self.record.config.0.to_vec();
        Ok(spec::parse_but_profile(text)?)
    }

    /// The hooks. The configuration is read again only if it has some.
    pub(crate) fn hooks(&self) -> Result<oci::Hooks, Error> {
        if self.record.no_hooks {
            return Ok(oci::Hooks::default());
        }
        Ok(self.spec()?.oci().hooks.clone().unwrap_or_default())
    }

    /// Becomes readable when the first process ends; nothing when it was gone at load.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// The terminal's master, once, of a container this handle created.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Its control group.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The processes of the control group, as the caller's pid namespace numbers them.
    ///
    /// # Errors
    ///
    /// The group cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        Ok(self.cgroup.pids()?)
    }

    /// What it uses.
    ///
    /// # Errors
    ///
    /// The control group cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        Ok(self.cgroup.stats()?)
    }

    /// What resctrl says of its group: nothing of a container that has none.
    ///
    /// # Errors
    ///
    /// A file of resctrl cannot be read or understood.
    pub fn intel_rdt_stats(&self) -> Result<intel_rdt::Stats, Error> {
        match &self.record.intel_rdt {
            Some(group) => Ok(Resctrl::find()?
                .ok_or(intel_rdt::Error::NotEnabled)?
                .stats(group)?),
            None => Ok(intel_rdt::Stats::default()),
        }
    }

    /// Changes its shares of the L3 cache and of the memory bandwidth, those that are given (`l3CacheSchema`,
    /// `memBwSchema`).
    ///
    /// # Errors
    ///
    /// It is in no group of resctrl, a resource is not divided here, or the kernel refuses a share.
    pub fn update_intel_rdt(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<(), Error> {
        let resctrl = Resctrl::find()?;
        let group = self.record.intel_rdt.as_ref();
        Ok(Resctrl::update(resctrl.as_ref(), group, cache, bandwidth)?)
    }
}
