//! Copying a tree with all that belongs to it: owners, modes, times, extended attributes, hard links, devices, holes.
//!
//! The blocks of files are shared where the file system can (`FICLONE`), else copied inside the kernel. The tree is an
//! image's, so nothing in it is followed: each name is opened in its directory's descriptor. Refuses trees deeper than
//! the descriptors allow.

use std::{collections::HashMap, fs::File, io, os::fd::AsRawFd as _, path::Path};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use crate::error::{Error, Kind, Result};

/// How deep directories may lie in each other: each level holds two descriptors.
const MAX_DEPTH: usize = 400;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Copies the tree `from` into the empty directory `to`, whose own attributes become those of `from`. Blocks.
///
/// # Errors
///
/// `ResourceExhausted` when the disk is full, `Unknown` from the disk; what was copied is left for the caller to remove.
pub(super) fn tree(from: &Path, to: &Path) -> Result<()> {
    let open = |path: &Path| {
        fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|error| Error::io(format!("open {}", path.display()), error))
    };
    let (from, root, to) = (open(from)?, open(to)?, open(to)?);
    let mut copy = Copy {
        root,
        links: HashMap::new(),
        clones: true,
        path: Vec::new(),
    };
    let done = copy.directory(&from, &to, 0);
    done.map_err(|error| {
        let path = String::from_utf8_lossy(&copy.path).into_owned();
        if error == Errno::MLINK && path.matches('/').count() >= MAX_DEPTH {
            return Error::new(
                Kind::FailedPrecondition,
                format!("copy a tree: directories lie more than {MAX_DEPTH} deep"),
            );
        }
        Error::io(format!("copy /{path}"), error)
    })
}

struct Copy {
    /// The root of the copy.
    root: OwnedFd,
    /// Inodes with several names: the path of the copy's first one.
    links: HashMap<u64, Vec<u8>>,
    /// Whether the file system has not refused to share blocks yet.
    clones: bool,
    /// Where the copy is; after an error, where it happened.
    path: Vec<u8>,
}

impl Copy {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), Errno> {
        if depth > MAX_DEPTH {
            return Err(Errno::MLINK);
        }
        let length = self.path.len();
        for entry in fs::Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            self.entry(from, to, name, depth)?;
            self.path.truncate(length);
        }
        let stat = fs::fstat(from)?;
        attributes(&own(from), &own(to))?;
        fs::fchown(to, owner(&stat).0, owner(&stat).1)?;
        fs::fchmod(to, mode(&stat))?;
        // Last: every name that was made in it changed its time.
        fs::futimens(to, &times(&stat))
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], depth: usize) -> Result<(), Errno> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let child = |parent| fs::openat(parent, name, DIRECTORY, Mode::empty());
            return self.directory(&child(from)?, &child(to)?, depth + 1);
        }
        if let Some(first) = self.links.get(&stat.st_ino) {
            return fs::linkat(&self.root, &first[..], to, name, AtFlags::empty());
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, &stat)?,
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(target, to, name)?;
            }
            // A socket without its server is nothing, but a name that was there is there.
            _ => fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?,
        }
        fs::chownat(
            to,
            name,
            owner(&stat).0,
            owner(&stat).1,
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        attributes(&at(from, name), &at(to, name))?;
        if kind != FileType::Symlink {
            // Ours, just made: nobody else can have put a link in its place.
            fs::chmodat(to, name, mode(&stat), AtFlags::empty())?;
        }
        fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
        if stat.st_nlink > 1 {
            self.links.insert(stat.st_ino, self.path.clone());
        }
        Ok(())
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = fs::openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        if stat.st_size == 0 {
            return Ok(());
        }
        if self.clones {
            match fs::ioctl_ficlone(&target, &source) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::XDEV) => {
                    self.clones = false;
                }
                Err(error) => return Err(error),
            }
        }
        let size = stat.st_size.cast_unsigned();
        fs::ftruncate(&target, size)?;
        let mut offset = 0;
        while let Some((start, end)) = data(&source, offset, size)? {
            range(&source, &target, start, end)?;
            offset = end;
        }
        Ok(())
    }
}

/// The next stretch of a file that is no hole.
fn data(file: &OwnedFd, offset: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    if offset >= size {
        return Ok(None);
    }
    let start = match fs::seek(file, SeekFrom::Data(offset)) {
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, size))),
        start => start?,
    };
    Ok(Some((start, fs::seek(file, SeekFrom::Hole(start))?.min(size))))
}

fn range(source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let length = usize::try_from(end - read).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(source, Some(&mut read), target, Some(&mut written), length) {
            // The file became shorter; nobody may write a committed snapshot.
            Ok(0) => return Err(Errno::STALE),
            Ok(_) => {}
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV) => {
                return through_memory(source, target, read, end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn through_memory(source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    use std::os::unix::fs::FileExt as _;
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let file = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().map(File::from).map_err(errno);
    let (source, target) = (file(source)?, file(target)?);
    let mut buffer = vec![0; 256 << 10];
    let mut offset = start;
    while offset < end {
        // At most the buffer, so it fits.
        let wanted = (end - offset).min(buffer.len() as u64) as usize;
        source
            .read_exact_at(&mut buffer[..wanted], offset)
            .map_err(errno)?;
        target.write_all_at(&buffer[..wanted], offset).map_err(errno)?;
        offset += wanted as u64;
    }
    Ok(())
}

/// A path to exactly `name` in `directory`, whose last component the calls here do not follow.
fn at(directory: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// A path to the open `directory` itself.
fn own(directory: &OwnedFd) -> Vec<u8> {
    at(directory, b".")
}

/// Copies all extended attributes.
fn attributes(from: &[u8], to: &[u8]) -> Result<(), Errno> {
    // The kernel's limit of a list and of a value.
    let mut list = vec![0; 64 << 10];
    let length = match fs::llistxattr(from, &mut list) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut value = Vec::new();
    for name in list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        value.resize(64 << 10, 0);
        let length = fs::lgetxattr(from, name, &mut value[..])?;
        match fs::lsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // A security module labels what is made by its own rules.
            Err(Errno::OPNOTSUPP | Errno::PERM)
                if name.starts_with(b"security.") && name != b"security.capability" => {}
            other => other?,
        }
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        // Less than a second, so it fits.
        tv_nsec: nanoseconds.cast_signed(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_copy_is_the_same_in_everything_but_its_inodes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/file"), vec![3; 300_000]).unwrap();
        std::fs::hard_link(from.join("a/file"), from.join("a/b/link")).unwrap();
        symlink("/etc", from.join("a/out")).unwrap();
        std::fs::set_permissions(from.join("a/b"), std::fs::Permissions::from_mode(0o1770)).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(50 << 20).unwrap();
        sparse.write_all_at(b"end", 40 << 20).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
        for name in ["a/file", "a"] {
            File::open(from.join(name)).unwrap().set_modified(old).unwrap();
        }
        tree(&from, &to).unwrap();
        for name in ["", "a", "a/b", "a/file", "a/out", "sparse"] {
            let facts = |root: &Path| {
                let stat = std::fs::symlink_metadata(root.join(name)).unwrap();
                let size = if stat.is_dir() { 0 } else { stat.len() };
                (stat.mode(), stat.uid(), size, stat.mtime(), stat.mtime_nsec())
            };
            assert_eq!(facts(&from), facts(&to), "{name}");
        }
        assert_eq!(std::fs::read(to.join("a/file")).unwrap(), vec![3; 300_000]);
        let inode = |name: &str| std::fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("a/file"), inode("a/b/link"));
        let sparse = std::fs::metadata(to.join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 10 << 20, "{} blocks", sparse.blocks());
        let mut end = [0; 3];
        File::open(to.join("sparse"))
            .unwrap()
            .read_exact_at(&mut end, 40 << 20)
            .unwrap();
        assert_eq!(&end, b"end");
    }
}
