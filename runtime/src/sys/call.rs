//! The one gate to the kernel.

use super::Errno;

/// What a kernel has not that is as old as the oldest one supported, and what some sandboxes do not let through.
#[cfg(feature = "old-kernel")]
const OLD_KERNEL_LACKS: [libc::c_long; 11] = [
    libc::SYS_clone3,
    libc::SYS_close_range,
    libc::SYS_faccessat2,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_openat2,
];

/// Performs system call `number`.
///
/// # Safety
///
/// The arguments must be what the kernel expects for that call: pointers live and of the right size for its
/// duration, descriptors this code may use. The call must not return twice in one address space.
pub(crate) unsafe fn raw<const N: usize>(
    number: libc::c_long,
    arguments: [usize; N],
) -> Result<usize, Errno> {
    #[cfg(feature = "old-kernel")]
    if OLD_KERNEL_LACKS.contains(&number) {
        return Err(Errno::new(libc::ENOSYS));
    }
    let mut six = [0; 6];
    six[..N].copy_from_slice(&arguments);
    // SAFETY: the caller vouches for number and arguments; `syscall` ignores the ones past the call's own. It
    // keeps no state but the thread's errno, so it is sound in a child of a program with threads.
    let answer = unsafe { libc::syscall(number, six[0], six[1], six[2], six[3], six[4], six[5]) };
    if answer == -1 {
        // SAFETY: the location is this thread's own and always valid.
        return Err(Errno::new(unsafe { *libc::__errno_location() }));
    }
    Ok(answer as usize)
}
