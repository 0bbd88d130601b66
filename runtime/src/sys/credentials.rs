//! Who a process is and what it may do.

use super::{Errno, raw};
use crate::seccomp;

/// The highest capability number a 64-bit set has room for.
const CAPABILITIES: u32 = 64;

/// The five sets, bit n for capability n.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CapabilitySets {
    /// The ceiling for programs executed later.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over `execve` of a program with file capabilities.
    pub inheritable: u64,
    /// Kept over `execve` of an ordinary program.
    pub ambient: u64,
}

fn prctl(operation: libc::c_int, arguments: [usize; 4]) -> Result<usize, Errno> {
    let [a, b, c, d] = arguments;
    // SAFETY: this module passes only operations whose arguments are numbers.
    unsafe { raw(libc::SYS_prctl, [operation as usize, a, b, c, d]) }
}

/// Whether other processes may trace this one and read its `/proc` links; `execve` makes it so again.
pub(crate) fn set_dumpable(dumpable: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, [usize::from(dumpable), 0, 0, 0]).map(drop)
}

/// Sets `no_new_privs`; there is no way back.
pub(crate) fn set_no_new_privs() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]).map(drop)
}

/// Whether the permitted capabilities outlive the change to another user.
pub(crate) fn set_keep_capabilities(keep: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, [usize::from(keep), 0, 0, 0]).map(drop)
}

/// Whether this kernel has a capability of that number.
pub(crate) fn is_known_capability(number: u32) -> bool {
    prctl(libc::PR_CAPBSET_READ, [number as usize, 0, 0, 0]).is_ok()
}

/// Drops every capability that the kernel knows and `keep` lacks from the bounding set.
pub(crate) fn limit_bounding(keep: u64) -> Result<(), Errno> {
    for capability in (0..CAPABILITIES).filter(|capability| keep & (1 << capability) == 0) {
        match prctl(libc::PR_CAPBSET_DROP, [capability as usize, 0, 0, 0]) {
            Ok(_) => {}
            // The first number that this kernel does not know: there are no higher ones.
            Err(errno) if errno.number() == libc::EINVAL => break,
            // Without the privilege to drop it is enough that it is not there.
            Err(errno) => match prctl(libc::PR_CAPBSET_READ, [capability as usize, 0, 0, 0]) {
                Ok(0) => {}
                _ => return Err(errno),
            },
        }
    }
    Ok(())
}

/// Sets the three sets of `capset(2)`.
pub(crate) fn set_capabilities(sets: &CapabilitySets) -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut data = [0u32; 6];
    for half in 0..2 {
        let word = |set: u64| (set >> (32 * half)) as u32;
        data[half * 3] = word(sets.effective);
        data[half * 3 + 1] = word(sets.permitted);
        data[half * 3 + 2] = word(sets.inheritable);
    }
    // SAFETY: header (version, this process) and data (two times three words) outlive the call and have the layout
    // of version 3.
    unsafe {
        raw(
            libc::SYS_capset,
            [&raw const header as usize, &raw const data as usize],
        )
    }
    .map(drop)
}

/// Makes the ambient set `ambient`.
pub(crate) fn set_ambient(ambient: u64) -> Result<(), Errno> {
    const CLEAR_ALL: usize = libc::PR_CAP_AMBIENT_CLEAR_ALL as usize;
    const RAISE: usize = libc::PR_CAP_AMBIENT_RAISE as usize;
    prctl(libc::PR_CAP_AMBIENT, [CLEAR_ALL, 0, 0, 0])?;
    for capability in (0..CAPABILITIES).filter(|capability| ambient & (1 << capability) != 0) {
        prctl(libc::PR_CAP_AMBIENT, [RAISE, capability as usize, 0, 0])?;
    }
    Ok(())
}

/// Makes `groups` the supplementary groups. The raw call changes this thread only, which in the child half is all.
pub(crate) fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the slice outlives the call; the count is its own.
    unsafe { raw(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize]) }.map(drop)
}

/// Makes `gid` the real, effective, saved and file system group.
pub(crate) fn set_gid(gid: u32) -> Result<(), Errno> {
    let gid = gid as usize;
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_setresgid, [gid, gid, gid]) }.map(drop)
}

/// Makes `uid` the real, effective, saved and file system user.
pub(crate) fn set_uid(uid: u32) -> Result<(), Errno> {
    let uid = uid as usize;
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_setresuid, [uid, uid, uid]) }.map(drop)
}

/// Puts the filter in force; there is no way back. Answers the number of the listener's descriptor (close-on-exec) when the filter's
/// flags ask for one, else 0.
pub(crate) fn set_seccomp(program: &seccomp::Program) -> Result<i32, Errno> {
    const SET_MODE_FILTER: usize = 1;
    /// The kernel's `struct sock_fprog`.
    #[repr(C)]
    struct Filter {
        len: u16,
        instructions: *const seccomp::Instruction,
    }
    let instructions = program.instructions();
    let filter = Filter {
        len: instructions.len() as u16,
        instructions: instructions.as_ptr(),
    };
    // SAFETY: `filter` and the instructions outlive the call; `Instruction` is `repr(C)` as `struct sock_filter`; a
    // program has at most 4096 instructions, so the length fits.
    unsafe {
        raw(
            libc::SYS_seccomp,
            [
                SET_MODE_FILTER,
                program.flags() as usize,
                &raw const filter as usize,
            ],
        )
    }
    .map(|answer| answer as i32)
}
