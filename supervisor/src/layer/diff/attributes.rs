//! The extended attributes that belong to an image.

use std::os::fd::AsRawFd as _;

use rustix::{fd::OwnedFd, fs, io::Errno};

/// Names with values, sorted.
pub(super) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Whether an attribute is part of an image: not the host's bookkeeping, not labels of its security modules.
fn belongs(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// A path that leads to exactly `name` in `directory`; the last component is not followed by the calls here.
fn path(directory: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// The attributes of `name` in `directory`, nothing opened or followed.
pub(super) fn of(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<Attributes> {
    let path = path(directory, name);
    let path = path.as_slice();
    let list = match grown(|buffer| fs::llistxattr(path, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(Attributes::new()),
        list => list?,
    };
    let mut attributes = Attributes::new();
    for attribute in list.split(|byte| *byte == 0).filter(|name| belongs(name)) {
        match grown(|buffer| fs::lgetxattr(path, attribute, buffer)) {
            // Taken away between the two calls.
            Err(Errno::NODATA) => {}
            value => attributes.push((attribute.to_vec(), value?)),
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// Whether the open `directory` has the attribute.
pub(super) fn has(directory: &OwnedFd, attribute: &str) -> rustix::io::Result<bool> {
    match fs::fgetxattr(directory, attribute, &mut [0_u8; 0][..]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        other => other.map(|_length| true),
    }
}

/// Calls with a buffer that is large enough.
fn grown(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    // The kernel's own limit of a list or a value is 64 KiB.
    for size in [256, 64 << 10] {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Err(Errno::RANGE) => {}
            length => {
                buffer.truncate(length?);
                return Ok(buffer);
            }
        }
    }
    Err(Errno::RANGE)
}
