//! Taking down mounts that a dead shim left.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::error::{Error, Result};

/// How long a mount may stay busy: the processes that use it were killed and are on their way out.
const BUSY: Duration = Duration::from_secs(2);

/// Unmounts everything at and below `path`, the deepest first. Blocks.
///
/// Nothing is detached lazily: a mount that is still in use must not disappear from view while its snapshot is reused.
///
/// # Errors
///
/// `Unknown`: the mount table cannot be read, or a mount stays busy.
pub fn below(path: &Path) -> Result<()> {
    let deadline = Instant::now() + BUSY;
    loop {
        let Some(mount) = last_below(path)? else {
            return Ok(());
        };
        match rustix::mount::unmount(&mount, UnmountFlags::NOFOLLOW) {
            // Gone meanwhile: the table tells what remains.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) if Instant::now() < deadline => {}
            Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(()) => {}
            Err(error) => return Err(Error::io(format!("unmount {}", mount.display()), error)),
        }
    }
}

/// The mount at or below `path` that was made last, which no other one covers.
fn last_below(path: &Path) -> Result<Option<PathBuf>> {
    let table =
        fs::read("/proc/self/mountinfo").map_err(|error| Error::io("read /proc/self/mountinfo", error))?;
    Ok(mount_points(&table)
        .filter(|mount| mount.starts_with(path))
        .last())
}

/// The mounts at and below `path`, in the order they were made.
///
/// # Errors
///
/// `Unknown`: the mount table cannot be read.
pub fn mounts_below(path: &Path) -> Result<Vec<PathBuf>> {
    let table =
        fs::read("/proc/self/mountinfo").map_err(|error| Error::io("read /proc/self/mountinfo", error))?;
    Ok(mount_points(&table)
        .filter(|mount| mount.starts_with(path))
        .collect())
}

/// The mount points of a `mountinfo` table, in its order.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| OsString::from_vec(unescape(field)).into())
}

/// Undoes the kernel's escapes of blanks and backslashes: `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let Some([a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7']) = tail.first_chunk::<3>()
        {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = &tail[3..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_escapes_them() {
        let table =
            b"36 35 98:0 /mnt1 /a/b\\040c rw - ext3 /dev/root rw\n37 35 98:0 / /x\\134y rw - tmpfs t rw\n";
        let points: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/a/b c"), PathBuf::from("/x\\y")]);
    }

    #[test]
    fn nothing_mounted_is_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        below(dir.path()).unwrap();
    }
}
