//! The one gate to the kernel.

use super::Errno;

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
