//! Protection of this program's own file (CVE-2019-5736).
//!
//! What a container executes runs for a moment as this program: a script whose interpreter is `/proc/self/exe` makes the
//! kernel load this program's file inside, where `/proc/PID/exe` then leads to the file on the host, for whoever is
//! root there to write once it no longer runs. Hiding the child half does not help against that: the script is
//! executed after it.
//!
//! So the program must run from a file that cannot be written through that link: on a mount that is read-only, or from
//! sealed memory. [`protect`] makes it so: it looks at the mount, and where that is writable executes the program once more
//! from a detached read-only clone of it. That is not part of making a container: a long-lived program does it once when
//! it starts, and an installation on a read-only mount costs nothing.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::Error;
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::process::execve_file;
use crate::sys::strings::Strings;
use crate::sys::{Errno, Fd, fd};
use crate::trace::{is_heard, trace};

const SELF: &str = "/proc/self/exe";
/// The lowest number for a descriptor that is left open for [`release`]; in the table that every process begins with.
pub(crate) const FIRST_KEPT: i32 = 48;
const NONE: i32 = -1;
static KEPT: AtomicI32 = AtomicI32::new(NONE);

/// Whether nobody can write this program's file through `/proc/PID/exe`.
///
/// # Errors
///
/// `/proc/self/exe` cannot be opened.
pub fn is_protected() -> Result<bool, Error> {
    // Once it was executed again this is all.
    let mount = rustix::fs::statvfs(SELF).map_err(|errno| Error::io(format!("statfs {SELF}"), errno))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let open = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let exe = open.map_err(|errno| Error::io(format!("open {SELF}"), errno))?;
    Ok(rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Makes sure that nobody can write this program's file: executes it again if need be, with the same arguments and
/// environment, and then answers from the new one. To be called first thing in `main`, while nothing is open and there is
/// one thread.
///
/// # Errors
///
/// The file can neither be cloned read-only nor copied into sealed memory.
pub fn protect() -> Result<(), Error> {
    if is_protected()? {
        keep();
        return Ok(());
    }
    let file = match read_only_clone() {
        Ok(file) => file,
        // Without the privilege to mount, or on a kernel without these calls.
        Err(errno) if [libc::EPERM, libc::ENOSYS].contains(&errno.number()) => {
            sealed_copy().map_err(|error| Error::io(format!("copy {SELF} to memory"), error))?
        }
        Err(errno) => return Err(Error::io(format!("clone {SELF} read-only"), errno)),
    };
    let text = |text: OsString| {
        CString::new(text.into_vec()).map_err(|_| Error::Invalid("an argument with a zero byte".into()))
    };
    let arguments = arguments()?.into_iter().map(text).collect::<Result<_, _>>()?;
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        text(name)
    });
    let environment = environment.collect::<Result<_, _>>()?;
    let errno = execve_file(
        Fd::of(&file),
        &Strings::new(arguments),
        &Strings::new(environment),
    );
    Err(Error::io(format!("execute {SELF} once more"), errno))
}

/// What this program was called with. Rust's library knows it only where it has started `main`, or glibc has.
fn arguments() -> Result<Vec<OsString>, Error> {
    const FILE: &str = "/proc/self/cmdline";
    let text = std::fs::read(FILE).map_err(|error| Error::io(format!("read {FILE}"), error))?;
    // Each ends with a zero byte.
    let mut arguments: Vec<_> = text
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect();
    arguments.pop();
    Ok(arguments)
}

/// Keeps the descriptor that this program was executed from to this process, where it was left open for [`release`].
fn keep() {
    let path = rustix::param::linux_execfn().to_str().unwrap_or_default();
    let number = path
        .strip_prefix("/dev/fd/")
        .and_then(|number| number.parse().ok());
    // One that was closed by `execve` is no longer there.
    if let Some(number) = number.filter(|number| *number >= FIRST_KEPT)
        && fd::close_on_exec(Fd::at(number)).is_ok()
    {
        KEPT.store(number, Ordering::Relaxed);
    }
}

/// Closes the file that [`protect`] has executed this program from. The kernel waits for every processor then, so that is for
/// a moment when there is nothing else to do; it is done at the end of the process anyway.
pub fn release() {
    match KEPT.swap(NONE, Ordering::Relaxed) {
        NONE => {}
        number => Fd::at(number).close(),
    }
}

/// Tells the listener of [`crate::trace`], if there is one, from what file this program runs that [`protect`] was called in.
pub fn tell() {
    if !is_heard() {
        return;
    }
    // A clone of a mount of one file has nothing above it, not even a name.
    let way = match std::fs::read_link(SELF) {
        Ok(path) if path == Path::new("/") => {
            "using /proc/self/exe clone, a read-only mount in no mount namespace"
        }
        Ok(path) if path.as_os_str().as_bytes().starts_with(b"/memfd:") => {
            "using /proc/self/exe clone in sealed memory"
        }
        _ => "no need of a /proc/self/exe clone, it is on a read-only mount",
    };
    trace!("runc exeseal: {way}");
}

/// The file on a mount of its own that is read-only and in no mount namespace: nobody can make it writable again.
fn read_only_clone() -> Result<OwnedFd, Errno> {
    let clone = mount::clone_tree(Fd::CWD, c"/proc/self/exe", Extent::Mount)?;
    let clone = fd::owned(clone.number() as usize);
    mount::set_attributes(Fd::of(&clone), &Attributes::READ_ONLY, Extent::Mount)?;
    Ok(clone)
}

fn sealed_copy() -> Result<OwnedFd, io::Error> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("wharf", flags)?;
    let mut copy = File::from(memory);
    io::copy(&mut File::open(SELF)?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    // A descriptor that is open for writing makes the kernel refuse to execute the file.
    reopen(copy.as_fd())
}

fn reopen(file: BorrowedFd<'_>) -> Result<OwnedFd, io::Error> {
    let path = format!("/proc/self/fd/{}", Fd::of(&file).number());
    Ok(File::open(path)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_all_that_were_given() {
        assert_eq!(arguments().unwrap(), std::env::args_os().collect::<Vec<_>>());
    }

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        let copy = sealed_copy().unwrap();
        let path = format!("/proc/self/fd/{}", Fd::of(&copy).number());
        assert!(
            File::options()
                .write(true)
                .open(&path)
                .and_then(|mut file| io::Write::write(&mut file, b"x"))
                .is_err()
        );
        let seals = rustix::fs::fcntl_get_seals(&copy).unwrap();
        assert!(seals.contains(SealFlags::WRITE | SealFlags::SEAL));
    }
}
