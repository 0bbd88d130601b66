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

/// Opens `path` below `directory` as any path, close-on-exec.
pub(crate) fn openat(directory: Fd, path: &CStr, flags: libc::c_int) -> Result<Fd, Errno> {
    loop {
        // SAFETY: `path` outlives the call; no flag here makes a file, so there is no mode.
        let answer = unsafe {
            raw(
                libc::SYS_openat,
                [
                    directory.arg(),
                    path.as_ptr() as usize,
                    (flags | libc::O_CLOEXEC) as usize,
                    0,
                ],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer.map(|number| Fd::at(number as i32)),
        }
    }
}

/// The text of an open symbolic link (`O_PATH | O_NOFOLLOW`); its length.
pub(crate) fn read_link(link: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the empty path is static; the buffer outlives the call and the length is its own.
    unsafe {
        raw(
            libc::SYS_readlinkat,
            [
                link.arg(),
                c"".as_ptr() as usize,
                buffer.as_mut_ptr() as usize,
                buffer.len(),
            ],
        )
    }
}

/// Reads directory entries (`struct linux_dirent64`); how many bytes, 0 at the end.
pub(crate) fn read_directory(directory: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer outlives the call; the length is its own.
    unsafe {
        raw(
            libc::SYS_getdents64,
            [directory.arg(), buffer.as_mut_ptr() as usize, buffer.len()],
        )
    }
}

/// The names in what [`read_directory`] filled, `.` and `..` left out.
pub(crate) fn entries(filled: &[u8]) -> impl Iterator<Item = &CStr> {
    /// Offsets in the structure.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut rest = filled;
    std::iter::from_fn(move || {
        let length = rest.get(LENGTH..LENGTH + 2)?;
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let (entry, next) = rest.split_at_checked(length)?;
        rest = next;
        CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()
    })
    .filter(|name| *name != c"." && *name != c"..")
}

/// Copies up to `count` bytes from one open file to another, at their positions; how many, 0 at the end.
pub(crate) fn send_file(from: Fd, to: Fd, count: usize) -> Result<usize, Errno> {
    // SAFETY: no pointer: a null offset stands for the file's own position.
    unsafe { raw(libc::SYS_sendfile, [to.arg(), from.arg(), 0, count]) }
}

/// Makes a new file below `directory`, open for writing; there must be nothing of that name.
pub(crate) fn create(directory: Fd, name: &CStr, mode: u32) -> Result<Fd, Errno> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `name` outlives the call.
    unsafe {
        raw(
            libc::SYS_openat,
            [
                directory.arg(),
                name.as_ptr() as usize,
                flags as usize,
                mode as usize,
            ],
        )
    }
    .map(|number| Fd::at(number as i32))
}

/// Sets the permission bits of a name that is no link.
pub(crate) fn chmod(directory: Fd, name: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: `name` outlives the call.
    unsafe {
        raw(
            libc::SYS_fchmodat,
            [directory.arg(), name.as_ptr() as usize, mode as usize],
        )
    }
    .map(drop)
}

/// Sets an extended attribute; the value is a string with its final zero.
pub(crate) fn set_attribute(path: &CStr, name: &CStr, value: &CStr) -> Result<(), Errno> {
    // SAFETY: the three strings outlive the call; the size is that of the value with its zero.
    unsafe {
        raw(
            libc::SYS_setxattr,
            [
                path.as_ptr() as usize,
                name.as_ptr() as usize,
                value.as_ptr() as usize,
                value.count_bytes() + 1,
                0,
            ],
        )
    }
    .map(drop)
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
    /// Group.
    pub(crate) gid: u32,
    /// The file system's number and the file's in it.
    pub(crate) identity: (u64, u64),
    /// The device it is, when it is one.
    pub(crate) rdev: u64,
}

impl Stat {
    /// Whether the type bits are `S_IFDIR`.
    pub(crate) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether the type bits are `S_IFLNK`.
    pub(crate) fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }

    /// Whether it is the character device `major`:`minor`.
    pub(crate) fn is_character(&self, major: u32, minor: u32) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.rdev == libc::makedev(major, minor)
    }
}

/// What `name` in `directory` is, or `directory` itself for an empty name. Follows no link.
pub(crate) fn stat(directory: Fd, name: &CStr) -> Result<Stat, Errno> {
    let mut buffer = MaybeUninit::<libc::stat>::uninit();
    let to = buffer.as_mut_ptr() as usize;
    // SAFETY: `name` and `buffer` outlive the calls; the buffer has the layout of the kernel's `struct stat`, which
    // on 64-bit systems is the C library's.
    unsafe {
        match name.is_empty() {
            // An empty path is read and resolved like any other: most of what the call would take.
            true => raw(libc::SYS_fstat, [directory.arg(), to])?,
            false => raw(
                libc::SYS_newfstatat,
                [
                    directory.arg(),
                    name.as_ptr() as usize,
                    to,
                    libc::AT_SYMLINK_NOFOLLOW as usize,
                ],
            )?,
        };
    }
    // SAFETY: the call succeeded and filled the buffer.
    let stat = unsafe { buffer.assume_init() };
    Ok(Stat {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        identity: (stat.st_dev, stat.st_ino),
        rdev: stat.st_rdev,
    })
}

/// The number of the mount an open file was reached through; 0 where the kernel does not tell (before 5.8).
pub(crate) fn mount_id(fd: Fd) -> Result<u64, Errno> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the empty path is static; the buffer outlives the call and has the kernel's layout.
    unsafe {
        raw(
            libc::SYS_statx,
            [
                fd.arg(),
                c"".as_ptr() as usize,
                libc::AT_EMPTY_PATH as usize,
                libc::STATX_MNT_ID as usize,
                buffer.as_mut_ptr() as usize,
            ],
        )?;
    }
    // SAFETY: all-zero bytes are a valid value, and the call filled in what it knows.
    Ok(unsafe { buffer.assume_init() }.stx_mnt_id)
}

/// The kernel's `struct statfs` on 64-bit systems.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct StatFs {
    kind: i64,
    block_size: i64,
    counts: [u64; 5],
    id: [i32; 2],
    name_length: i64,
    fragment_size: i64,
    flags: i64,
    spare: [i64; 4],
}

fn statfs(fd: Fd) -> Result<StatFs, Errno> {
    let mut buffer = StatFs::default();
    // SAFETY: `buffer` outlives the call and has the layout of the kernel's structure.
    unsafe { raw(libc::SYS_fstatfs, [fd.arg(), &raw mut buffer as usize])? };
    Ok(buffer)
}

/// The magic number of the file system an open file is on.
pub(crate) fn filesystem(fd: Fd) -> Result<i64, Errno> {
    statfs(fd).map(|statfs| statfs.kind)
}

/// The flags (`ST_*`) of the mount an open file was reached through.
pub(crate) fn mount_flags(fd: Fd) -> Result<u64, Errno> {
    statfs(fd).map(|statfs| statfs.flags.cast_unsigned())
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

/// Whether this process, with its effective ids and its capabilities, may execute `path`.
pub(crate) fn may_execute(path: &CStr) -> Result<(), Errno> {
    let arguments = [Fd::CWD.arg(), path.as_ptr() as usize, libc::X_OK as usize];
    let [directory, name, mode] = arguments;
    // SAFETY: `path` outlives the calls.
    let answer = unsafe {
        raw(
            libc::SYS_faccessat2,
            [directory, name, mode, libc::AT_EACCESS as usize],
        )
    };
    match answer {
        // Before Linux 5.8: without what capabilities would allow.
        Err(errno) if errno.number() == libc::ENOSYS => {
            // SAFETY: as above.
            unsafe { raw(libc::SYS_faccessat, arguments) }.map(drop)
        }
        answer => answer.map(drop),
    }
}

/// Whether `path` leads to a directory; one call where it does not.
pub(crate) fn is_directory(path: &CStr) -> bool {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: `path` outlives the call.
    let opened = unsafe {
        raw(
            libc::SYS_openat,
            [Fd::CWD.arg(), path.as_ptr() as usize, flags as usize],
        )
    };
    let Ok(number) = opened else { return false };
    Fd::at(number as i32).close();
    true
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
