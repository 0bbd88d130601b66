//! Applying a layer: each entry created in, or taken out of, the target.
//!
//! Follows the [layer specification](https://github.com/opencontainers/image-spec/blob/main/layer.md) and, where that is
//! silent, what containerd's users see. Whiteouts hide what lower layers brought, never what their own layer brings, in
//! whichever order the entries come: in an overlay's upper directory they become overlayfs's own (a 0/0 character
//! device; `trusted.overlay.opaque`), in a complete tree they remove.
//!
//! Refuses names and hard links that lead out of the root, whiteouts of `.` and `..`, ids and device numbers out of
//! range, and layers beyond [`Limits`].

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    rc::Rc,
};

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};

use super::{
    archive::Archive,
    compression::Decompressor,
    entry::{Entry, EntryKind, quoted},
    metadata::{self, Owner},
    path, pipeline,
    pipeline::ChunkReader,
    tree::{self, Tree},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own bookkeeping, which old images carry; it is no content and names nothing to hide.
const AUFS: &[u8] = b".wh..wh.";

/// How much a layer may take.
///
/// gzip cannot expand its input more than 1032 times, so a layer's compressed size, which its verified descriptor
/// states, bounds what it may hold: at most [`Limits::base_bytes`] plus [`Limits::ratio`] times that size. No honest
/// layer is near it, and a small blob cannot fill a disk. File data that is only a hole takes no space and is bounded
/// by [`Limits::file_bytes`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Uncompressed bytes that every layer may have, and bytes of the layers below that hard links may make it copy.
    /// Default 1 GiB.
    pub(crate) base_bytes: u64,
    /// Uncompressed bytes that are allowed on top for each compressed one. Default 1100.
    pub(crate) ratio: u64,
    /// Entries. Default 4 Mi.
    pub(crate) entries: u64,
    /// The size of one file with its holes. Default 1 TiB.
    pub(crate) file_bytes: u64,
    /// Bytes of directory names that are kept in memory until the end. Default 64 MiB.
    pub(crate) directory_names: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            base_bytes: 1 << 30,
            ratio: 1100,
            entries: 4 << 20,
            file_bytes: 1 << 40,
            directory_names: 64 << 20,
        }
    }
}

/// Where a layer is applied.
pub(crate) enum Target {
    /// A complete tree: whiteouts remove.
    Complete(OwnedFd),
    /// The upper directory of an overlay over `lowers` (topmost first): whiteouts are kept.
    Upper {
        /// The upper directory.
        upper: OwnedFd,
        /// The directories below it.
        lowers: Vec<OwnedFd>,
    },
}

/// What an applied layer was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    /// SHA-256 of the uncompressed stream, everything behind the archive's end included: the DiffID.
    pub(crate) diff_id: Digest,
    /// Bytes of that stream.
    pub(crate) size: u64,
    /// What the layer left to the layers below it.
    pub(crate) implied: Implied,
}

/// What a layer needs but does not bring: it looks as in the layers below, once those are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Implied {
    /// Whether the layer says nothing of the root.
    root: bool,
    /// Directories by inode, with their paths.
    directories: HashMap<u64, Vec<u8>>,
}

impl Implied {
    /// Whether the layer brings all that it needs.
    pub(crate) fn is_empty(&self) -> bool {
        !self.root && self.directories.is_empty()
    }
}

/// Gives what `implied` names in the upper directory of `target` the attributes of what it covers. Blocks.
///
/// # Errors
///
/// `Unknown` from the disk.
pub(crate) fn settle(target: Target, implied: &Implied) -> Result<()> {
    let Target::Upper { upper, lowers } = target else {
        return Ok(());
    };
    let tree = Tree::new(upper, lowers);
    let settled = match implied.root {
        true => tree.inherit_root(),
        false => Ok(()),
    };
    settled
        .and_then(|()| tree.inherit_all(&implied.directories))
        .map_err(|error| Error::io("copy attributes of covered directories", error))
}

/// Applies the layer in `input`, of `compressed_size` bytes, to `target`. Blocks; uses one more thread.
///
/// # Errors
///
/// `InvalidArgument` when the layer is malformed or refused; `NotFound` when it links to a file of the layers below, and
/// `target` does not name these; `ResourceExhausted` when the disk is full; what was created until then is left for the
/// caller to remove.
pub(crate) fn apply(
    input: impl Read + Send,
    compressed_size: u64,
    target: Target,
    limits: Limits,
) -> Result<Applied> {
    let limit = limits
        .base_bytes
        .saturating_add(limits.ratio.saturating_mul(compressed_size));
    std::thread::scope(|scope| {
        let (writer, reader) = pipeline::queue();
        let pump = scope.spawn(move || match Decompressor::new(input) {
            Ok(input) => Ok(pipeline::pump(input, writer, limit)),
            Err(error) => Err(error),
        });
        let extracted = extract(reader, target, limits);
        let pumped = pump
            .join()
            .map_err(|_panic| Error::unknown("decompress layer", "the thread panicked"))?;
        let (diff_id, size) = pumped.map_err(|error| Error::io("read layer", error))?;
        extracted.map(|implied| Applied {
            diff_id,
            size,
            implied,
        })
    })
}

fn extract(reader: ChunkReader, target: Target, limits: Limits) -> Result<Implied> {
    let mut extractor =
        Extractor::new(target, limits).map_err(|error| Error::io("open target of layer", error))?;
    let mut archive = Archive::new(reader);
    while let Some(entry) = archive.next_entry()? {
        extractor
            .entry(&entry, &mut archive)
            .map_err(|error| error.context(format!("entry {}", quoted(&entry.name))))?;
    }
    // Whatever stands behind the archive belongs to the digest.
    let mut rest = archive.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| Error::io("read layer", error))?;
    extractor.finish()
}

struct Extractor {
    tree: Tree,
    limits: Limits,
    /// Whether whiteouts become overlayfs's.
    overlay: bool,
    /// In a complete tree that was not empty: the inodes this layer brought, which its own whiteouts leave alone.
    brought: Option<HashSet<u64>>,
    /// Directories whose times are set when nothing is created in them any more.
    directories: Vec<(Vec<u8>, fs::Timestamps)>,
    entries: u64,
    names: u64,
    /// Bytes of files of layers below that were copied, as this one links to them.
    copied: u64,
    /// Whether an entry spoke of the root.
    root: bool,
}

impl Extractor {
    fn new(target: Target, limits: Limits) -> Result<Self, Errno> {
        let (root, lowers, overlay) = match target {
            Target::Complete(root) => (root, Vec::new(), false),
            Target::Upper { upper, lowers } => (upper, lowers, true),
        };
        let root = tree::open_below(&root, b".")?;
        // In an empty tree there is nothing to hide.
        let mut brought = None;
        if !overlay {
            for entry in fs::Dir::read_from(&root)? {
                if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                    brought = Some(HashSet::new());
                    break;
                }
            }
        }
        let tree = Tree::new(root, lowers);
        Ok(Self {
            tree,
            limits,
            overlay,
            brought,
            directories: Vec::new(),
            entries: 0,
            names: 0,
            copied: 0,
            root: false,
        })
    }

    fn entry(&mut self, entry: &Entry, archive: &mut Archive<ChunkReader>) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::invalid(format!(
                "more than {} entries",
                self.limits.entries
            )));
        }
        let path = path::clean(&entry.name).map_err(|reason| Error::invalid(format!("name {reason}")))?;
        if path.is_empty() {
            return self.root(entry);
        }
        let (parent_path, name) = path::split(&path);
        if name != OPAQUE
            && path
                .split(|byte| *byte == b'/')
                .any(|component| component.starts_with(AUFS))
        {
            return Ok(());
        }
        let parent = self
            .tree
            .directory(parent_path)
            .map_err(|error| Error::io(format!("open directory {}", quoted(parent_path)), error))?;
        if self.names + self.tree.implied_bytes() > self.limits.directory_names {
            return Err(Error::invalid("too many directories"));
        }
        if name == OPAQUE {
            return self
                .opaque(&parent)
                .map_err(|error| Error::io("make directory opaque", error));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Error::invalid("whiteout of no name"));
            }
            return self.whiteout(&parent, hidden, entry);
        }
        let failed = |(step, error): (&'static str, Errno)| Error::io(step, error);
        let owner = Owner::of(entry)?;
        match entry.kind {
            EntryKind::Directory => self.directory(&parent, name, &path, entry, owner)?,
            EntryKind::File => self.file(&parent, name, entry, owner, archive)?,
            EntryKind::HardLink => {
                self.hard_link(&parent, name, entry)?;
                metadata::set_at(&parent, name, entry, owner).map_err(failed)?;
            }
            EntryKind::Symlink => {
                if entry.link.is_empty() {
                    return Err(Error::invalid("symbolic link to nothing"));
                }
                self.create(&parent, name, || fs::symlinkat(&entry.link[..], &*parent, name))
                    .map_err(|error| Error::io("create symbolic link", error))?;
                metadata::set_at(&parent, name, entry, owner).map_err(failed)?;
            }
            EntryKind::CharacterDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                self.node(&parent, name, entry)?;
                metadata::set_at(&parent, name, entry, owner).map_err(failed)?;
            }
        }
        if entry.kind != EntryKind::Directory {
            self.bring(&parent, name)
                .map_err(|error| Error::io("stat", error))?;
        }
        Ok(())
    }

    /// The root's own entry sets its attributes, if it says that it is a directory.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind == EntryKind::Directory {
            let owner = Owner::of(entry)?;
            metadata::set(self.tree.root(), entry, owner, false)
                .map_err(|(step, error)| Error::io(step, error))?;
            self.directories.push((Vec::new(), metadata::timestamps(entry)));
            self.root = true;
        }
        Ok(())
    }

    /// Runs `make`, once more after removing what is in its way.
    fn create<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make() {
            Err(Errno::EXIST) => {
                self.tree.remove(parent, name)?;
                make()
            }
            made => made,
        }
    }

    fn directory(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        owner: Owner,
    ) -> Result<()> {
        self.names += path.len() as u64;
        if self.names > self.limits.directory_names {
            return Err(Error::invalid("too many directories"));
        }
        let directory = self
            .make_directory(parent, name)
            .map_err(|error| Error::io("create directory", error))?;
        let directory = Rc::new(directory);
        metadata::set(&directory, entry, owner, false).map_err(|(step, error)| Error::io(step, error))?;
        if let Some(brought) = &mut self.brought {
            brought.insert(
                fs::fstat(&*directory)
                    .map_err(|error| Error::io("stat", error))?
                    .st_ino,
            );
        }
        self.tree
            .brought(&directory)
            .map_err(|error| Error::io("stat", error))?;
        self.tree.remember(path, &directory);
        self.directories
            .push((path.to_vec(), metadata::timestamps(entry)));
        Ok(())
    }

    /// A directory that is there is merged with; anything else gives way.
    fn make_directory(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        let make = || fs::mkdirat(parent, name, Mode::from_raw_mode(0o700));
        match make() {
            Err(Errno::EXIST) => {
                let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Directory {
                    return tree::open_below(parent, name);
                }
                self.tree.remove(parent, name)?;
                make()?;
                let directory = tree::open_below(parent, name)?;
                // The layer hid the name before it brought a directory: the lower one must stay hidden.
                if self.overlay && kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                    set_opaque(&directory)?;
                }
                Ok(directory)
            }
            made => made.and_then(|()| tree::open_below(parent, name)),
        }
    }

    fn file(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &[u8],
        entry: &Entry,
        owner: Owner,
        archive: &mut Archive<ChunkReader>,
    ) -> Result<()> {
        if entry.size > self.limits.file_bytes {
            return Err(Error::invalid(format!(
                "file of {} bytes, at most {} are accepted",
                entry.size, self.limits.file_bytes
            )));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self
            .create(parent, name, || {
                fs::openat(&**parent, name, flags, Mode::from_raw_mode(0o600))
            })
            .map_err(|error| Error::io("create file", error))?;
        match &entry.segments {
            None => write_range(&file, 0, entry.size, archive)?,
            Some(segments) => {
                fs::ftruncate(&file, entry.size).map_err(|error| Error::io("set size", error))?;
                for segment in segments {
                    write_range(&file, segment.offset, segment.length, archive)?;
                }
            }
        }
        metadata::set(&file, entry, owner, true).map_err(|(step, error)| Error::io(step, error))
    }

    fn hard_link(&mut self, parent: &Rc<OwnedFd>, name: &[u8], entry: &Entry) -> Result<()> {
        let target = path::clean(&entry.link)
            .map_err(|reason| Error::invalid(format!("target of hard link {reason}")))?;
        if target.is_empty() {
            return Err(Error::invalid("hard link to the root"));
        }
        let failed = |error: Errno| Error::io(format!("link to {}", quoted(&target)), error);
        let (target_parent, target_name) = path::split(&target);
        let found = self.tree.existing(target_parent).and_then(|directory| {
            fs::statat(&*directory, target_name, AtFlags::SYMLINK_NOFOLLOW).map(|_stat| directory)
        });
        let target_parent = match found {
            Err(Errno::NOENT) if self.overlay => self.copy_up(&target)?,
            found => found.map_err(failed)?,
        };
        let link = || fs::linkat(&*target_parent, target_name, &**parent, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                let same = |a: &fs::Stat, b: &fs::Stat| a.st_ino == b.st_ino && a.st_dev == b.st_dev;
                let stat =
                    |parent: &OwnedFd, name: &[u8]| fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
                // Linked already, or to itself: removing the name first would lose the file.
                if same(
                    &stat(&target_parent, target_name).map_err(failed)?,
                    &stat(parent, name).map_err(failed)?,
                ) {
                    return Ok(());
                }
                self.tree.remove(parent, name).map_err(failed)?;
                link().map_err(failed)
            }
            outcome => outcome.map_err(failed),
        }
    }

    /// Copies the file at `path` of a layer below into this one; gives its directory.
    fn copy_up(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        let failed = |error: Errno| Error::io(format!("link to {}", quoted(path)), error);
        if !self.tree.has_lowers() {
            // Whoever applies a layer apart tries again when those below are there.
            return Err(Error::not_found(format!("target of hard link {}", quoted(path))));
        }
        let covered = self.tree.covered(path).map_err(failed)?;
        // A few bytes of a layer may not make a copy of all that is below it.
        self.copied = self.copied.saturating_add(covered.size());
        if self.copied > self.limits.base_bytes {
            return Err(Error::invalid(format!(
                "hard links to more than {} bytes of the layers below",
                self.limits.base_bytes
            )));
        }
        let (parent, name) = path::split(path);
        let parent = self.tree.directory(parent).map_err(failed)?;
        covered.copy(&parent, name).map_err(failed)?;
        Ok(parent)
    }

    fn node(&mut self, parent: &Rc<OwnedFd>, name: &[u8], entry: &Entry) -> Result<()> {
        let kind = match entry.kind {
            EntryKind::CharacterDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        // The kernel's device numbers have 12 and 20 bits; more would name another device.
        let (major, minor) = entry.device;
        if major > 0xfff || minor > 0xf_ffff {
            return Err(Error::invalid(format!(
                "device number {major}:{minor} is out of range"
            )));
        }
        let device = fs::makedev(major as u32, minor as u32);
        self.create(parent, name, || {
            fs::mknodat(&**parent, name, kind, Mode::from_raw_mode(0o600), device)
        })
        .map_err(|error| Error::io("create node", error))
    }

    fn opaque(&mut self, directory: &Rc<OwnedFd>) -> Result<(), Errno> {
        if self.overlay {
            return set_opaque(directory);
        }
        match &self.brought {
            Some(brought) => self
                .tree
                .remove_children(directory, &|inode| brought.contains(&inode)),
            None => Ok(()),
        }
    }

    fn whiteout(&mut self, parent: &Rc<OwnedFd>, hidden: &[u8], entry: &Entry) -> Result<()> {
        let failed = |error: Errno| Error::io("create whiteout", error);
        if !self.overlay {
            let Some(brought) = &self.brought else {
                return Ok(());
            };
            let stat = match fs::statat(&**parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(()),
                stat => stat.map_err(failed)?,
            };
            let own = brought.contains(&stat.st_ino);
            return self
                .tree
                .remove_unless(parent, hidden, own, &|inode| brought.contains(&inode))
                .map_err(failed);
        }
        match fs::mknodat(&**parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                let owner = Owner::of(entry)?;
                metadata::set_owner(parent, hidden, owner).map_err(|(step, error)| Error::io(step, error))
            }
            // What is there came with this layer and stays; only a directory would show more than that.
            Err(Errno::EXIST) => match tree::open_below(parent, hidden) {
                Ok(directory) => set_opaque(&directory).map_err(failed),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(error) => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        }
    }

    fn bring(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        if let Some(brought) = &mut self.brought {
            let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            brought.insert(stat.st_ino);
        }
        Ok(())
    }

    /// Sets the times of the directories, now that nothing is created in them any more.
    fn finish(mut self) -> Result<Implied> {
        for (path, times) in std::mem::take(&mut self.directories) {
            match self.tree.existing(&path) {
                Ok(directory) => fs::futimens(&*directory, &times)
                    .map_err(|error| Error::io(format!("set times of {}", quoted(&path)), error))?,
                // A later entry of the same layer put something else there.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(Error::io(format!("open directory {}", quoted(&path)), error)),
            }
        }
        Ok(Implied {
            root: !self.root,
            directories: self.tree.into_implied(),
        })
    }
}

fn set_opaque(directory: &OwnedFd) -> Result<(), Errno> {
    fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

/// Copies `length` bytes of the present member to `file` at `offset`.
fn write_range(
    file: &OwnedFd,
    mut offset: u64,
    length: u64,
    archive: &mut Archive<ChunkReader>,
) -> Result<()> {
    let end = offset + length;
    while offset < end {
        let data = archive.data()?;
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let count = rustix::io::pwrite(file, &data[..data.len().min(wanted)], offset)
            .map_err(|error| Error::io("write", error))?;
        if count == 0 {
            return Err(Error::io("write", Errno::IO));
        }
        archive.consume(count);
        offset += count as u64;
    }
    Ok(())
}
