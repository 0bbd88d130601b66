//! Sources of mounts that the container's process may not open itself, opened by the parent.
//!
//! A process in a user namespace is nobody on the host: directories on the way to a source may be closed to it. And the
//! ids of a mount can be mapped only by who is root of the file system's own user namespace. So the child half asks, in
//! the order of the mounts, since a source may lie in what was mounted before.
//!
//! The source is looked up in the container's mount namespace, on a thread that lives for nothing else.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags};

use crate::init::STAGING;
use crate::plan::{IdMap, Mappings, Operation, Plan, Source, extent};
use crate::sys::mount::{Attributes, clone_tree, set_attributes};
use crate::sys::process::{Child, setns, unshare};
use crate::sys::{Errno, Fd};
use crate::{Error, id_mapped};

/// Opens sources for one container, whose process waits meanwhile.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    child: &'a Child,
    /// The directory on which mounts are staged.
    staging: Option<PathBuf>,
    /// User namespaces that were made for the maps of mounts: mounts often share their maps.
    namespaces: Vec<(Mappings, OwnedFd)>,
}

impl<'a> Sources<'a> {
    /// Sources for the container of `child`.
    pub(crate) fn new(child: &'a Child, staging: Option<PathBuf>) -> Self {
        Self {
            child,
            staging,
            namespaces: Vec::new(),
        }
    }

    /// The container's mount namespace, if it has one of its own.
    fn mounts(&self, plan: &Plan) -> Result<Option<OwnedFd>, Error> {
        match plan.namespaces.has(libc::CLONE_NEWNS) {
            true => open_namespace(self.child.pid, "mnt").map(Some),
            false => Ok(None),
        }
    }

    /// Opens the source of the `index`th operation: the place itself, or a detached mount of it when its ids are mapped.
    pub(crate) fn open(&mut self, plan: &Plan, index: u32) -> Result<OwnedFd, Error> {
        if let Some(staging) = self.staging.as_ref().filter(|_| index == STAGING) {
            return in_mounts(self.mounts(plan)?.as_ref(), || open_place(staging));
        }
        let source = match plan.rootfs.operations.get(index as usize) {
            Some(Operation::Mount(mount)) => Some(&mount.source),
            _ => None,
        };
        let Some(Source::Bind { path, tree, id_map }) = source else {
            return Err(Error::Invalid(
                "the container process asked for what is no bind mount".into(),
            ));
        };
        let name = Path::new(OsStr::from_bytes(path.to_bytes()));
        if !rustix::process::geteuid().is_root() {
            // It is the same user's process that asks: this one may not open it either.
            return Err(Error::io(
                format!("open {}", name.display()),
                Errno::new(libc::EACCES),
            ));
        }
        let mounts = self.mounts(plan)?;
        let Some(map) = id_map else {
            return in_mounts(mounts.as_ref(), || open_place(name));
        };
        let namespace = self.namespace(map)?;
        in_mounts(mounts.as_ref(), || {
            let bound = clone_tree(Fd::CWD, path, extent(*tree))
                .map_err(|errno| Error::io(format!("open_tree {}", name.display()), errno))?;
            let bound = crate::sys::fd::own(bound);
            let attributes = Attributes::id_mapped(Fd::of(&namespace));
            match set_attributes(Fd::of(&bound), &attributes, extent(map.tree)) {
                Ok(()) => Ok(bound),
                Err(errno) => Err(id_mapped::refused(name, errno)),
            }
        })
    }

    /// The user namespace whose maps a mount gets.
    fn namespace(&mut self, map: &IdMap) -> Result<OwnedFd, Error> {
        let copy = |fd: &OwnedFd| {
            fd.try_clone()
                .map_err(|error| Error::io("duplicate a user namespace", error))
        };
        let Some(mappings) = &map.mappings else {
            return open_namespace(self.child.pid, "user");
        };
        if let Some((_, made)) = self.namespaces.iter().find(|(known, _)| known == mappings) {
            return copy(made);
        }
        let made = id_mapped::namespace(mappings)?;
        let answer = copy(&made);
        self.namespaces.push((mappings.clone(), made));
        answer
    }
}

pub(crate) fn open_namespace(pid: i32, kind: &str) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/ns/{kind}");
    File::open(&path)
        .map(OwnedFd::from)
        .map_err(|error| Error::io(format!("open {path}"), error))
}

fn join_mounts(namespace: &OwnedFd) -> Result<(), Error> {
    // The kernel lets a thread change its mount namespace only if it shares its root with no other.
    unshare(libc::CLONE_FS as u64)
        .and_then(|()| setns(Fd::of(&namespace.as_fd()), libc::CLONE_NEWNS as u64))
        .map_err(|errno| Error::io("join the container's mount namespace", errno))
}

fn open_place(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| Error::io(format!("open {}", path.display()), errno))
}

/// Does `work` in a mount namespace, on a thread of its own.
fn in_mounts<T: Send>(
    namespace: Option<&OwnedFd>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let Some(namespace) = namespace else {
        return work();
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("wharf-source".into());
        let started = thread.spawn_scoped(scope, || {
            join_mounts(namespace)?;
            work()
        });
        match started
            .map_err(|error| Error::io("start a thread", error))?
            .join()
        {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
