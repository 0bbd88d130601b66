//! Sources of mounts that the container's process may not open itself, opened by the parent.
//!
//! A process in a user namespace is nobody on the host: directories on the way to a source may be closed to it. And the
//! ids of a mount can be mapped only by who is root of the file system's own user namespace. So the child half asks, in
//! the order of the mounts, since a source may lie in what was mounted before.
//!
//! The source is looked up in the container's mount namespace, on a thread that lives for nothing else.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::fs::{Mode, OFlags};

use crate::plan::{IdMap, Mappings, Operation, Plan, Source, extent};
use crate::sys::mount::{Attributes, clone_tree, set_attributes};
use crate::sys::process::{Child, clone_waiting, setns, unshare};
use crate::sys::{Errno, Fd};
use crate::{Error, user_namespace};

/// Opens sources for one container, whose process waits meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// User namespaces that were made for the maps of mounts: mounts often share their maps.
    namespaces: Vec<(Mappings, OwnedFd)>,
}

impl Sources {
    /// Opens the source of the `index`th operation: the place itself, or a detached mount of it when its ids are mapped.
    pub(crate) fn open(&mut self, plan: &Plan, index: u32, child: &Child) -> Result<OwnedFd, Error> {
        let operation = plan.rootfs.operations.get(index as usize);
        let Some(Operation::Mount(mount)) = operation else {
            return Err(Error::Invalid("the container process asked for no mount".into()));
        };
        let Source::Bind { path, tree, id_map } = &mount.source else {
            return Err(Error::Invalid(
                "the container process asked for no bind mount".into(),
            ));
        };
        let name = path.to_string_lossy().into_owned();
        let namespace = match id_map {
            Some(map) => Some((self.namespace(map, child)?, map.tree)),
            None => None,
        };
        let mounts = match plan.namespaces.has(libc::CLONE_NEWNS) {
            true => Some(open_namespace(child.pid, "mnt")?),
            false => None,
        };
        let open = || -> Result<OwnedFd, Error> {
            if let Some(mounts) = &mounts {
                join_mounts(mounts)?;
            }
            let Some((namespace, whole)) = &namespace else {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                return rustix::fs::open(path.as_c_str(), flags, Mode::empty())
                    .map_err(|errno| Error::io(format!("open {name}"), errno));
            };
            let bound = clone_tree(Fd::CWD, path, extent(*tree))
                .map_err(|errno| Error::io(format!("open_tree {name}"), errno))?;
            let bound = crate::sys::fd::own(bound);
            let attributes = Attributes::id_mapped(Fd::of(namespace));
            set_attributes(Fd::of(&bound), &attributes, extent(*whole)).map_err(|errno| {
                Error::io(
                    format!("map the ids of {name} (does its file system support that?)"),
                    errno,
                )
            })?;
            Ok(bound)
        };
        on_own_thread(open)
    }

    /// The user namespace whose maps a mount gets.
    fn namespace(&mut self, map: &IdMap, child: &Child) -> Result<OwnedFd, Error> {
        let copy = |fd: &OwnedFd| {
            fd.try_clone()
                .map_err(|error| Error::io("duplicate a user namespace", error))
        };
        let Some(mappings) = &map.mappings else {
            return open_namespace(child.pid, "user");
        };
        if let Some((_, made)) = self.namespaces.iter().find(|(known, _)| known == mappings) {
            return copy(made);
        }
        let made = make_namespace(mappings)?;
        let answer = copy(&made);
        self.namespaces.push((mappings.clone(), made));
        answer
    }
}

/// A user namespace with these maps and nobody in it.
fn make_namespace(mappings: &Mappings) -> Result<OwnedFd, Error> {
    let failed = |errno: Errno| Error::io("make a user namespace for an id-mapped mount", errno);
    let (ours, theirs) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let child = clone_waiting(libc::CLONE_NEWUSER as u64, Fd::of(&ours), Fd::of(&theirs)).map_err(failed)?;
    let namespace =
        user_namespace::write(child.pid, mappings).and_then(|()| open_namespace(child.pid, "user"));
    let ended = crate::create::end(&child);
    let namespace = namespace?;
    ended?;
    Ok(namespace)
}

fn open_namespace(pid: i32, kind: &str) -> Result<OwnedFd, Error> {
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

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("wharf-source".into());
        let started = thread.spawn_scoped(scope, work);
        match started
            .map_err(|error| Error::io("start a thread", error))?
            .join()
        {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
