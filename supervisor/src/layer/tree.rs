//! The directories of a target: found inside its root, made when they are missing, remembered for a while.
//!
//! A parent is looked up with one `openat2(RESOLVE_IN_ROOT)`; a symbolic link on the way leads to where it would lead
//! after a `chroot`, never out. What that cannot find, and kernels before 5.6, take [`Tree::walk`]: component by
//! component from an open directory, links expanded by hand, missing directories made.
//!
//! Refuses magic links and other file systems mounted inside the root. The last component of an entry is never looked
//! up here: whoever creates it does so without following it.

use std::{collections::HashMap, rc::Rc};

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{copy_up::Covered, metadata};

/// Directories kept open. Entries of one directory stand together in nearly every layer, so few are enough.
const REMEMBERED: usize = 64;
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;
/// Directories below one that is removed; deeper ones cannot come out of a layer.
const MAX_REMOVE_DEPTH: usize = 1024;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A target directory.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// The trees below an overlay's upper directory, topmost first: they lend their attributes to directories that
    /// an entry needs and the layer does not bring.
    lowers: Vec<OwnedFd>,
    known: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// The directories that were made because an entry needed them, by inode, with their paths.
    implied: HashMap<u64, Vec<u8>>,
    implied_bytes: u64,
}

impl Tree {
    /// The tree under `root`, which lies over `lowers`.
    pub(super) fn new(root: OwnedFd, lowers: Vec<OwnedFd>) -> Self {
        Self {
            root: Rc::new(root),
            lowers,
            known: HashMap::new(),
            implied: HashMap::new(),
            implied_bytes: 0,
        }
    }

    /// The root itself.
    pub(super) fn root(&self) -> &Rc<OwnedFd> {
        &self.root
    }

    /// Whether trees below are known.
    pub(super) fn has_lowers(&self) -> bool {
        !self.lowers.is_empty()
    }

    /// Finds the file that the trees below show at the cleaned `path`.
    pub(super) fn covered(&self, path: &[u8]) -> Result<Covered, Errno> {
        Covered::find(&self.root, &self.lowers, path)
    }

    /// Opens the directory at the cleaned `path`, making what is missing.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        match self.existing(path) {
            Err(Errno::NOENT) => {
                let mut implied = Vec::new();
                let made = Rc::new(self.walk(path, Some(&mut implied))?);
                for (inode, path) in implied {
                    self.implied_bytes += path.len() as u64;
                    self.implied.insert(inode, path);
                }
                self.remember(path, &made);
                Ok(made)
            }
            found => found,
        }
    }

    /// Opens the directory at the cleaned `path`, which must be there.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(known) = self.known.get(path) {
            return Ok(Rc::clone(known));
        }
        // Without NOFOLLOW: a link to a directory is as good as the directory, inside the root.
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let found = match fs::openat2(&*self.root, path, flags, Mode::empty(), INSIDE) {
            Err(Errno::NOSYS | Errno::AGAIN) => self.walk(path, None)?,
            found => found?,
        };
        let found = Rc::new(found);
        self.remember(path, &found);
        Ok(found)
    }

    /// Bytes of the paths of directories that no entry brought.
    pub(super) fn implied_bytes(&self) -> u64 {
        self.implied_bytes
    }

    /// Takes note that an entry brought `directory`.
    pub(super) fn brought(&mut self, directory: &OwnedFd) -> Result<(), Errno> {
        if !self.implied.is_empty() {
            self.implied.remove(&fs::fstat(directory)?.st_ino);
        }
        Ok(())
    }

    /// The directories that no entry brought, by inode, with their paths.
    pub(super) fn into_implied(self) -> HashMap<u64, Vec<u8>> {
        self.implied
    }

    /// Gives the directories of an earlier [`Tree::into_implied`], as far as they are still those, the attributes of
    /// what they cover.
    pub(super) fn inherit_all(&self, implied: &HashMap<u64, Vec<u8>>) -> Result<(), Errno> {
        for (inode, path) in implied {
            // Made by us and named by its real path: a link on the way came later and is another directory.
            let inside = INSIDE | ResolveFlags::NO_SYMLINKS;
            let directory = match fs::openat2(&*self.root, &path[..], DIRECTORY, Mode::empty(), inside) {
                Err(Errno::NOSYS | Errno::AGAIN) => self.walk(path, None),
                found => found,
            };
            match directory {
                Ok(directory) if fs::fstat(&directory)?.st_ino == *inode => self.inherit(&directory, path)?,
                // A later entry put something else there.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the root owner and mode of the one it covers.
    pub(super) fn inherit_root(&self) -> Result<(), Errno> {
        let Some(lower) = self.lowers.first() else {
            return Ok(());
        };
        let stat = fs::fstat(lower)?;
        fs::fchown(
            &*self.root,
            Some(fs::Uid::from_raw(stat.st_uid)),
            Some(fs::Gid::from_raw(stat.st_gid)),
        )?;
        fs::fchmod(&*self.root, Mode::from_raw_mode(stat.st_mode & 0o7777))
    }

    /// Keeps the directory at `path` open for the entries that follow.
    pub(super) fn remember(&mut self, path: &[u8], directory: &Rc<OwnedFd>) {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(path.to_vec(), Rc::clone(directory));
    }

    /// Removes `name` in `parent`, with everything below it. Absent is fine.
    pub(super) fn remove(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        match fs::unlinkat(parent, name, AtFlags::empty()) {
            // A link that is gone may have been part of any remembered path.
            Ok(()) => self.known.clear(),
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                self.known.clear();
                let emptied = empty(&open_below(parent, name)?, &|_| false, 0)?;
                debug_assert!(emptied, "nothing was to be kept");
                fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes what a whiteout hides: `name` in `parent` with everything below it, but for the inodes that `keep`
    /// names and the directories above those. `kept` says that `keep` names `name` itself.
    pub(super) fn remove_unless(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        kept: bool,
        keep: &dyn Fn(u64) -> bool,
    ) -> Result<(), Errno> {
        match open_below(parent, name) {
            Ok(directory) => {
                self.known.clear();
                if empty(&directory, keep, 0)? && !kept {
                    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
                }
                Ok(())
            }
            Err(Errno::NOTDIR | Errno::LOOP) if !kept => self.remove(parent, name),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes everything below `directory` but the inodes that `keep` names and the directories above those.
    pub(super) fn remove_children(
        &mut self,
        directory: &OwnedFd,
        keep: &dyn Fn(u64) -> bool,
    ) -> Result<(), Errno> {
        self.known.clear();
        empty(&open_below(directory, b".")?, keep, 0).map(|_emptied| ())
    }

    /// Walks `path` component by component; with `made`, makes what is missing and adds it there.
    fn walk(&self, path: &[u8], mut made: Option<&mut Vec<(u64, Vec<u8>)>>) -> Result<OwnedFd, Errno> {
        // Where the walk stands: the open directories from the root on, with their real names.
        let mut stack: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut pending: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(component) = pending.pop() {
            if component == b".." {
                stack.pop();
                continue;
            }
            let here = stack.last().map_or(&*self.root, |(_, directory)| directory);
            match fs::openat(here, &component[..], DIRECTORY, Mode::empty()) {
                Ok(next) => {
                    if fs::fstat(&next)?.st_dev != fs::fstat(here)?.st_dev {
                        return Err(Errno::XDEV);
                    }
                    stack.push((component, next));
                }
                Err(Errno::NOENT) if made.is_some() => {
                    fs::mkdirat(here, &component[..], Mode::from_raw_mode(0o755))?;
                    let directory = open_below(here, &component)?;
                    let mut real: Vec<&[u8]> = stack.iter().map(|(name, _)| name.as_slice()).collect();
                    real.push(&component);
                    let real = real.join(&b'/');
                    fs::fchmod(&directory, Mode::from_raw_mode(0o755))?;
                    self.inherit(&directory, &real)?;
                    if let Some(made) = &mut made {
                        made.push((fs::fstat(&directory)?.st_ino, real));
                    }
                    stack.push((component, directory));
                }
                Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
                    let stat = fs::statat(here, &component[..], AtFlags::SYMLINK_NOFOLLOW)?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                        return Err(Errno::NOTDIR);
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(if error == Errno::LOOP { error } else { Errno::LOOP });
                    }
                    let target = fs::readlinkat(here, &component[..], Vec::new())?;
                    if target.to_bytes().starts_with(b"/") {
                        stack.clear();
                    }
                    pending.extend(components(target.to_bytes()));
                }
                Err(error) => return Err(error),
            }
        }
        match stack.pop() {
            Some((_, directory)) => Ok(directory),
            None => open_below(&self.root, b"."),
        }
    }

    /// Gives a directory that had to be made the attributes of the one it covers.
    fn inherit(&self, made: &OwnedFd, path: &[u8]) -> Result<(), Errno> {
        for lower in &self.lowers {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match fs::openat2(lower, path, flags, Mode::empty(), INSIDE) {
                Ok(covered) => return metadata::copy(&covered, made),
                Err(Errno::NOENT) => {}
                // A whiteout or a file: below it there is nothing that this directory continues.
                Err(Errno::NOTDIR) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The components of a path, last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty() && *component != b".")
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

/// Opens the directory `name` in `parent`, which must not be a link.
pub(super) fn open_below(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Empties `directory` but for what `keep` names; whether nothing is left.
fn empty(directory: &OwnedFd, keep: &dyn Fn(u64) -> bool, depth: usize) -> Result<bool, Errno> {
    if depth > MAX_REMOVE_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let mut left = false;
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let emptied = empty(&open_below(directory, name)?, keep, depth + 1)?;
            if emptied && !keep(stat.st_ino) {
                fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
            } else {
                left = true;
            }
        } else if keep(stat.st_ino) {
            left = true;
        } else {
            fs::unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    Ok(!left)
}
