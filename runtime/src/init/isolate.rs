//! The first steps of the child half: away from the caller, into the namespaces.

use std::ffi::CStr;

use super::Wires;
use super::step::{At, Failure, Step};
use crate::cgroup::Entrance;
use crate::plan::{Cpus, ProcessPlan};
use crate::sys::fd::{self, Closing};
use crate::sys::fs::{self, Resolve};
use crate::sys::{Errno, Fd, credentials, mount, process, socket};

/// Moves this process into its v1 control groups (it was born in the v2 one).
pub(super) fn enter_cgroups(wires: &Wires) -> Result<(), Failure> {
    for (index, entrance) in wires.entrances.iter().enumerate() {
        fs::write(*entrance, Entrance::MYSELF).at_nth(Step::Cgroup, index)?;
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
        fd::close_range(*first, *last, Closing::Now).at(Step::CloseDescriptors)?;
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
    for (index, namespace) in wires.join.iter().enumerate() {
        process::setns(Fd::of(&namespace.fd), namespace.kind).at_nth(Step::Join, index)?;
    }
    if let Some((pidfd, kinds)) = wires.join_process {
        if kinds != 0 {
            process::setns(pidfd, kinds).at(Step::Join)?;
        }
        if kinds & libc::CLONE_NEWUSER as u64 != 0 {
            become_root()?;
        }
        pidfd.close();
    }
    Ok(())
}

/// Root of the user namespace, with no groups of the caller's: what is made from here on belongs to it.
pub(super) fn become_root() -> Result<(), Failure> {
    credentials::set_groups(&[]).at(Step::BecomeRoot)?;
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
    let file = fs::openat2(
        Fd::CWD,
        c"/proc/self/timens_offsets",
        libc::O_WRONLY,
        0,
        Resolve::Host,
    )?;
    let result = write_to_proc(file, offsets);
    file.close();
    result
}

/// Writes to a file of a procfs that was made for this write: nobody can have mounted anything over it.
pub(super) fn write_private_proc(path: &CStr, value: &CStr, resolve: Resolve) -> Result<(), Errno> {
    let context = mount::fsopen(c"proc")?;
    mount::fsconfig_create(context)?;
    let proc = mount::fsmount(context, 0)?;
    context.close();
    let file = fs::openat2(proc, path, libc::O_WRONLY, 0, resolve)?;
    proc.close();
    let result = write_to_proc(file, value);
    file.close();
    result
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
