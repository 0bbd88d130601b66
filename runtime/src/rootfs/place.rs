//! Opening, and where needed making, a place in the root file system.

use std::ffi::CStr;

use crate::plan::Target;
use crate::sys::fs::{self, Resolve};
use crate::sys::{Errno, Fd};

/// What is made when nothing is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Directory,
    File,
}

const DIRECTORY_MODE: u32 = 0o755;
/// An empty file that will be covered.
const FILE_MODE: u32 = libc::S_IFREG | 0o644;

/// Opens (`O_PATH`) the target beneath `root`, made if nothing is there.
pub(crate) fn open_or_make(root: Fd, target: &Target, kind: Kind, resolve: Resolve) -> Result<Fd, Errno> {
    match fs::openat2(root, &target.path, libc::O_PATH, 0, resolve) {
        Err(errno) if errno.number() == libc::ENOENT => {}
        answer => return answer,
    }
    let parent = open_parent(root, target, resolve)?;
    let made = match kind {
        Kind::Directory => fs::mkdirat(parent, name(&target.path), DIRECTORY_MODE),
        Kind::File => fs::mknodat(parent, name(&target.path), FILE_MODE, 0),
    };
    parent.close();
    match made {
        Err(errno) if errno.number() != libc::EEXIST => return Err(errno),
        _ => {}
    }
    fs::openat2(root, &target.path, libc::O_PATH, 0, resolve)
}

/// Opens the directory the target is in; it and those above it are made if they are missing.
pub(crate) fn open_parent(root: Fd, target: &Target, resolve: Resolve) -> Result<Fd, Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let Some(parent) = target.parents.last() else {
        return fs::openat2(root, c".", flags, 0, resolve);
    };
    match fs::openat2(root, parent, flags, 0, resolve) {
        Err(errno) if errno.number() == libc::ENOENT => {}
        answer => return answer,
    }
    let mut above = fs::openat2(root, c".", flags, 0, resolve)?;
    for directory in &target.parents {
        let next = match fs::openat2(root, directory, flags, 0, resolve) {
            Err(errno) if errno.number() == libc::ENOENT => {
                match fs::mkdirat(above, name(directory), DIRECTORY_MODE) {
                    Err(errno) if errno.number() != libc::EEXIST => return Err(errno),
                    _ => fs::openat2(root, directory, flags, 0, resolve)?,
                }
            }
            answer => answer?,
        };
        above.close();
        above = next;
    }
    Ok(above)
}

/// The last component of a clean path.
pub(crate) fn name(path: &CStr) -> &CStr {
    let bytes = path.to_bytes_with_nul();
    let start = bytes
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let last = bytes.get(start..).unwrap_or_default();
    CStr::from_bytes_with_nul(last).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_last_component() {
        assert_eq!(name(c"a/b/c"), c"c");
        assert_eq!(name(c"a"), c"a");
    }
}
