//! How much of the disk a directory takes: like `du`, every inode once.

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::Usage;

/// Counts blocks and inodes below `root`, itself included. Links are not followed; what vanishes meanwhile is left out.
///
/// # Errors
///
/// The disk's.
pub fn of(root: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = BTreeSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        // Only a file with several links can be met twice.
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        usage.inodes += 1;
        usage.size += metadata.blocks() * 512;
        if metadata.is_dir() {
            match fs::read_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                entries => {
                    for entry in entries? {
                        pending.push(entry?.path());
                    }
                }
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_symlinks_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        let one = of(dir.path()).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(of(dir.path()).unwrap().inodes, one.inodes);
        std::os::unix::fs::symlink("/", dir.path().join("c")).unwrap();
        assert_eq!(of(dir.path()).unwrap().inodes, one.inodes + 1);
        assert!(one.size >= 100_000);
    }
}
