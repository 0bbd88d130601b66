//! The id maps of user namespaces: written for a new one, read from one that is joined.
//!
//! Root writes a map of any ids itself. A user without privileges may map itself only; for more it asks `newuidmap` and
//! `newgidmap`, which an administrator has given privileges and told (`/etc/subuid`, `/etc/subgid`) whose ids may be mapped.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Command;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use crate::Error;
use crate::plan::{IdRange, Mappings, mapping_text, parse_mappings};
use crate::process::{reap, wait_exit};
use crate::procfs;
use crate::search_path;
use crate::sys::Fd;
use crate::sys::credentials::set_dumpable;
use crate::sys::process::{Notice, clone_child, exit, setns};
use crate::sys::socket;

/// Writes both maps of process `pid`, a child that waits.
pub(crate) fn write(pid: i32, mappings: &Mappings, is_root: bool) -> Result<(), Error> {
    if mappings.deny_setgroups {
        let path = format!("/proc/{pid}/setgroups");
        fs::write(&path, "deny").map_err(|error| Error::io(format!("write deny to {path}"), error))?;
    }
    put(pid, "uid_map", "newuidmap", &mappings.uid, is_root)?;
    put(pid, "gid_map", "newgidmap", &mappings.gid, is_root)
}

/// One write: the kernel takes a map only once, and whole.
fn put(pid: i32, file: &str, program: &str, ranges: &[IdRange], is_root: bool) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{file}");
    match fs::write(&path, mapping_text(ranges)) {
        Err(error) if !is_root && error.raw_os_error() == Some(libc::EPERM) => {
            match search_path::find(Path::new(program)) {
                Some(program) => run(&program, pid, ranges),
                None => Err(Error::io(
                    format!("write {path} ({program} is not in $PATH)"),
                    error,
                )),
            }
        }
        answer => answer.map_err(|error: io::Error| Error::io(format!("write {path}"), error)),
    }
}

fn run(program: &Path, pid: i32, ranges: &[IdRange]) -> Result<(), Error> {
    let arguments = arguments(pid, ranges);
    let name = format!("{} {}", program.display(), arguments.join(" "));
    // It has privileges, and takes nothing from this environment.
    let output = Command::new(program).env_clear().args(&arguments).output();
    let output = output.map_err(|error| Error::io(&name, error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Invalid(format!(
        "{name}: {}: {}",
        output.status,
        said.trim()
    )))
}

fn arguments(pid: i32, ranges: &[IdRange]) -> Vec<String> {
    let text = mapping_text(ranges);
    let numbers = text.split_ascii_whitespace().map(str::to_owned);
    std::iter::once(pid.to_string()).chain(numbers).collect()
}

/// The maps of a user namespace that exists, as this process's user namespace numbers the ids, and whether it allows
/// `setgroups(2)`.
///
/// They are shown for a process only, so one joins it for that.
pub(crate) fn inspect(namespace: BorrowedFd<'_>) -> Result<Mappings, Error> {
    let failed = |errno| Error::io("make a socket pair", errno);
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
    let (from, to, other) = (Fd::of(&namespace), Fd::of(&theirs), Fd::of(&ours));
    let body = move || {
        other.close();
        // Root there could trace it otherwise, wherever it can see it, and it still has all that this process has.
        let joined = set_dumpable(false).and_then(|()| setns(from, libc::CLONE_NEWUSER as u64));
        let number = joined.err().map_or(0, crate::Errno::number);
        let told = socket::send(to, &number.to_ne_bytes(), None);
        // Until the other end is closed.
        let waited = told.and_then(|()| socket::receive(to, &mut [0]));
        exit(i32::from(waited.is_err()))
    };
    // SAFETY: the body makes system calls on captured numbers; it allocates nothing, locks nothing and does not return.
    #[allow(unsafe_code)]
    let child =
        unsafe { clone_child(0, None, Notice::Child, body) }.map_err(|errno| Error::io("clone3", errno))?;
    drop(theirs);
    let mut number = [0; 4];
    let maps = match recv(&ours, &mut number[..], RecvFlags::empty()) {
        Ok((_, 4)) => match i32::from_ne_bytes(number) {
            0 => read(child.pid),
            number => Err(Error::io(
                "join the user namespace",
                io::Error::from_raw_os_error(number),
            )),
        },
        Ok(_) => Err(Error::Ended("joining the user namespace")),
        Err(errno) => Err(Error::io("hear a process", errno)),
    };
    drop(ours);
    let ended =
        wait_exit(child.pidfd.as_fd(), crate::delete::PATIENCE).and_then(|_| reap(child.pidfd.as_fd()));
    maps.and_then(|maps| ended.map(|()| maps))
}

fn read(pid: i32) -> Result<Mappings, Error> {
    let map = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        let text = fs::read_to_string(&path).map_err(|error| Error::io(format!("read {path}"), error))?;
        parse_mappings(&text).ok_or_else(|| Error::Invalid(format!("{path}: {text:?} is no map of ids")))
    };
    Ok(Mappings {
        uid: map("uid_map")?,
        gid: map("gid_map")?,
        deny_setgroups: !allows_setgroups(&pid.to_string())?,
    })
}

/// Whether the user namespace of a process (`self`, or a pid) allows `setgroups(2)`.
pub(crate) fn allows_setgroups(process: &str) -> Result<bool, Error> {
    let path = format!("/proc/{process}/setgroups");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() != "deny"),
        Err(error) => Err(Error::io(format!("read {path}"), error)),
    }
}

/// Whether this process is in another user namespace than the host's first one. Without an answer it is.
#[must_use]
pub fn in_user_namespace() -> bool {
    let own = procfs::read("/proc/self/uid_map", 64).unwrap_or_default();
    !own.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_told_the_process_and_every_range() {
        let range = |container, host, size| IdRange {
            container,
            host,
            size,
        };
        let words = arguments(7, &[range(0, 1000, 1), range(1, 2, 3)]);
        assert_eq!(words.join(" "), "7 0 1000 1 1 2 3");
    }

    #[test]
    fn the_own_user_namespace_can_be_read() {
        allows_setgroups("self").unwrap();
    }
}
