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
