//! Reading and writing the small files of a group, relative to its directory.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Error;

/// `cgroup.procs` of a huge group and `memory.stat` of a huge host stay well below.
const MAX_BYTES: usize = 16 << 20;

/// The file of a directory that was written to last. Device rules all go to one.
pub(super) type Kept = Option<(String, OwnedFd)>;

/// Writes `value` in one call, as the kernel parses it; through the descriptor in `kept` if it is this file's.
pub(super) fn write(
    directory: BorrowedFd<'_>,
    path: &Path,
    name: &str,
    value: &str,
    kept: &mut Kept,
) -> Result<(), Error> {
    let failed = |errno: Errno| Error::io(format!("write {value:?} to"), path.join(name), errno);
    let fd = match kept.take().filter(|(last, _)| last == name) {
        Some((_, fd)) => fd,
        None => open(directory, name, OFlags::WRONLY).map_err(failed)?,
    };
    let (_, fd) = kept.insert((name.to_owned(), fd));
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&*fd, value.as_bytes())).map_err(failed)?;
    if written == value.len() {
        Ok(())
    } else {
        Err(failed(Errno::IO))
    }
}

/// Reads a whole file.
pub(super) fn read(directory: BorrowedFd<'_>, path: &Path, name: &str) -> Result<String, Error> {
    let failed = |error: io::Error| Error::io("read", path.join(name), error);
    let fd = open(directory, name, OFlags::RDONLY).map_err(|errno| failed(errno.into()))?;
    let mut text = Vec::with_capacity(512);
    loop {
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut text)) {
            Ok(0) => break,
            Ok(_) if text.len() > MAX_BYTES => return Err(failed(io::ErrorKind::FileTooLarge.into())),
            Ok(_) => text.reserve(4096),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    String::from_utf8(text).map_err(|_| Error::Malformed {
        file: path.join(name),
        problem: "is not text".into(),
    })
}

/// The pids of a group, one a line. A threaded group tells only those of its threads.
pub(super) fn processes(directory: BorrowedFd<'_>, path: &Path) -> Result<String, Error> {
    match read(directory, path, "cgroup.procs") {
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            read(directory, path, "cgroup.threads")
        }
        result => result,
    }
}

/// As [`read`], but a file or group that is not there is nothing.
pub(super) fn read_if_present(
    directory: BorrowedFd<'_>,
    path: &Path,
    name: &str,
) -> Result<Option<String>, Error> {
    match read(directory, path, name) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the error says that the file, or the group it is in, is not there.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. }
        if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)))
}

pub(super) fn open(directory: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        directory,
        name,
        flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}
