//! Writing the changes of a tree as a tar stream.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    os::unix::fs::FileExt as _,
};

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Stat},
    io::Errno,
};

use super::{
    attributes,
    header::{BLOCK, Body, Header},
    view,
    walk::{self, Change, Changes, Inode},
};
use crate::error::{Error, Result};

/// How much of a file is read at once.
const CHUNK: usize = 256 << 10;

/// Writes `changes`, which `tree` has, and the archive's end.
pub(super) fn write(
    tree: &OwnedFd,
    changes: &Changes,
    latest: Option<i64>,
    output: impl Write,
) -> Result<()> {
    // Inodes of which a name changed: then all names are written.
    let changed: HashSet<Inode> = changes
        .iter()
        .filter_map(|(_, change)| match change {
            Change::Changed(inode) => *inode,
            _ => None,
        })
        .collect();
    let root = view::again(tree).map_err(|error| Error::io("open the tree", error))?;
    let mut writer = Writer {
        output,
        latest,
        open: vec![(Vec::new(), root)],
        written: HashMap::new(),
        buffer: vec![0; CHUNK],
    };
    for (path, change) in changes {
        match change {
            Change::Linked(inode) if !changed.contains(inode) => Ok(()),
            Change::Removed => writer.whiteout(path),
            Change::Changed(inode) => writer.entry(path, *inode),
            Change::Linked(inode) => writer.entry(path, Some(*inode)),
        }
        .map_err(|error| error.context(format!("write /{}", String::from_utf8_lossy(path))))?;
    }
    writer.put(&[0; 2 * BLOCK])
}

struct Writer<W> {
    output: W,
    latest: Option<i64>,
    /// The directories that were written last, each in the one before: path and descriptor.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// The first name of each inode that has several.
    written: HashMap<Inode, Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.output
            .write_all(bytes)
            .map_err(|error| Error::io("write a layer", error))
    }

    fn header(&mut self, header: &Header<'_>) -> Result<()> {
        let blocks = header.encode().ok_or_else(|| {
            Error::precondition("an extended attribute has a name with `=`, which no layer can carry")
        })?;
        self.put(&blocks)
    }

    /// Goes to the directory `path`, writing those on the way that were not written yet.
    fn go(&mut self, path: &[u8]) -> Result<()> {
        let within = |directory: &[u8]| {
            directory.is_empty()
                || path
                    .strip_prefix(directory)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        while self.open.len() > 1 && !within(&self.open[self.open.len() - 1].0) {
            self.open.pop();
        }
        loop {
            let (here, directory) = self.open.last().expect("the root stays");
            if here.len() == path.len() {
                return Ok(());
            }
            let start = if here.is_empty() { 0 } else { here.len() + 1 };
            let end = path[start..]
                .iter()
                .position(|byte| *byte == b'/')
                .map_or(path.len(), |at| start + at);
            let name = &path[start..end];
            let failed = |error| Error::io(format!("open {}", String::from_utf8_lossy(name)), error);
            let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let attributes = attributes::of(directory, name).map_err(failed)?;
            let next = view::open_child(directory, name).map_err(failed)?;
            let full = [&path[..end], b"/"].concat();
            self.header(&Header {
                name: &full,
                body: Body::Directory,
                attributes: &attributes,
                ..self.common(&stat)
            })?;
            self.open.push((path[..end].to_vec(), next));
        }
    }

    fn common(&self, stat: &Stat) -> Header<'static> {
        Header {
            name: b"",
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            time: self
                .latest
                .map_or(stat.st_mtime, |latest| latest.min(stat.st_mtime)),
            body: Body::Fifo,
            attributes: &[],
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = walk::split(path);
        self.go(parent)?;
        let mut full = parent.to_vec();
        if !parent.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(b".wh.");
        full.extend_from_slice(name);
        self.header(&Header {
            name: &full,
            mode: 0,
            uid: 0,
            gid: 0,
            time: 0,
            body: Body::File(0),
            attributes: &[],
        })
    }

    fn entry(&mut self, path: &[u8], inode: Option<Inode>) -> Result<()> {
        let (parent, name) = walk::split(path);
        if name.starts_with(b".wh.") {
            return Err(Error::precondition("the name would be a whiteout"));
        }
        self.go(parent)?;
        let (_, directory) = self.open.last().expect("the root stays");
        let failed = |error: Errno| Error::io("read", error);
        let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return self.go(path);
        }
        if let Some(first) = inode.and_then(|inode| self.written.get(&inode)) {
            let body = Body::HardLink(first.clone());
            return self.header(&Header {
                name: path,
                body,
                ..self.common(&stat)
            });
        }
        let device = || (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let mut file = None;
        let (mut stat, body) = match kind {
            FileType::RegularFile => {
                let opened = walk::open_file(directory, name).map_err(failed)?;
                // What is read from now on is this one, whatever gets its name.
                let stat = fs::fstat(&opened).map_err(failed)?;
                file = Some(opened);
                (stat, Body::File(stat.st_size.cast_unsigned()))
            }
            FileType::Symlink => {
                let target = fs::readlinkat(directory, name, Vec::new()).map_err(failed)?;
                (stat, Body::Symlink(target.into_bytes()))
            }
            FileType::CharacterDevice => (stat, Body::Character(device().0, device().1)),
            FileType::BlockDevice => (stat, Body::Block(device().0, device().1)),
            FileType::Fifo => (stat, Body::Fifo),
            FileType::Socket | FileType::Directory | FileType::Unknown => {
                return Err(Error::precondition("it became something else meanwhile"));
            }
        };
        let attributes = attributes::of(directory, name).map_err(failed)?;
        if kind == FileType::Symlink {
            stat.st_mode |= 0o777;
        }
        self.header(&Header {
            name: path,
            body,
            attributes: &attributes,
            ..self.common(&stat)
        })?;
        if let Some(file) = file {
            self.content(&file, stat.st_size.cast_unsigned())?;
        }
        if let Some(inode) = inode {
            self.written.insert(inode, path.to_vec());
        }
        Ok(())
    }

    /// The bytes of a file, exactly as many as its header says.
    fn content(&mut self, file: &std::fs::File, size: u64) -> Result<()> {
        let mut offset = 0;
        while offset < size {
            // At most a chunk, so it fits.
            let wanted = (size - offset).min(CHUNK as u64) as usize;
            let read = match file.read_at(&mut self.buffer[..wanted], offset) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", error)),
                Ok(0) => return Err(Error::precondition("the file became shorter meanwhile")),
                Ok(read) => read,
            };
            self.output
                .write_all(&self.buffer[..read])
                .map_err(|error| Error::io("write a layer", error))?;
            offset += read as u64;
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.put(&[0; BLOCK][..padding as usize])
    }
}
