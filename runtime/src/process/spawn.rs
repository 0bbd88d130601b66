//! The clone itself.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Conversation, Heard, Streams, is_alive, reap, wait_exit};
use crate::Error;
use crate::cgroup::Entrance;
use crate::init::{self, Meanwhile, Wires, Work};
use crate::kernel;
use crate::plan::{Join, Opened, namespace_name};
use crate::sys::fd::above_streams;
use crate::sys::process::{Child, Notice, clone_child, clone_child_old, set_affinity, setns, unshare};
use crate::sys::{Errno, Fd, signal};
use crate::trace::trace;

/// Namespaces that must be joined before the clone.
///
/// A pid namespace is entered by being born in it, and who is born in one that others live in must have nothing of the
/// host's about it. And a namespace of the caller's user namespace cannot be joined any
/// more from a new one.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// By descriptor of the namespace, or of a process, and type.
    pub(crate) namespaces: Vec<(OwnedFd, u64)>,
    /// The CPUs that the clone is made on.
    pub(crate) affinity: Option<Vec<u64>>,
}

/// The v1 groups of a child half.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Groups<'a> {
    /// They are there.
    Made(&'a [Entrance]),
    /// They are made while the child half does this, which then waits to be let in ([`Conversation::admit`]).
    Awaited(Meanwhile),
}

/// A child half to be.
pub(crate) struct Request<'a> {
    /// What it becomes.
    pub(crate) work: Work<'a>,
    /// `CLONE_NEW*` for `clone3`.
    pub(crate) create: u64,
    /// Joined before.
    pub(crate) early: Early,
    /// The v2 group it is born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// The v1 groups that it enters before it does anything that costs.
    pub(crate) groups: Groups<'a>,
    /// Its streams.
    pub(crate) streams: &'a Streams,
    /// How many descriptors from 3 on it keeps.
    pub(crate) preserve_fds: u32,
    /// The start gate.
    pub(crate) gate: Option<BorrowedFd<'a>>,
    /// It waits for the parent, who has something to do first.
    pub(crate) wait_for_parent: bool,
    /// Joined by the child half.
    pub(crate) join: Vec<Opened>,
    /// The kernel has only the calls of old.
    pub(crate) old_kernel: bool,
    /// It writes to the host's procfs: it may not have one that is nobody else's.
    pub(crate) host_proc: bool,
    /// A process whose namespaces the child half joins.
    pub(crate) join_process: Option<(BorrowedFd<'a>, u64)>,
    /// An usher joins, and makes the process; nothing is joined before.
    pub(crate) usher: bool,
    /// Leave the caller's groups when root of a user namespace is assumed.
    pub(crate) drop_groups: bool,
    /// It lets itself be reached at the gate.
    pub(crate) show_at_gate: bool,
    /// For its own `oom_score_adj`, where this process has no privilege to write it.
    pub(crate) oom_score: Option<CString>,
    /// Resources and hard limits that it raises before it has no privilege to.
    pub(crate) raise: Vec<(u32, u64)>,
}

/// A child half that was made.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    /// This side of the conversation.
    pub(crate) socket: OwnedFd,
    /// Where it waits for its filter, if its plan has only room for one.
    pub(crate) filter: Option<OwnedFd>,
}

/// Makes the child.
pub(crate) fn spawn(request: Request<'_>) -> Result<Spawned, Error> {
    let (ours, theirs) = pair()?;
    let usher = request.usher.then(pair).transpose()?;
    let filter = request.work.awaits_filter().then(pair).transpose()?;
    // An usher joins before anything is closed.
    let late = if usher.is_some() { &[][..] } else { &request.join };
    let proc = (request.old_kernel || request.host_proc)
        .then(kernel::open_proc)
        .transpose()?;
    // Without `clone3` it cannot be born in its group.
    let procs = match request.cgroup.filter(|_| request.old_kernel) {
        Some(group) => Some(open_procs(group)?),
        None => None,
    };
    let first_undeclared = request.preserve_fds.saturating_add(3);
    let mut keep: Vec<u32> = [Fd::of(&theirs)]
        .into_iter()
        .chain(request.gate.as_ref().map(Fd::of))
        .chain(filter.as_ref().map(|(_, theirs)| Fd::of(theirs)))
        // The usher's, closed by the process that it makes.
        .chain(usher.as_ref().map(|(_, theirs)| Fd::of(theirs)))
        .chain(late.iter().map(|namespace| Fd::of(&namespace.fd)))
        .chain(proc.as_ref().map(Fd::of))
        .chain(request.join_process.as_ref().map(|(pidfd, _)| Fd::of(pidfd)))
        .map(|fd| fd.number().cast_unsigned())
        .collect();
    keep.sort_unstable();
    let (entrances, meanwhile) = match request.groups {
        Groups::Made(entrances) => (entrances, None),
        Groups::Awaited(meanwhile) => (&[][..], Some(meanwhile)),
    };
    let wires = Wires {
        parent: Fd::of(&theirs),
        entrances: entrances
            .iter()
            .map(|entrance| Fd::of(&entrance.as_fd()))
            .chain(procs.as_ref().map(Fd::of))
            .collect(),
        meanwhile,
        proc: proc.as_ref().map(Fd::of),
        gate: request.gate.as_ref().map(Fd::of),
        filter: filter.as_ref().map(|(_, theirs)| Fd::of(theirs)),
        streams: request.streams.wires(),
        close: gaps(first_undeclared, &keep),
        first_undeclared,
        wait_for_parent: request.wait_for_parent,
        join: request.join,
        drop_groups: request.drop_groups,
        show_at_gate: request.show_at_gate,
        oom_score: request.oom_score,
        raise: request.raise,
        usher: usher.as_ref().map(|(_, theirs)| (Fd::of(theirs), request.create)),
        join_process: request.join_process.map(|(pidfd, kinds)| (Fd::of(&pidfd), kinds)),
    };
    let old_kernel = request.old_kernel;
    // What is new is the process's, not its usher's.
    let create = match usher {
        Some(_) => 0,
        None => request.create & !meanwhile.map_or(0, |meanwhile| meanwhile.namespaces),
    };
    let (cgroup, work) = (request.cgroup.as_ref().map(Fd::of), request.work);
    let make = || {
        let body = || init::run(work, &wires);
        if old_kernel {
            // A handler of the caller's must not run in the child, which resets all of them before it unblocks any.
            let mask = signal::Mask::all_but_faults();
            let before = signal::set_mask(mask).map_err(|error| Error::io("block signals", error))?;
            // SAFETY: `init::run` allocates nothing, locks nothing, does not unwind and never returns.
            #[allow(unsafe_code)]
            let child = unsafe { clone_child_old(create, Notice::Child, body) };
            signal::set_mask(before).map_err(|error| Error::io("unblock signals", error))?;
            return child.map_err(|errno| Error::io("clone", errno));
        }
        // SAFETY: as above.
        #[allow(unsafe_code)]
        let child = unsafe { clone_child(create, cgroup, Notice::Child, body) };
        child.map_err(Error::Clone)
    };
    trace!(
        "nsexec container setup: new namespaces {}, joined before {}",
        Names(create),
        Names(
            request
                .early
                .namespaces
                .iter()
                .fold(0, |kinds, (_, kind)| kinds | kind)
        ),
    );
    let child = in_namespaces(&request.early, make)?;
    trace!("child process in init(): {}", child.pid);
    let child = match usher {
        None => child,
        Some((usher, theirs)) => {
            drop(theirs);
            follow(child, &usher)?
        }
    };
    Ok(Spawned {
        child,
        socket: ours,
        filter: filter.map(|(ours, _)| ours),
    })
}

/// Two ends of a connection that keeps packets apart, the second for the child half.
fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| Error::io("make a socket pair", errno))?;
    Ok((ours, above(theirs)?))
}

/// The process that an usher made; or the usher itself, if it failed: the conversation then begins, and ends, with why.
fn follow(usher: Child, socket: &OwnedFd) -> Result<Child, Error> {
    match Conversation::new(socket, &usher.pidfd).listen()? {
        Heard::Born(pid, pidfd) => {
            let made = Child { pid, pidfd };
            // It has nothing left to do but to end.
            match wait_exit(usher.pidfd.as_fd(), crate::delete::PATIENCE)? {
                true => reap(usher.pidfd.as_fd()).map(|()| made),
                false => Err(Error::Ended("waiting for its maker's end")),
            }
        }
        _ => Ok(usher),
    }
}

/// The descriptor under a number that no standard stream has.
fn above(fd: OwnedFd) -> Result<OwnedFd, Error> {
    above_streams(fd).map_err(|errno| Error::io("duplicate a descriptor", errno))
}

/// The file by which a process enters a v2 group.
fn open_procs(group: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty())
        .map_err(|errno| Error::io("open cgroup.procs", errno))
}

/// Runs `make` on a thread of its own in these namespaces, so that no thread of the caller's is ever in them.
fn in_namespaces<F>(early: &Early, make: F) -> Result<Child, Error>
where
    F: FnOnce() -> Result<Child, Error> + Send,
{
    if early.namespaces.is_empty() && early.affinity.is_none() {
        return make();
    }
    thread::scope(|scope| {
        let joined = thread::Builder::new()
            .name("wharf-clone".into())
            .spawn_scoped(scope, || {
                if let Some(mask) = &early.affinity {
                    set_affinity(mask).map_err(|errno| Error::io("set the initial CPU affinity", errno))?;
                    trace!("nsexec: affinity: {:x}", Cpus(mask));
                }
                // The kernel lets a thread change its mount namespace only if it shares its root with no other.
                unshare(libc::CLONE_FS as u64)
                    .map_err(|errno| Error::io("give a thread a root of its own", errno))?;
                for (fd, kind) in &early.namespaces {
                    setns(Fd::of(fd), *kind).map_err(|errno| {
                        Error::io(format!("join a {} namespace", namespace_name(*kind)), errno)
                    })?;
                }
                make()
            });
        match joined.map_err(|error| Error::io("start a thread", error))?.join() {
            Ok(child) => child,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Types of namespaces, for people.
struct Names(u64);

impl fmt::Display for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = (0..64).map(|bit| self.0 & 1 << bit).filter(|kind| *kind != 0);
        let names: Vec<&str> = kinds.map(namespace_name).collect();
        match names.as_slice() {
            [] => formatter.write_str("none"),
            names => formatter.write_str(&names.join(" ")),
        }
    }
}

/// A mask as one hexadecimal number.
struct Cpus<'a>(&'a [u64]);

impl fmt::LowerHex for Cpus<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.0.iter().rev().skip_while(|word| **word == 0);
        write!(formatter, "0x{:x}", words.next().unwrap_or(&0))?;
        words.try_for_each(|word| write!(formatter, "{word:016x}"))
    }
}

/// The ranges between the numbers to keep, from `first` on.
fn gaps(first: u32, keep: &[u32]) -> Vec<(u32, u32)> {
    let mut gaps = Vec::with_capacity(keep.len() + 1);
    let mut next = first;
    for fd in keep.iter().copied().filter(|fd| *fd >= first) {
        if fd > next {
            gaps.push((next, fd - 1));
        }
        next = fd + 1;
    }
    gaps.push((next, u32::MAX));
    gaps
}

/// What is joined to be in those namespaces of a process that `kinds` names: the process, all at once, or where the kernel
/// knows no such thing (before 5.8) one namespace after the other, the user namespace first and the mount namespace last.
pub(crate) fn join_list(pidfd: BorrowedFd<'_>, kinds: u64) -> Result<Vec<(OwnedFd, u64)>, Error> {
    const ORDER: [libc::c_int; 8] = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWTIME,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNS,
    ];
    if !kernel::is_old() {
        let pidfd = pidfd.try_clone_to_owned();
        return Ok(vec![(
            pidfd.map_err(|error| Error::io("duplicate a pidfd", error))?,
            kinds,
        )]);
    }
    let pid = pid_of(pidfd)?;
    let kinds = ORDER
        .into_iter()
        .map(|kind| kind as u64)
        .filter(|kind| kinds & kind != 0);
    let joins: Vec<Join> = kinds
        .map(|kind| Join {
            kind,
            path: format!("/proc/{pid}/ns/{}", namespace_name(kind)).into(),
        })
        .collect();
    let opened = open_joins(&joins)?;
    // Now it is known whose they are: the pid was not free in between.
    match is_alive(pidfd) {
        true => Ok(opened
            .into_iter()
            .map(|namespace| (namespace.fd, namespace.kind))
            .collect()),
        false => Err(Error::Ended("being joined")),
    }
}

/// The pid of a pidfd's process, as the kernel tells it about the descriptor.
fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32, Error> {
    let path = format!("/proc/self/fdinfo/{}", Fd::of(&pidfd).number());
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io(format!("read {path}"), error))?;
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or(Error::Ended("being joined"))
}

/// Opens the namespaces that are joined by path, and checks that they are what the configuration says.
pub(crate) fn open_joins(joins: &[Join]) -> Result<Vec<Opened>, Error> {
    joins
        .iter()
        .map(|join| {
            let what = || {
                format!(
                    "open the {} namespace {}",
                    namespace_name(join.kind),
                    join.path.display()
                )
            };
            let fd = rustix::fs::open(
                &join.path,
                OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY,
                Mode::empty(),
            )
            .map_err(|errno| Error::io(what(), errno))?;
            let kind = crate::sys::process::namespace_type(Fd::of(&fd.as_fd()))
                .map_err(|errno| Error::io(what(), errno))?;
            if kind != join.kind {
                return Err(Error::io(what(), Errno::new(libc::EINVAL)));
            }
            Ok(Opened { kind, fd: above(fd)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_kept_descriptors_is_closed() {
        assert_eq!(gaps(3, &[]), [(3, u32::MAX)]);
        assert_eq!(gaps(3, &[3, 4]), [(5, u32::MAX)]);
        assert_eq!(gaps(3, &[5, 9]), [(3, 4), (6, 8), (10, u32::MAX)]);
        assert_eq!(gaps(6, &[4, 7]), [(6, 6), (8, u32::MAX)]);
    }

    #[test]
    fn masks_and_namespaces_are_told() {
        assert_eq!(format!("{:x}", Cpus(&[3, 0])), "0x3");
        assert_eq!(format!("{:x}", Cpus(&[1, 2])), "0x20000000000000001");
        assert_eq!(format!("{:x}", Cpus(&[])), "0x0");
        assert_eq!(Names(0).to_string(), "none");
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        assert_eq!(Names(kinds as u64).to_string(), "mnt pid");
    }
}
