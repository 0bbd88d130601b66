//! The directory that something is made in.

use std::ffi::CStr;

use crate::lookup::{self, Kind};
use crate::plan::Target;
use crate::sys::fs::Resolve;
use crate::sys::{Errno, Fd};

/// Opens the directory the target is in; it and those above it are made if they are missing.
pub(crate) fn open_parent(root: Fd, target: &Target, resolve: Resolve) -> Result<Fd, Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match &target.parent {
        None => lookup::open(root, c".", flags, resolve),
        Some(parent) => lookup::open_or_make(root, parent, Kind::Directory, resolve),
    }
}

/// Directories in which one thing after the other is made: the last one stays open for the next thing.
#[derive(Debug)]
pub(crate) struct Parents<'a> {
    root: Fd,
    last: Option<(Option<&'a CStr>, Fd)>,
}

impl<'a> Parents<'a> {
    pub(crate) fn new(root: Fd) -> Self {
        Self { root, last: None }
    }

    /// The directory the target is in, which stays open here; it and those above it are made if they are missing. No
    /// symbolic link is followed.
    pub(crate) fn of(&mut self, target: &'a Target) -> Result<Fd, Errno> {
        let path = target.parent.as_deref();
        if let Some((last, directory)) = self.last {
            if last == path {
                return Ok(directory);
            }
            directory.close();
        }
        self.last = None;
        let directory = open_parent(self.root, target, Resolve::InRootNoSymlinks)?;
        self.last = Some((path, directory));
        Ok(directory)
    }

    pub(crate) fn close(self) {
        if let Some((_, directory)) = self.last {
            directory.close();
        }
    }
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
