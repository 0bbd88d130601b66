//! `tmpcopyup`: what an image has at a target is copied into the file system that is mounted there, in the child half.
//!
//! The source is the image's and hostile: names are opened one at a time, never through a link, and what is no regular
//! file is never opened. Owners and modes are kept, extended attributes are not.

use std::ffi::CStr;

use crate::sys::fs;
use crate::sys::{Errno, Fd};

/// Deeper trees are refused: every level takes some of the stack.
const MAX_DEPTH: u32 = 64;
const MODE: u32 = 0o7777;
/// What one call copies at most.
const CHUNK: usize = 1 << 30;

/// Copies everything in the directory `from` into the directory `to`, which is empty and seen by nobody else.
pub(crate) fn copy_up(from: Fd, to: Fd) -> Result<(), Errno> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: Fd, to: Fd, depth: u32) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::new(libc::ENAMETOOLONG));
    }
    let listed = fs::openat(from, c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut buffer = [0; 4096];
    let result = loop {
        match fs::read_directory(listed, &mut buffer) {
            Ok(0) => break Ok(()),
            Ok(filled) => {
                let filled = buffer.get(..filled).unwrap_or_default();
                let copied = fs::entries(filled).try_for_each(|name| copy_one(from, to, name, depth));
                if copied.is_err() {
                    break copied;
                }
            }
            Err(errno) => break Err(errno),
        }
    };
    listed.close();
    result
}

fn copy_one(from: Fd, to: Fd, name: &CStr, depth: u32) -> Result<(), Errno> {
    let found = match fs::openat(from, name, libc::O_PATH | libc::O_NOFOLLOW) {
        // It is gone already.
        Err(errno) if errno.number() == libc::ENOENT => return Ok(()),
        answer => answer?,
    };
    let result = copy_found(found, from, to, name, depth);
    found.close();
    result
}

fn copy_found(found: Fd, from: Fd, to: Fd, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = fs::stat(found, c"")?;
    match stat.mode & libc::S_IFMT {
        libc::S_IFLNK => {
            let mut text = [0; libc::PATH_MAX as usize];
            let last = text.len() - 1;
            fs::read_link(found, text.get_mut(..last).unwrap_or_default())?;
            let text = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::new(libc::EIO))?;
            fs::symlinkat(text, to, name)?;
            return fs::chown(to, name, stat.uid, stat.gid);
        }
        libc::S_IFDIR => {
            fs::mkdirat(to, name, 0o700)?;
            let made = fs::openat(to, name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
            let copied = copy_directory(found, made, depth + 1);
            made.close();
            copied?;
        }
        libc::S_IFREG => copy_file(from, to, name)?,
        kind => fs::mknodat(to, name, kind | 0o600, stat.rdev)?,
    }
    // The owner first: a change of owner clears the set-id bits.
    fs::chown(to, name, stat.uid, stat.gid)?;
    fs::chmod(to, name, stat.mode & MODE)
}

fn copy_file(from: Fd, to: Fd, name: &CStr) -> Result<(), Errno> {
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let source = fs::openat(from, name, flags)?;
    let is_file = fs::stat(source, c"").map(|stat| stat.mode & libc::S_IFMT == libc::S_IFREG);
    let result = match is_file {
        Ok(true) => fs::create(to, name, 0o600).and_then(|made| {
            let copied = copy_bytes(source, made);
            made.close();
            copied
        }),
        // Somebody put something else there.
        Ok(false) => Err(Errno::new(libc::ESTALE)),
        Err(errno) => Err(errno),
    };
    source.close();
    result
}

fn copy_bytes(from: Fd, to: Fd) -> Result<(), Errno> {
    loop {
        match fs::send_file(from, to, CHUNK) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(errno) if errno.number() == libc::EINTR => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{
        File, Permissions, create_dir, metadata, read, read_dir, read_link, set_permissions, write,
    };
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_with_its_modes_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        create_dir(&from).unwrap();
        create_dir(&to).unwrap();
        create_dir(from.join("sub")).unwrap();
        write(from.join("sub/big"), vec![7; 200_000]).unwrap();
        write(from.join("secret"), "x").unwrap();
        set_permissions(from.join("secret"), Permissions::from_mode(0o640)).unwrap();
        set_permissions(from.join("sub"), Permissions::from_mode(0o777)).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, from.join("fifo"), 0o600.into()).unwrap();
        for index in 0..300 {
            write(from.join(format!("sub/{index}")), index.to_string()).unwrap();
        }
        let (source, target) = (File::open(&from).unwrap(), File::open(&to).unwrap());
        copy_up(Fd::at(source.as_raw_fd()), Fd::at(target.as_raw_fd())).unwrap();
        assert_eq!(read(to.join("sub/big")).unwrap(), vec![7; 200_000]);
        assert_eq!(read_dir(to.join("sub")).unwrap().count(), 301);
        let mode = |path: &str| metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("secret"), mode("sub")), (0o640, 0o777));
        assert_eq!(read_link(to.join("link")).unwrap().to_str(), Some("/etc/passwd"));
        assert!(to.join("fifo").exists());
    }
}
