//! How much of the disk a directory takes: like `du`, every inode once.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

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

/// As [`of`], but what is the same in `parent`, of which `root` was made without copying, is not counted.
///
/// # Errors
///
/// The disk's.
pub fn beyond(root: &Path, parent: Option<&Path>) -> io::Result<Usage> {
    let Some(parent) = parent else { return of(root) };
    let mut usage = Usage::default();
    let mut seen = BTreeSet::new();
    // Paths from the root, and whether the parent may have them.
    let mut pending = vec![(PathBuf::new(), true)];
    while let Some((path, shared)) = pending.pop() {
        let metadata = match fs::symlink_metadata(root.join(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let before = match shared.then(|| fs::symlink_metadata(parent.join(&path))) {
            Some(Ok(before)) => Some(before),
            Some(Err(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(error);
            }
            _ => None,
        };
        let identity = |metadata: &fs::Metadata| {
            (
                metadata.ino(),
                metadata.mode(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            )
        };
        let same = before
            .as_ref()
            .is_some_and(|before| identity(before) == identity(&metadata));
        let repeated = metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino());
        if !same && !repeated {
            usage.inodes += 1;
            usage.size += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            let shared = before.is_some_and(|before| before.is_dir());
            match fs::read_dir(root.join(&path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                entries => {
                    for entry in entries? {
                        pending.push((path.join(entry?.file_name()), shared));
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
