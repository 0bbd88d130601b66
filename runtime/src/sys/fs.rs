//! Files, directories and paths.

use std::ffi::CStr;
use std::mem::{self, MaybeUninit};

use super::{Errno, Fd, raw};

/// How [`openat2`] walks a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Resolve {
    /// As any path: used for host paths from the configuration.
    Host,
    /// The descriptor is the root: `..`, absolute paths and symlinks stay beneath it. No magic links.
    InRoot,
    /// As `InRoot`, and no symlink in any component.
    InRootNoSymlinks,
    /// Strictly beneath, no symlink, no mount crossed.
    Beneath,
}

impl Resolve {
    fn bits(self) -> u64 {
        const NO_XDEV: u64 = 0x01;
        const NO_MAGICLINKS: u64 = 0x02;
        const NO_SYMLINKS: u64 = 0x04;
        const BENEATH: u64 = 0x08;
        const IN_ROOT: u64 = 0x10;
        match self {
            Self::Host => 0,
            Self::InRoot => IN_ROOT | NO_MAGICLINKS,
            Self::InRootNoSymlinks => IN_ROOT | NO_MAGICLINKS | NO_SYMLINKS,
            Self::Beneath => BENEATH | NO_XDEV | NO_MAGICLINKS | NO_SYMLINKS,
        }
    }
}

/// The kernel's `struct open_how`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// How often a lookup that raced with a rename is tried again; more means that somebody races on purpose.
const RACE_RETRIES: usize = 128;

/// Opens `path` below `directory`, close-on-exec.
pub(crate) fn openat2(
    directory: Fd,
    path: &CStr,
    flags: libc::c_int,
    mode: u32,
    resolve: Resolve,
) -> Result<Fd, Errno> {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u32 as u64,
        mode: u64::from(mode),
        resolve: resolve.bits(),
    };
    let mut tries = 0;
    loop {
        // SAFETY: `path` and `how` outlive the call; the size is that of `how`.
        let answer = unsafe {
            raw(
                libc::SYS_openat2,
                [
                    directory.arg(),
                    path.as_ptr() as usize,
                    &raw const how as usize,
                    mem::size_of::<OpenHow>(),
                ],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EAGAIN && tries < RACE_RETRIES => tries += 1,
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer.map(|number| Fd::at(number as i32)),
        }
    }
}

/// Makes a directory.
pub(crate) fn mkdirat(directory: Fd, name: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: `name` outlives the call.
    unsafe {
        raw(
            libc::SYS_mkdirat,
            [directory.arg(), name.as_ptr() as usize, mode as usize],
        )
    }
    .map(drop)
}

/// Makes a device node, FIFO or file.
pub(crate) fn mknodat(directory: Fd, name: &CStr, mode: u32, device: u64) -> Result<(), Errno> {
    // SAFETY: `name` outlives the call.
    unsafe {
        raw(
            libc::SYS_mknodat,
            [
                directory.arg(),
                name.as_ptr() as usize,
                mode as usize,
                device as usize,
            ],
        )
    }
    .map(drop)
}

/// Makes a symbolic link.
pub(crate) fn symlinkat(target: &CStr, directory: Fd, name: &CStr) -> Result<(), Errno> {
    // SAFETY: both strings outlive the call.
    unsafe {
        raw(
            libc::SYS_symlinkat,
            [target.as_ptr() as usize, directory.arg(), name.as_ptr() as usize],
        )
    }
    .map(drop)
}

/// Removes a name that is no directory.
pub(crate) fn unlinkat(directory: Fd, name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` outlives the call.
    unsafe { raw(libc::SYS_unlinkat, [directory.arg(), name.as_ptr() as usize, 0]) }.map(drop)
}

/// Gives a name in a directory to an owner, without following a link.
pub(crate) fn chown(directory: Fd, name: &CStr, uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: `name` outlives the call.
    unsafe {
        raw(
            libc::SYS_fchownat,
            [
                directory.arg(),
                name.as_ptr() as usize,
                uid as usize,
                gid as usize,
                libc::AT_SYMLINK_NOFOLLOW as usize,
            ],
        )
    }
    .map(drop)
}

/// Gives an open file to an owner; the group stays.
pub(crate) fn fchown_user(fd: Fd, uid: u32) -> Result<(), Errno> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_fchown, [fd.arg(), uid as usize, u32::MAX as usize]) }.map(drop)
}

/// What a file is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// The device it is, when it is one.
    pub(crate) rdev: u64,
}

impl Stat {
    /// Whether the type bits are `S_IFDIR`.
    pub(crate) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is the character device `major`:`minor`.
    pub(crate) fn is_character(&self, major: u32, minor: u32) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.rdev == libc::makedev(major, minor)
    }
}

/// What `name` in `directory` is, or `directory` itself for an empty name. Follows no link.
pub(crate) fn stat(directory: Fd, name: &CStr) -> Result<Stat, Errno> {
    let mut buffer = MaybeUninit::<libc::stat>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `name` and `buffer` outlive the call; the buffer has the layout of the kernel's `struct stat`, which
    // on 64-bit systems is the C library's.
    unsafe {
        raw(
            libc::SYS_newfstatat,
            [
                directory.arg(),
                name.as_ptr() as usize,
                buffer.as_mut_ptr() as usize,
                flags as usize,
            ],
        )?;
    }
    // SAFETY: the call succeeded and filled the buffer.
    let stat = unsafe { buffer.assume_init() };
    Ok(Stat {
        mode: stat.st_mode,
        uid: stat.st_uid,
        rdev: stat.st_rdev,
    })
}

/// The magic number of the file system an open file is on.
pub(crate) fn filesystem(fd: Fd) -> Result<i64, Errno> {
    let mut buffer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `buffer` outlives the call and has the layout of the kernel's `struct statfs`.
    unsafe { raw(libc::SYS_fstatfs, [fd.arg(), buffer.as_mut_ptr() as usize])? };
    // SAFETY: the call succeeded and filled the buffer.
    Ok(unsafe { buffer.assume_init() }.f_type)
}

/// Reads once.
pub(crate) fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer outlives the call; the length is its own.
    unsafe {
        raw(
            libc::SYS_read,
            [fd.arg(), buffer.as_mut_ptr() as usize, buffer.len()],
        )
    }
}

/// Writes once.
pub(crate) fn write(fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the bytes outlive the call; the length is theirs.
    unsafe { raw(libc::SYS_write, [fd.arg(), bytes.as_ptr() as usize, bytes.len()]) }
}

/// Whether this process, with its real ids, may execute `path`.
pub(crate) fn may_execute(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` outlives the call.
    unsafe {
        raw(
            libc::SYS_faccessat,
            [Fd::CWD.arg(), path.as_ptr() as usize, libc::X_OK as usize],
        )
    }
    .map(drop)
}

/// Changes the working directory.
pub(crate) fn chdir(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` outlives the call.
    unsafe { raw(libc::SYS_chdir, [path.as_ptr() as usize]) }.map(drop)
}

/// Changes the working directory to an open one.
pub(crate) fn fchdir(fd: Fd) -> Result<(), Errno> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_fchdir, [fd.arg()]) }.map(drop)
}

/// Changes the root directory.
pub(crate) fn chroot(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` outlives the call.
    unsafe { raw(libc::SYS_chroot, [path.as_ptr() as usize]) }.map(drop)
}

/// Whether the working directory can be reached from the root directory.
///
/// The kernel's answer starts with `/` exactly then; for a directory outside it is `(unreachable)…`.
pub(crate) fn cwd_is_inside() -> Result<bool, Errno> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer outlives the call; the length is its own.
    unsafe { raw(libc::SYS_getcwd, [buffer.as_mut_ptr() as usize, buffer.len()])? };
    Ok(buffer[0] == b'/')
}

/// Sets the mode bits that new files lack.
pub(crate) fn umask(mask: u32) {
    // SAFETY: no pointer; the call cannot fail.
    let result = unsafe { raw(libc::SYS_umask, [mask as usize]) };
    debug_assert!(result.is_ok());
}

/// Makes a file in memory, close-on-exec.
pub(crate) fn memory_file(name: &CStr) -> Result<Fd, Errno> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` outlives the call.
    unsafe { raw(libc::SYS_memfd_create, [name.as_ptr() as usize, flags as usize]) }
        .map(|number| Fd::at(number as i32))
}

/// Makes a file in memory `size` bytes long, all zero, and keeps it so.
pub(crate) fn fix_size(file: Fd, size: usize) -> Result<(), Errno> {
    let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_ftruncate, [file.arg(), size]) }?;
    // SAFETY: no pointer.
    unsafe {
        raw(
            libc::SYS_fcntl,
            [file.arg(), libc::F_ADD_SEALS as usize, seals as usize],
        )
    }
    .map(drop)
}

/// The next read begins at the first byte.
pub(crate) fn rewind(file: Fd) -> Result<(), Errno> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_lseek, [file.arg(), 0, libc::SEEK_SET as usize]) }.map(drop)
}
