//! The system calls that neither std nor rustix offers as safe functions. The only place of this crate with `unsafe`, with
//! what lies below it.

#![allow(unsafe_code)]

pub mod loop_device;

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, RawFd};

use rustix::{
    fd::OwnedFd,
    io::{Errno, Result},
    ioctl::{Setter, ioctl, opcode},
    thread::UnshareFlags,
};

/// Gives the calling thread a mount namespace and a working directory of its own. To be called by a thread that ends soon:
/// what it mounts (after making `/` private) is gone with it.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn own_mount_namespace() -> Result<()> {
    // SAFETY: file descriptors stay shared (no CLONE_FILES), which is what owned descriptors rely on. The working directory
    // and the mounts of this thread alone are concerned, and no memory.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
}

/// Has all threads share two heaps of the C library, instead of up to eight for each processor: what one of them frees another
/// uses. To be called before there are threads.
pub fn share_heaps() {
    // SAFETY: sets a number of the allocator.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Gives memory that was freed back to the kernel; takes a millisecond or so.
pub fn release_memory() {
    // SAFETY: concerns only what nobody has allocated.
    unsafe { libc::malloc_trim(0) };
}

/// Has the kernel begin to write `length` bytes from `offset` of `file` to the disk. Waits for the disk's queue at most; that the
/// bytes have arrived, or have not, is told by the next flush.
pub fn begin_write_back(file: &std::fs::File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
        return;
    };
    // SAFETY: numbers only; the descriptor is open for as long as it is borrowed. A failure costs time, and nothing else.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Watches `file` for `interest`, in the async runtime of the calling thread.
///
/// # Errors
///
/// `ENOMEM`, `ENOSPC`; `EPERM` for what cannot be watched.
pub fn watch(
    file: OwnedFd,
    interest: tokio::io::Interest,
) -> std::io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open for as long as it is owned, and its number never changes.
    Ok(unsafe { tokio::io::unix::AsyncFd::register_with_interest(file, interest) }?)
}

/// Receives what has arrived at `socket` into the rest of `buffer`, without waiting; gives the number of bytes, 0 at the end.
///
/// # Errors
///
/// `EAGAIN` when nothing has; those of `recv(2)`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut tokio::io::ReadBuf<'_>) -> Result<usize> {
    // SAFETY: the kernel writes bytes there, and nothing takes any away that was initialised.
    let rest = unsafe { buffer.unfilled_mut() };
    let ((received, _), _) = rustix::net::recv(socket, rest, rustix::net::RecvFlags::DONTWAIT)?;
    let received = received.len();
    // SAFETY: the kernel has written as many bytes.
    unsafe { buffer.assume_init(received) };
    buffer.advance(received);
    Ok(received)
}

/// Gives the process that `command` starts `file` as its descriptor 3.
///
/// # Errors
///
/// `EMFILE`.
pub fn pass_as_three(command: &mut std::process::Command, file: OwnedFd) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    // Away from 3, where duplicating it would leave it to be closed by the execution. std's own descriptors in the child are
    // above 3 as well: the lowest ones of the daemon are in use from its start.
    let file = rustix::io::fcntl_dupfd_cloexec(&file, 10)?;
    let give = move || {
        // SAFETY: both are numbers; no memory is concerned. dup2 is async-signal-safe, and the child has a table of its own.
        match unsafe { libc::dup2(file.as_raw_fd(), 3) } {
            3 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and execve it makes one async-signal-safe call, and allocates nothing.
    unsafe { command.pre_exec(give) };
    Ok(())
}

/// Takes up descriptors that this process was started with, and marks them to be closed on `execve`. To be called before
/// anything else may have taken them.
///
/// # Errors
///
/// `EBADF`: one of them is not open, is a standard stream, or is named twice.
pub fn inherited(numbers: &[RawFd]) -> Result<Vec<OwnedFd>> {
    for (place, number) in numbers.iter().enumerate() {
        if *number < 3 || numbers[..place].contains(number) {
            return Err(Errno::BADF);
        }
        // SAFETY: it is borrowed for this one call, which fails if it is not open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
    }
    // SAFETY: each is open (checked above), and owned by nobody: callers take what was left to this process by the one
    // before it, at its beginning.
    Ok(numbers
        .iter()
        .map(|number| unsafe { OwnedFd::from_raw_fd(*number) })
        .collect())
}

/// The type of btrfs's ioctls.
const BTRFS: u8 = 0x94;
/// The longest name that they take, with its NUL.
const NAME: usize = 4040;
/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1 << 1;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Volume {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct Snapshot {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME],
}

/// A name of one component, ended by a NUL.
fn component<const SIZE: usize>(name: &[u8]) -> Result<[u8; SIZE]> {
    let mut field = [0; SIZE];
    if name.is_empty() || name.len() >= SIZE || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::INVAL);
    }
    field[..name.len()].copy_from_slice(name);
    Ok(field)
}

/// Makes an empty subvolume `name` in `directory` (`BTRFS_IOC_SUBVOL_CREATE`).
///
/// # Errors
///
/// `EEXIST`, `ENOSPC`, `ENOTTY` when `directory` is not on btrfs.
pub fn btrfs_create(directory: &OwnedFd, name: &[u8]) -> Result<()> {
    let volume = Volume {
        fd: 0,
        name: component(name)?,
    };
    // SAFETY: the ioctl reads one `btrfs_ioctl_vol_args`, which `Volume` is laid out as (checked in the tests), and keeps no
    // pointer to it.
    unsafe {
        ioctl(
            directory,
            Setter::<{ opcode::write::<Volume>(BTRFS, 14) }, _>::new(volume),
        )
    }
}

/// Makes a subvolume `name` in `directory` with the contents of the subvolume `source` (`BTRFS_IOC_SNAP_CREATE_V2`).
///
/// # Errors
///
/// As [`btrfs_create`]; `EINVAL` when `source` is no subvolume.
pub fn btrfs_snapshot(directory: &OwnedFd, name: &[u8], source: &OwnedFd, read_only: bool) -> Result<()> {
    let snapshot = Snapshot {
        fd: source.as_raw_fd().into(),
        transaction: 0,
        flags: if read_only { READ_ONLY } else { 0 },
        unused: [0; 4],
        name: component(name)?,
    };
    // SAFETY: the ioctl reads one `btrfs_ioctl_vol_args_v2`, which `Snapshot` is laid out as (checked in the tests), and keeps
    // no pointer to it; `source` is open during the call.
    unsafe {
        ioctl(
            directory,
            Setter::<{ opcode::write::<Snapshot>(BTRFS, 23) }, _>::new(snapshot),
        )
    }
}

/// Removes the subvolume `name` in `directory` with all files in it (`BTRFS_IOC_SNAP_DESTROY`).
///
/// # Errors
///
/// `ENOENT`; `ENOTEMPTY` when other subvolumes lie in it; `EINVAL` when it is none.
pub fn btrfs_destroy(directory: &OwnedFd, name: &[u8]) -> Result<()> {
    let volume = Volume {
        fd: 0,
        name: component(name)?,
    };
    // SAFETY: as in `btrfs_create`.
    unsafe {
        ioctl(
            directory,
            Setter::<{ opcode::write::<Volume>(BTRFS, 15) }, _>::new(volume),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_descriptors_are_inherited() {
        use std::os::fd::IntoRawFd as _;
        let number = tempfile::tempfile().unwrap().into_raw_fd();
        for bad in [vec![0], vec![1 << 20], vec![number, number], vec![-1]] {
            assert_eq!(inherited(&bad).unwrap_err(), Errno::BADF, "{bad:?}");
        }
        assert_eq!(inherited(&[number]).unwrap().len(), 1);
    }

    #[test]
    fn the_arguments_are_laid_out_as_the_kernel_reads_them() {
        assert_eq!(size_of::<Volume>(), 4096);
        assert_eq!(size_of::<Snapshot>(), 4096);
        assert_eq!(std::mem::offset_of!(Snapshot, name), 56);
        assert!(component::<8>(b"12345678").is_err());
        assert!(component::<8>(b"a/b").is_err());
    }
}
