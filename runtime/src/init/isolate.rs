//! The first steps of the child half: away from the caller, into the namespaces.

use std::ffi::CStr;
use std::ops::RangeInclusive;

use super::Wires;
use super::step::{At, Failure, Step};
use crate::cgroup::Entrance;
use crate::lookup;
use crate::plan::{Cpus, ProcessPlan};
use crate::sys::fd::{self, Closing};
use crate::sys::fs::{self, Resolve};
use crate::sys::socket::MAX_PASSED;
use crate::sys::{Errno, Fd, credentials, mount, process, socket};

/// Moves this process into its v1 control groups (it was born in the v2 one).
pub(super) fn enter_cgroups(wires: &Wires) -> Result<(), Failure> {
    for (index, entrance) in wires.entrances.iter().enumerate() {
        fs::write(*entrance, Entrance::MYSELF).at_nth(Step::Cgroup, index)?;
    }
    Ok(())
}

/// Waits for the v1 control groups that the parent makes meanwhile, and moves this process into them.
pub(super) fn await_cgroups(parent: Fd) -> Result<(), Failure> {
    let mut given = [Fd::CWD; MAX_PASSED];
    let count = socket::receive_fds(parent, &mut given).at(Step::Parent)?;
    for (index, entrance) in given.iter().take(count).enumerate() {
        fs::write(*entrance, Entrance::MYSELF).at_nth(Step::Cgroup, index)?;
        entrance.close();
    }
    Ok(())
}

/// The CPUs are those of the control group from here on, or those that were asked for; not the caller's.
pub(super) fn set_affinity(plan: &ProcessPlan) -> Result<(), Failure> {
    /// More bits than the kernel knows: it takes those it does.
    static ALL: [u64; 1024] = [u64::MAX; 1024];
    match &plan.affinity.last {
        Cpus::All => {
            // Nobody asked for it: where it is not allowed the caller's are inherited.
            let _inherited = process::set_affinity(&ALL);
            Ok(())
        }
        Cpus::Kept => Ok(()),
        Cpus::These(mask) => process::set_affinity(mask).at(Step::Affinity),
    }
}

/// Uses the privileges that are lost in a user namespace, and what a process can do only before it hides. An usher has
/// done it for the process that it makes.
pub(super) fn keep_privileges(wires: &Wires) -> Result<(), Failure> {
    if let Some(score) = &wires.oom_score {
        write_own_proc(c"/proc/self/oom_score_adj", score).at(Step::OomScore)?;
    }
    for (resource, hard) in &wires.raise {
        process::raise_hard_limit(0, *resource, *hard).at(Step::RaiseLimit)?;
    }
    Ok(())
}

/// Signals, streams and descriptors as the new process is to have them.
pub(super) fn leave_caller(wires: &Wires) -> Result<(), Failure> {
    process::reset_signals().at(Step::Signals)?;
    if let Some(streams) = wires.streams {
        for (number, stream) in streams.into_iter().enumerate() {
            fd::duplicate_to(stream, Fd::at(number as i32)).at(Step::Streams)?;
        }
    }
    // Now, not at execve: a created container may wait for long, and must not hold the caller's sockets and
    // pipes open meanwhile.
    for (first, last) in &wires.close {
        close_range(wires.proc, *first, *last, Closing::Now).at(Step::CloseDescriptors)?;
    }
    Ok(())
}

/// Nobody in the container may trace this process or follow its `/proc` links.
pub(super) fn hide() -> Result<(), Failure> {
    credentials::set_dumpable(false).at(Step::Hide)
}

/// The parent writes id maps, or a score that takes its privileges, before this process goes on.
pub(super) fn wait_for_parent(wires: &Wires) -> Result<(), Failure> {
    if wires.wait_for_parent {
        await_parent(wires.parent)?;
    }
    Ok(())
}

/// Waits for a packet. Without a parent there is no container.
pub(super) fn await_parent(parent: Fd) -> Result<(), Failure> {
    let mut packet = [0];
    match socket::receive(parent, &mut packet) {
        Ok(0) => Err(Errno::new(libc::EPIPE)),
        Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
    .at(Step::Parent)
}

/// Joins what is joined by path or from another process.
pub(super) fn join(wires: &Wires) -> Result<(), Failure> {
    if wires.usher.is_some() {
        return Ok(());
    }
    for (index, namespace) in wires.join.iter().enumerate() {
        process::setns(Fd::of(&namespace.fd), namespace.kind).at_nth(Step::Join, index)?;
    }
    if let Some((pidfd, kinds)) = wires.join_process {
        if kinds != 0 {
            process::setns(pidfd, kinds).at(Step::Join)?;
        }
        if kinds & libc::CLONE_NEWUSER as u64 != 0 {
            become_root(wires.drop_groups)?;
        }
        pidfd.close();
    }
    Ok(())
}

/// Root of the user namespace, with no groups of the caller's where they may be left: what is made from here on belongs
/// to it.
pub(super) fn become_root(drop_groups: bool) -> Result<(), Failure> {
    if drop_groups {
        credentials::set_groups(&[]).at(Step::BecomeRoot)?;
    }
    credentials::set_gid(0).at(Step::BecomeRoot)?;
    credentials::set_uid(0).at(Step::BecomeRoot)
}

/// A session, and a session keyring, of its own.
pub(super) fn new_session(process: &ProcessPlan) -> Result<(), Failure> {
    process::setsid().at(Step::Session)?;
    if let Some(name) = &process.keyring {
        match process::join_keyring(name) {
            // A kernel without keyrings has none that could leak.
            Err(errno) if errno.number() == libc::ENOSYS => Ok(()),
            answer => answer,
        }
        .at(Step::Keyring)?;
    }
    Ok(())
}

/// The clocks of the new time namespace, which this process enters with `execve`. The root is still the host's.
pub(super) fn write_time_offsets(offsets: &CStr) -> Result<(), Errno> {
    write_own_proc(c"/proc/self/timens_offsets", offsets)
}

/// Writes to a file of the host's procfs.
fn write_own_proc(path: &CStr, value: &CStr) -> Result<(), Errno> {
    let file = lookup::open(Fd::CWD, path, libc::O_WRONLY, Resolve::Host)?;
    let result = write_to_proc(file, value);
    file.close();
    result
}

/// Writes to a file of a procfs that was made for this write: nobody can have mounted anything over it. Where the kernel
/// cannot make one, `host` is the host's, opened before the container had a hand in anything.
pub(super) fn write_private_proc(
    host: Option<Fd>,
    path: &CStr,
    value: &CStr,
    resolve: Resolve,
) -> Result<(), Errno> {
    let file = match host {
        Some(proc) => lookup::open(proc, path, libc::O_WRONLY, resolve)?,
        None => {
            let proc = private_proc()?;
            let file = lookup::open(proc, path, libc::O_WRONLY, resolve);
            proc.close();
            file?
        }
    };
    let result = write_to_proc(file, value);
    file.close();
    result
}

fn private_proc() -> Result<Fd, Errno> {
    let context = mount::fsopen(c"proc")?;
    let proc = mount::fsconfig_create(context).and_then(|()| mount::fsmount(context, 0));
    context.close();
    proc
}

/// Closes descriptors, now or when a program is executed. Where the kernel has no call for a range (before 5.9), those that
/// are open are read from `host`, the host's procfs.
pub(super) fn close_range(host: Option<Fd>, first: u32, last: u32, closing: Closing) -> Result<(), Errno> {
    match (fd::close_range(first, last, closing), host) {
        (Err(errno), Some(proc)) if errno.number() == libc::ENOSYS => {
            let listed = fs::openat(proc, c"self/fd", libc::O_RDONLY | libc::O_DIRECTORY)?;
            let result = close_listed(listed, first..=last, closing);
            listed.close();
            result
        }
        (answer, _) => answer,
    }
}

fn close_listed(listed: Fd, range: RangeInclusive<u32>, closing: Closing) -> Result<(), Errno> {
    let mut buffer = [0; 4096];
    loop {
        let filled = fs::read_directory(listed, &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        for name in fs::entries(buffer.get(..filled).unwrap_or_default()) {
            let Some(number) = decimal(name.to_bytes()) else {
                continue;
            };
            let file = Fd::at(number.cast_signed());
            if !range.contains(&number) || file == listed {
                continue;
            }
            match closing {
                Closing::Now => file.close(),
                Closing::OnExec => fd::close_on_exec(file)?,
            }
        }
    }
}

fn decimal(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0u32, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

fn write_to_proc(file: Fd, value: &CStr) -> Result<(), Errno> {
    if fs::filesystem(file)? != libc::PROC_SUPER_MAGIC {
        return Err(Errno::new(libc::EXDEV));
    }
    let bytes = value.to_bytes();
    match fs::write(file, bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(Errno::new(libc::EIO)),
    }
}
