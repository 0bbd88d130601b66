//! A hard link to a file of a layer below: overlayfs would copy that file up and link to the copy, and so do we.
//!
//! What the layers below show at a path is found as overlayfs finds it: from the topmost one down, until a whiteout, an
//! opaque directory or another kind of thing hides what is below. No link on the way is followed: a layer names its
//! files by their real paths.

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Mode, OFlags, SeekFrom},
    io::Errno,
};

use super::{metadata, tree};

/// Bytes that the kernel is asked to copy at once.
const CHUNK: u64 = 16 << 20;

/// What one layer says of a path.
enum Seen {
    /// It is there; the directory that it is in.
    Here(OwnedFd),
    /// Nothing: the layers below decide.
    Nothing,
    /// It is not there, whatever the layers below say.
    Hidden,
}

/// A file that a layer below shows.
pub(super) struct Covered {
    directory: OwnedFd,
    stat: fs::Stat,
}

impl Covered {
    /// Finds what is visible at the cleaned `path` of `lowers` (topmost first) under `upper`.
    ///
    /// # Errors
    ///
    /// `ENOENT` when nothing is visible there; `EPERM` for a directory, which has no hard links.
    pub(super) fn find(upper: &OwnedFd, lowers: &[OwnedFd], path: &[u8]) -> Result<Self, Errno> {
        match look(upper, path)? {
            Seen::Nothing => {}
            Seen::Here(_) | Seen::Hidden => return Err(Errno::NOENT),
        }
        for lower in lowers {
            match look(lower, path)? {
                Seen::Nothing => {}
                Seen::Hidden => return Err(Errno::NOENT),
                Seen::Here(directory) => {
                    let stat = fs::statat(&directory, super::path::split(path).1, AtFlags::SYMLINK_NOFOLLOW)?;
                    return match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Directory => Err(Errno::PERM),
                        _ => Ok(Self { directory, stat }),
                    };
                }
            }
        }
        Err(Errno::NOENT)
    }

    /// The bytes that a copy takes: holes stay holes.
    pub(super) fn size(&self) -> u64 {
        let blocks = u64::try_from(self.stat.st_blocks).unwrap_or(0);
        blocks
            .saturating_mul(512)
            .min(u64::try_from(self.stat.st_size).unwrap_or(0))
    }

    /// Makes a copy called `name` in `to`.
    pub(super) fn copy(&self, to: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let kind = FileType::from_raw_mode(self.stat.st_mode);
        match kind {
            FileType::RegularFile => return self.copy_file(to, name),
            FileType::Symlink => {
                let target = fs::readlinkat(&self.directory, name, Vec::new())?;
                fs::symlinkat(target, to, name)?;
            }
            _ => fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), self.stat.st_rdev)?,
        }
        fs::chownat(
            to,
            name,
            Some(fs::Uid::from_raw(self.stat.st_uid)),
            Some(fs::Gid::from_raw(self.stat.st_gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        metadata::change_mode(to, name, self.stat.st_mode & 0o7777)?;
        fs::utimensat(
            to,
            name,
            &metadata::times_of(&self.stat),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    fn copy_file(&self, to: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = fs::openat(&self.directory, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        let size = u64::try_from(self.stat.st_size).unwrap_or(0);
        fs::ftruncate(&copy, size)?;
        let mut at = 0;
        while at < size {
            at = match fs::seek(&from, SeekFrom::Data(at)) {
                // Only a hole is left.
                Err(Errno::NXIO) => break,
                data => data?,
            };
            let end = fs::seek(&from, SeekFrom::Hole(at))?.min(size);
            let mut written = at;
            while at < end {
                let length = usize::try_from(CHUNK.min(end - at)).unwrap_or(usize::MAX);
                if fs::copy_file_range(&from, Some(&mut at), &copy, Some(&mut written), length)? == 0 {
                    return Err(Errno::IO);
                }
            }
        }
        metadata::copy(&from, &copy)
    }
}

/// What `layer` itself says of `path`.
fn look(layer: &OwnedFd, path: &[u8]) -> Result<Seen, Errno> {
    let (parent, name) = super::path::split(path);
    let mut here = tree::open_below(layer, b".")?;
    let device = fs::fstat(&here)?.st_dev;
    let mut opaque = false;
    let nothing = |opaque| match opaque {
        true => Seen::Hidden,
        false => Seen::Nothing,
    };
    for component in parent
        .split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty())
    {
        here = match tree::open_below(&here, component) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(nothing(opaque)),
            // A whiteout, a file or a link.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Seen::Hidden),
            Err(error) => return Err(error),
        };
        if fs::fstat(&here)?.st_dev != device {
            return Err(Errno::XDEV);
        }
        opaque |= is_opaque(&here)?;
    }
    match fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(nothing(opaque)),
        Ok(stat)
            if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 =>
        {
            Ok(Seen::Hidden)
        }
        found => found.map(|_stat| Seen::Here(here)),
    }
}

fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0; 1];
    match fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}
