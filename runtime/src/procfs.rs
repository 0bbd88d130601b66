//! The kernel's own files, which have no size to go by: read in as few calls as it takes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest file that is read: a table of mounts on a large host has some megabytes.
const MAX_BYTES: u64 = 64 << 20;

/// Reads the file at `path`, which has about `expected` bytes: with room for all of them one read is enough, and one that
/// finds the end.
///
/// # Errors
///
/// It cannot be read, is no text, or has more than 64 MiB.
pub(crate) fn read(path: impl AsRef<Path>, expected: usize) -> io::Result<String> {
    let text = read_bytes(path, expected)?;
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// As [`read`], of what may be no text.
pub(crate) fn read_bytes(path: impl AsRef<Path>, expected: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(expected);
    // Of the file itself the library would ask size and position first.
    let read = File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    if read as u64 == MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_whatever_was_expected() {
        let whole = std::fs::read_to_string("/proc/self/limits").unwrap();
        for expected in [0, 1, 32, 4096] {
            assert_eq!(read("/proc/self/limits", expected).unwrap(), whole);
        }
        assert!(read("/proc/self/none", 1).is_err());
    }
}
