//! Opening paths, in the child half: `openat2`, and where the kernel has none of it (before 5.6) a walk by hand.
//!
//! The walk opens one component at a time below the last one, never through a symbolic link and never with `..`, so it
//! cannot leave its root, whatever is renamed meanwhile. Links are read and walked from the root; for `..` the walk
//! starts again at the root, along the directories it came through. The same walk makes what is missing,
//! also at the far end of a dangling link: no call of the kernel does that beneath a root.

use std::ffi::CStr;

use crate::sys::fs::{self, Resolve};
use crate::sys::{Errno, Fd};

/// What is made when nothing is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Directory,
    File,
}

const DIRECTORY_MODE: u32 = 0o755;
/// An empty file that will be covered.
const FILE_MODE: u32 = libc::S_IFREG | 0o644;

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;
/// How often a name may vanish between two calls; more means that somebody races on purpose.
const MAX_RACES: u32 = 128;

/// The longest directory for which there is a short way.
const ABOVE_MAX: usize = 256;
const PATH_MAX: usize = libc::PATH_MAX as usize;
const NAME_MAX: usize = 255;

/// Opens `path` below `directory`, close-on-exec.
pub(crate) fn open(directory: Fd, path: &CStr, flags: libc::c_int, resolve: Resolve) -> Result<Fd, Errno> {
    match fs::openat2(directory, path, flags, 0, resolve) {
        Err(errno) if errno.number() == libc::ENOSYS => {}
        answer => return answer,
    }
    match resolve {
        Resolve::Host => fs::openat(directory, path, flags),
        Resolve::InRoot => Walk::new(directory, path, true)?.open(flags),
        Resolve::InRootNoSymlinks | Resolve::Beneath => Walk::new(directory, path, false)?.open(flags),
    }
}

/// Opens (`O_PATH`) `path` beneath `root`; what is missing is made, the directories on the way too.
pub(crate) fn open_or_make(root: Fd, path: &CStr, kind: Kind, resolve: Resolve) -> Result<Fd, Errno> {
    match fs::openat2(root, path, libc::O_PATH, 0, resolve) {
        Err(errno) if [libc::ENOENT, libc::ENOSYS].contains(&errno.number()) => {}
        answer => return answer,
    }
    make(root, path, kind, resolve)
}

/// Opens (`O_PATH`) `path` beneath `root`, which was not there a moment ago: what is missing is made.
pub(crate) fn make(root: Fd, path: &CStr, kind: Kind, resolve: Resolve) -> Result<Fd, Errno> {
    if let Some(made) = make_last(root, path, kind, resolve) {
        return Ok(made);
    }
    Walk::new(root, path, resolve == Resolve::InRoot)?.run(libc::O_PATH, Some(kind))
}

/// Makes the last component where that is all that is missing, in as few calls as can be; nothing where it is not. What
/// was made is opened as what it is: another thing that somebody puts in its place is left to the walk.
fn make_last(root: Fd, path: &CStr, kind: Kind, resolve: Resolve) -> Option<Fd> {
    let bytes = path.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|byte| *byte == b'/')?;
    let (above, last) = (bytes.get(..slash)?, bytes.get(slash + 1..)?);
    let mut buffer = [0; ABOVE_MAX];
    buffer
        .get_mut(..slash)
        .filter(|_| slash > 0 && slash < ABOVE_MAX)?
        .copy_from_slice(above);
    let above = CStr::from_bytes_until_nul(&buffer).ok()?;
    let name = CStr::from_bytes_with_nul(last).ok()?;
    if [&b""[..], b".", b".."].contains(&name.to_bytes()) {
        return None;
    }
    let directory = fs::openat2(root, above, libc::O_PATH | libc::O_DIRECTORY, 0, resolve).ok()?;
    let made = match kind {
        Kind::Directory => fs::mkdirat(directory, name, DIRECTORY_MODE),
        Kind::File => fs::mknodat(directory, name, FILE_MODE, 0),
    };
    let opened = made.and_then(|()| fs::openat2(directory, name, libc::O_PATH, 0, Resolve::InRootNoSymlinks));
    directory.close();
    opened.ok()
}

/// A path on its way.
struct Walk {
    root: Fd,
    /// The directory reached so far; `root`, or owned.
    here: Fd,
    /// The names from the root to `here`, with a slash after each.
    past: [u8; PATH_MAX],
    past_length: usize,
    /// What is still to be walked: the bytes from here to the end of the buffer.
    ahead: [u8; PATH_MAX],
    ahead_start: usize,
    follow: bool,
    links: u32,
}

impl Walk {
    fn new(root: Fd, path: &CStr, follow: bool) -> Result<Self, Errno> {
        let mut walk = Self {
            root,
            here: root,
            past: [0; PATH_MAX],
            past_length: 0,
            ahead: [0; PATH_MAX],
            ahead_start: PATH_MAX,
            follow,
            links: 0,
        };
        walk.prepend(path.to_bytes())?;
        Ok(walk)
    }

    fn open(self, flags: libc::c_int) -> Result<Fd, Errno> {
        self.run(flags, None)
    }

    fn run(mut self, flags: libc::c_int, make: Option<Kind>) -> Result<Fd, Errno> {
        let result = self.walk(flags, make);
        self.leave();
        result
    }

    fn walk(&mut self, flags: libc::c_int, make: Option<Kind>) -> Result<Fd, Errno> {
        let mut races = 0;
        loop {
            let mut name = Name::new();
            let is_last = match self.next(&mut name)? {
                // The path ended with `..` or was empty: the directory itself.
                None => return fs::openat(self.here, c".", flags & !libc::O_NOFOLLOW),
                Some(is_last) => is_last,
            };
            let found = match fs::openat(self.here, name.text()?, libc::O_PATH | libc::O_NOFOLLOW) {
                Err(errno) if errno.number() == libc::ENOENT && make.is_some() => {
                    races += 1;
                    if races > MAX_RACES {
                        return Err(errno);
                    }
                    let kind = make.filter(|_| is_last).unwrap_or(Kind::Directory);
                    make_one(self.here, name.text()?, kind)?;
                    self.put_back(&name);
                    continue;
                }
                answer => answer?,
            };
            let stat = match fs::stat(found, c"") {
                Ok(stat) => stat,
                Err(errno) => {
                    found.close();
                    return Err(errno);
                }
            };
            if stat.is_link() {
                let followed = self.follow_link(found);
                found.close();
                followed?;
            } else if is_last {
                return self.finish(found, &name, flags, stat.is_directory());
            } else if stat.is_directory() {
                self.enter(found, &name)?;
            } else {
                found.close();
                return Err(Errno::new(libc::ENOTDIR));
            }
        }
    }

    /// Opens the last component, which is no link, the way that was asked for.
    fn finish(
        &mut self,
        found: Fd,
        name: &Name,
        flags: libc::c_int,
        is_directory: bool,
    ) -> Result<Fd, Errno> {
        if flags & libc::O_DIRECTORY != 0 && !is_directory {
            found.close();
            return Err(Errno::new(libc::ENOTDIR));
        }
        if flags & libc::O_PATH != 0 {
            return Ok(found);
        }
        found.close();
        fs::openat(self.here, name.text()?, flags | libc::O_NOFOLLOW)
    }

    /// Takes the next name off the path; whether it is the last one. Nothing at the end.
    fn next(&mut self, name: &mut Name) -> Result<Option<bool>, Errno> {
        loop {
            let ahead = self.ahead.get(self.ahead_start..).unwrap_or_default();
            let slashes = ahead.iter().take_while(|byte| **byte == b'/').count();
            let rest = ahead.get(slashes..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(None);
            }
            let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let component = rest.get(..length).unwrap_or_default();
            let is_last = rest.iter().skip(length).all(|byte| *byte == b'/');
            name.set(component)?;
            self.ahead_start += slashes + length;
            match name.bytes() {
                b"." => {}
                b".." => self.go_up()?,
                _ => return Ok(Some(is_last)),
            }
        }
    }

    fn put_back(&mut self, name: &Name) {
        // The name is where it was taken from: in front of what is ahead.
        self.ahead_start -= name.bytes().len();
    }

    fn prepend(&mut self, text: &[u8]) -> Result<(), Errno> {
        // A slash behind it, unless nothing follows.
        let slash = usize::from(self.ahead_start < PATH_MAX);
        let start = self.ahead_start.checked_sub(text.len() + slash);
        let too_long = Errno::new(libc::ENAMETOOLONG);
        let start = start.ok_or(too_long)?;
        let place = self.ahead.get_mut(start..start + text.len()).ok_or(too_long)?;
        place.copy_from_slice(text);
        if let Some(behind) = self.ahead.get_mut(start + text.len()).filter(|_| slash == 1) {
            *behind = b'/';
        }
        self.ahead_start = start;
        Ok(())
    }

    fn follow_link(&mut self, link: Fd) -> Result<(), Errno> {
        self.links += 1;
        if !self.follow || self.links > MAX_LINKS {
            return Err(Errno::new(libc::ELOOP));
        }
        let mut buffer = [0; PATH_MAX];
        let length = fs::read_link(link, &mut buffer)?;
        let text = buffer
            .get(..length)
            .filter(|text| !text.is_empty() && text.len() < PATH_MAX)
            .ok_or(Errno::new(libc::ENOENT))?;
        if text.starts_with(b"/") {
            // There only the magic ones say where they are from the root on: they lead to what a process has open.
            if fs::filesystem(link)? == libc::PROC_SUPER_MAGIC {
                return Err(Errno::new(libc::ELOOP));
            }
            self.leave();
        }
        self.prepend(text)
    }

    fn enter(&mut self, directory: Fd, name: &Name) -> Result<(), Errno> {
        let end = self.past_length + name.bytes().len();
        let Some(place) = self.past.get_mut(self.past_length..=end) else {
            directory.close();
            return Err(Errno::new(libc::ENAMETOOLONG));
        };
        let (text, slash) = place.split_at_mut(name.bytes().len());
        text.copy_from_slice(name.bytes());
        slash.fill(b'/');
        self.past_length = end + 1;
        self.step_to(directory);
        Ok(())
    }

    /// To the directory above, from the root: what is above `here` by now may be outside.
    fn go_up(&mut self) -> Result<(), Errno> {
        let past = self.past.get(..self.past_length).unwrap_or_default();
        let above = past.split_last().map_or(0, |(_, without_slash)| {
            let slash = without_slash.iter().rposition(|byte| *byte == b'/');
            slash.map_or(0, |slash| slash + 1)
        });
        self.past_length = above;
        self.step_to(self.root);
        let mut done = 0;
        while done < above {
            let rest = self.past.get(done..above).unwrap_or_default();
            let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let mut name = Name::new();
            name.set(rest.get(..length).unwrap_or_default())?;
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let next = fs::openat(self.here, name.text()?, flags)?;
            self.step_to(next);
            done += length + 1;
        }
        Ok(())
    }

    /// Back to the root.
    fn leave(&mut self) {
        self.past_length = 0;
        self.step_to(self.root);
    }

    fn step_to(&mut self, directory: Fd) {
        if self.here != self.root {
            self.here.close();
        }
        self.here = directory;
    }
}

/// Makes what is missing. Somebody else may have made it meanwhile: what it is, is seen when it is opened.
fn make_one(directory: Fd, name: &CStr, kind: Kind) -> Result<(), Errno> {
    let made = match kind {
        Kind::Directory => fs::mkdirat(directory, name, DIRECTORY_MODE),
        Kind::File => fs::mknodat(directory, name, FILE_MODE, 0),
    };
    match made {
        Err(errno) if errno.number() == libc::EEXIST => Ok(()),
        answer => answer,
    }
}

/// One component as a C string.
struct Name {
    bytes: [u8; NAME_MAX + 1],
    length: usize,
}

impl Name {
    fn new() -> Self {
        Self {
            bytes: [0; NAME_MAX + 1],
            length: 0,
        }
    }

    fn set(&mut self, text: &[u8]) -> Result<(), Errno> {
        let too_long = Errno::new(libc::ENAMETOOLONG);
        if text.len() > NAME_MAX {
            return Err(too_long);
        }
        self.bytes.fill(0);
        self.bytes
            .get_mut(..text.len())
            .ok_or(too_long)?
            .copy_from_slice(text);
        self.length = text.len();
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn text(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::new(libc::EINVAL))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{File, create_dir_all, read_link, read_to_string, write};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    use super::*;

    /// A root with a secret beside it, and links that try to reach it.
    fn root() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        create_dir_all(root.join("a/b/c")).unwrap();
        write(root.join("a/b/file"), "inside").unwrap();
        write(directory.path().join("secret"), "outside").unwrap();
        for (link, text) in [
            ("up", "../../../secret"),
            ("absolute", "/a/b/file"),
            ("a/back", "../a/b"),
            ("a/b/c/out", "../../../../secret"),
            ("host", "/proc/self/root/etc/passwd"),
            ("loop", "loop2"),
            ("loop2", "loop"),
            ("dangling", "/made/by/link"),
            ("chain", "dangling/and/more"),
            ("a/relative", "../x/../y"),
        ] {
            symlink(text, root.join(link)).unwrap();
        }
        let opened = File::open(root).unwrap();
        (directory, opened)
    }

    fn walk(root: &File, path: &str, flags: i32, make: Option<Kind>, follow: bool) -> Result<PathBuf, i32> {
        let path = CString::new(path).unwrap();
        let root = Fd::at(root.as_raw_fd());
        let walked = Walk::new(root, &path, follow).and_then(|walk| walk.run(flags, make));
        let fd = walked.map_err(Errno::number)?;
        let place = read_link(format!("/proc/self/fd/{}", fd.number())).unwrap();
        fd.close();
        Ok(place)
    }

    fn below(root: &File) -> PathBuf {
        read_link(format!("/proc/self/fd/{}", root.as_raw_fd())).unwrap()
    }

    #[test]
    fn a_walk_ends_where_the_kernel_s_would() {
        let (_directory, root) = root();
        let base = below(&root);
        for (path, place) in [
            ("a/b/file", "a/b/file"),
            ("/a//b/./c/", "a/b/c"),
            ("absolute", "a/b/file"),
            ("a/back/file", "a/b/file"),
            ("a/b/c/../../b/file", "a/b/file"),
            ("../../a", "a"),
            ("a/..", ""),
            (".", ""),
        ] {
            let expected = base.join(place);
            let expected = expected.components().as_path();
            assert_eq!(
                walk(&root, path, libc::O_PATH, None, true).as_deref(),
                Ok(expected),
                "{path}"
            );
            let path = CString::new(path).unwrap();
            let directory = Fd::at(root.as_raw_fd());
            // The kernel agrees, where it can be asked.
            match fs::openat2(directory, &path, libc::O_PATH, 0, Resolve::InRoot) {
                Ok(fd) => {
                    let place = read_link(format!("/proc/self/fd/{}", fd.number())).unwrap();
                    assert_eq!(place, expected);
                    fd.close();
                }
                Err(errno) => assert_eq!(errno.number(), libc::ENOSYS),
            }
        }
    }

    #[test]
    fn no_link_leads_out() {
        let (_directory, root) = root();
        for path in ["up", "a/b/c/out", "host", "a/../../secret"] {
            assert_eq!(
                walk(&root, path, libc::O_PATH, None, true),
                Err(libc::ENOENT),
                "{path}"
            );
        }
        assert_eq!(walk(&root, "loop", libc::O_PATH, None, true), Err(libc::ELOOP));
        for path in ["absolute", "a/back/file"] {
            assert_eq!(
                walk(&root, path, libc::O_PATH, None, false),
                Err(libc::ELOOP),
                "{path}"
            );
        }
        let through = walk(&root, "a/b/file/x", libc::O_PATH, None, true);
        assert_eq!(through, Err(libc::ENOTDIR));
        let directory = libc::O_PATH | libc::O_DIRECTORY;
        assert_eq!(walk(&root, "a/b/file", directory, None, true), Err(libc::ENOTDIR));
        assert_eq!(
            walk(&root, &"n".repeat(256), libc::O_PATH, None, true),
            Err(libc::ENAMETOOLONG)
        );
    }

    #[test]
    fn a_magic_link_leads_nowhere() {
        let proc = File::open("/proc").unwrap();
        for path in ["self/root/etc", "self/cwd", "thread-self/fd/0/..", "1/exe"] {
            let refused = walk(&proc, path, libc::O_PATH, None, true).unwrap_err();
            assert!(
                [libc::ELOOP, libc::ENOENT, libc::EACCES].contains(&refused),
                "{path}: {refused}"
            );
        }
        assert!(walk(&proc, "self/status", libc::O_PATH, None, true).is_ok());
        assert!(walk(&proc, "mounts", libc::O_PATH, None, true).is_ok());
    }

    #[test]
    fn what_is_missing_is_made_beneath_the_root_only() {
        let (directory, root) = root();
        let base = below(&root);
        let make = |path: &str, kind| walk(&root, path, libc::O_PATH, Some(kind), true);
        assert_eq!(
            make("new/deep/dir", Kind::Directory),
            Ok(base.join("new/deep/dir"))
        );
        assert_eq!(make("new/file", Kind::File), Ok(base.join("new/file")));
        assert_eq!(make("chain", Kind::File), Ok(base.join("made/by/link/and/more")));
        assert_eq!(make("dangling", Kind::Directory), Ok(base.join("made/by/link")));
        assert_eq!(make("a/relative", Kind::File), Ok(base.join("y")));
        assert_eq!(make("up", Kind::File), Ok(base.join("secret")));
        assert_eq!(
            read_to_string(directory.path().join("secret")).unwrap(),
            "outside"
        );
        assert!(base.join("made/by/link/and/more").is_file());
        assert!(Path::new(&base.join("x")).is_dir());
    }

    #[test]
    fn a_file_is_opened_for_what_was_asked() {
        let (_directory, root) = root();
        let path = walk(&root, "absolute", libc::O_RDONLY, None, true);
        assert_eq!(path, Ok(below(&root).join("a/b/file")));
    }
}
