//! The directories that criu works in, and the one file in them that is the runtime's.
//!
//! ```text
//! <images>/               0700 when it is made here
//!   *.img                 criu's
//!   parent                criu's: a link to the checkpoint before, relative
//!   descriptors.json      0600; what 0, 1 and 2 of the first process were: ["pipe:[4711]", "/dev/null", …]
//! <work>/                 0700 when it is made here; may be the same
//!   dump.log restore.log  criu's
//! ```
//!
//! A checkpoint comes from anywhere, and criu opens what is in it by name, as root, for writing too. Refused here: everything
//! but plain files, directories and sockets, and a `parent` that is not relative; the checkpoints before it are held to the same.
//! What a directory was before somebody else changes it at the same time is not known: it has to be nobody else's.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat};

use super::Error as Refused;
use super::service::c_path;
use crate::Error;

/// What the standard streams of the first process were.
const DESCRIPTORS: &str = "descriptors.json";
/// Three names, each with room for a path.
const MAX_DESCRIPTORS_BYTES: u64 = 64 << 10;
/// What criu calls the link to the checkpoint before.
const PARENT: &str = "parent";
/// How many checkpoints may be one before the other.
const MAX_PARENTS: usize = 64;
/// What criu writes to the work directory under names of its own.
const STATISTICS: [&str; 2] = ["stats-dump", "stats-restore"];

/// A directory that criu is given.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens it; with `make` it is made, with those above it.
    pub(super) fn open(path: &Path, make: bool) -> Result<Self, Error> {
        let what = |operation: &str| format!("{operation} {}", path.display());
        if make {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| Error::io(what("mkdir"), error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let fd = opened.map_err(|errno| Error::io(what("open"), errno))?;
        let fd = crate::sys::fd::above_streams(fd).map_err(|errno| Error::io(what("open"), errno))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> Result<CString, Error> {
        let path = std::path::absolute(&self.path);
        let path = path.map_err(|error| Error::io(format!("find {}", self.path.display()), error))?;
        c_path(&path)
    }

    /// Refuses images that criu could not safely be let at.
    pub(super) fn check_images(&self) -> Result<(), Error> {
        let mut earlier = self.check_entries()?;
        for _ in 0..MAX_PARENTS {
            match earlier {
                None => return Ok(()),
                Some(directory) => earlier = directory.check_entries()?,
            }
        }
        Err(self.refused(PARENT, "there are too many checkpoints before this one"))
    }

    /// Refuses a work directory in which a name of criu's is taken by something else.
    pub(super) fn check_work(&self, log: &str) -> Result<(), Error> {
        for name in STATISTICS.into_iter().chain([log]) {
            match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => {}
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
                Ok(_) => return Err(self.refused(name, "is there, and is no plain file")),
                Err(errno) => {
                    return Err(Error::io(
                        format!("stat {}", self.path.join(name).display()),
                        errno,
                    ));
                }
            }
        }
        Ok(())
    }

    /// Answers the checkpoint before this one, if there is one.
    fn check_entries(&self) -> Result<Option<Self>, Error> {
        let what = || format!("read {}", self.path.display());
        let mut earlier = None;
        let entries = Dir::read_from(&self.fd).map_err(|errno| Error::io(what(), errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| Error::io(what(), errno))?;
            let name = entry.file_name();
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
                kind = FileType::from_raw_mode(stat.map_err(|errno| Error::io(what(), errno))?.st_mode);
            }
            match kind {
                FileType::RegularFile | FileType::Directory | FileType::Socket => {}
                FileType::Symlink if name.to_bytes() == PARENT.as_bytes() => earlier = Some(self.parent()?),
                _ => {
                    let name = name.to_string_lossy();
                    return Err(self.refused(&name, "is no plain file: a checkpoint has nothing else"));
                }
            }
        }
        Ok(earlier)
    }

    fn parent(&self) -> Result<Self, Error> {
        let path = self.path.join(PARENT);
        let what = |operation: &str| format!("{operation} {}", path.display());
        let says = rustix::fs::readlinkat(&self.fd, PARENT, Vec::new());
        let says = says.map_err(|errno| Error::io(what("read"), errno))?;
        if Path::new(std::ffi::OsStr::from_bytes(says.as_bytes())).is_absolute() {
            return Err(self.refused(PARENT, "leads to an absolute path"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&self.fd, PARENT, flags, Mode::empty());
        Ok(Self {
            fd: fd.map_err(|errno| Error::io(what("open"), errno))?,
            path,
        })
    }

    fn refused(&self, name: &str, problem: &str) -> Error {
        Refused::Images {
            path: self.path.join(name),
            problem: problem.to_owned(),
        }
        .into()
    }

    /// Writes down what the streams of the first process are.
    pub(super) fn write_descriptors(&self, descriptors: &[String]) -> Result<(), Error> {
        let what = || format!("write {}", self.path.join(DESCRIPTORS).display());
        let text =
            serde_json::to_vec(descriptors).map_err(|error| Error::io(what(), io::Error::from(error)))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, DESCRIPTORS, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|errno| Error::io(what(), errno))?);
        file.write_all(&text).map_err(|error| Error::io(what(), error))
    }

    /// The pipes among the streams of the process that was saved, with their numbers.
    pub(super) fn read_pipes(&self) -> Result<Vec<(String, i32)>, Error> {
        let what = || format!("read {}", self.path.join(DESCRIPTORS).display());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.fd, DESCRIPTORS, flags, Mode::empty());
        let file = File::from(file.map_err(|errno| Error::io(what(), errno))?);
        let mut text = Vec::new();
        let read = file.take(MAX_DESCRIPTORS_BYTES + 1).read_to_end(&mut text);
        read.map_err(|error| Error::io(what(), error))?;
        if text.len() as u64 > MAX_DESCRIPTORS_BYTES {
            return Err(self.refused(DESCRIPTORS, "is longer than 64 KiB"));
        }
        pipes(&text).map_err(|problem| self.refused(DESCRIPTORS, &problem))
    }

    /// Where criu's log is.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::path::absolute(&path).unwrap_or(path)
    }

    /// What a log tells about errors; nothing if it cannot be read: criu may have been told to write another one.
    pub(super) fn excerpt(&self, name: &str) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(log) => excerpt(File::from(log)),
            Err(_) => Vec::new(),
        }
    }
}

/// Whether a parent's path is one that criu may be told of.
pub(super) fn check_parent(images: &Path, parent: &Path) -> Result<(), Error> {
    if parent.is_absolute() {
        return Err(Error::Invalid("--parent-path must be relative".into()));
    }
    let path = images.join(parent);
    let problem = match fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "not a directory".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        Err(error) => error.to_string(),
    };
    let path = lexical(&path);
    Err(Error::Invalid(format!(
        "invalid --parent-path: stat {}: {problem}",
        path.display()
    )))
}

/// For messages: without `.` and, where that is plain, without `..`.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if clean.file_name().is_some() => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    clean
}

/// The pipes in a list of the names that descriptors have in `/proc/PID/fd`. Only 0, 1 and 2 are ever given.
fn pipes(text: &[u8]) -> Result<Vec<(String, i32)>, String> {
    // `null` is what runc writes when it knows of none.
    let names: Option<Vec<String>> =
        serde_json::from_slice(text).map_err(|error| format!("is no list: {error}"))?;
    let mut pipes = Vec::new();
    for (number, name) in (0..3).zip(names.unwrap_or_default()) {
        if !name.contains("pipe:") {
            continue;
        }
        // It becomes a name that criu looks up among those of the images.
        let inode = name
            .strip_prefix("pipe:[")
            .and_then(|rest| rest.strip_suffix(']'));
        if inode.is_none_or(|inode| inode.is_empty() || !inode.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(format!("{name:?} is no pipe's name"));
        }
        pipes.push((name, number));
    }
    Ok(pipes)
}

/// The lines with errors, each with its number and those just before it, as much as people read.
fn excerpt(log: impl io::Read) -> Vec<String> {
    const CONTEXT: usize = 5;
    const MAX_LINES: usize = 60;
    const MAX_LINE_BYTES: u64 = 1024;
    const MAX_LOG_BYTES: u64 = 64 << 20;
    let mut log = BufReader::new(log.take(MAX_LOG_BYTES));
    let mut quoted: Vec<String> = Vec::new();
    let mut before: Vec<(usize, String)> = Vec::with_capacity(CONTEXT + 1);
    let mut last = 0;
    for number in 1.. {
        let mut line = Vec::new();
        match (&mut log).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if !line.ends_with(b"\n") && log.skip_until(b'\n').is_err() {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end().replace(char::is_control, " ");
        let is_error = text.contains("Error");
        before.push((number, text));
        if is_error {
            let first = before.first().map_or(number, |(first, _)| *first);
            if last != 0 && first > last + 1 {
                quoted.push("...".into());
            }
            quoted.extend(before.drain(..).map(|(number, text)| format!("{number}:{text}")));
            last = number;
            if quoted.len() >= MAX_LINES {
                break;
            }
        } else if before.len() > CONTEXT {
            before.remove(0);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn opened(path: &Path) -> Directory {
        Directory::open(path, false).unwrap()
    }

    #[test]
    fn a_directory_that_is_made_is_nobody_elses() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        assert!(Directory::open(&path, false).is_err());
        Directory::open(&path, true).unwrap();
        Directory::open(&path, true).unwrap();
        for path in [&path, &home.path().join("a")] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn images_are_plain_files() {
        let home = tempfile::tempdir().unwrap();
        let images = home.path().join("images");
        fs::create_dir(&images).unwrap();
        fs::write(images.join("core-1.img"), "").unwrap();
        fs::create_dir(images.join("more")).unwrap();
        opened(&images).check_images().unwrap();
        let log = images.join("restore.log");
        symlink("/etc/passwd", &log).unwrap();
        let error = opened(&images).check_images().unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "{}: is no plain file: a checkpoint has nothing else",
                log.display()
            )
        );
        fs::remove_file(&log).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            images.join("pages-1.img"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(opened(&images).check_images().is_err());
    }

    #[test]
    fn the_checkpoints_before_are_held_to_the_same() {
        let home = tempfile::tempdir().unwrap();
        let (first, second) = (home.path().join("first"), home.path().join("second"));
        fs::create_dir(&first).unwrap();
        fs::create_dir(&second).unwrap();
        let link = second.join(PARENT);
        symlink("../first", &link).unwrap();
        opened(&second).check_images().unwrap();
        symlink("/", first.join("x.img")).unwrap();
        assert!(opened(&second).check_images().is_err());
        fs::remove_file(first.join("x.img")).unwrap();
        symlink("../second", first.join(PARENT)).unwrap();
        let error = opened(&second).check_images().unwrap_err().to_string();
        assert!(error.ends_with("too many checkpoints before this one"), "{error}");
        fs::remove_file(&link).unwrap();
        symlink(&first, &link).unwrap();
        let error = opened(&second).check_images().unwrap_err().to_string();
        assert!(error.ends_with("leads to an absolute path"), "{error}");
    }

    #[test]
    fn criu_s_log_goes_to_a_plain_file() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("dump.log"), "").unwrap();
        symlink("/etc/passwd", home.path().join("elsewhere")).unwrap();
        opened(home.path()).check_work("dump.log").unwrap();
        symlink("/etc/passwd", home.path().join("restore.log")).unwrap();
        assert!(opened(home.path()).check_work("restore.log").is_err());
        opened(home.path()).check_work("dump.log").unwrap();
        symlink("/etc/passwd", home.path().join("stats-dump")).unwrap();
        assert!(opened(home.path()).check_work("dump.log").is_err());
    }

    #[test]
    fn a_parent_is_a_directory_relative_to_the_images() {
        let home = tempfile::tempdir().unwrap();
        let images = home.path().join("images");
        fs::create_dir_all(&images).unwrap();
        fs::create_dir(home.path().join("before")).unwrap();
        check_parent(&images, Path::new("../before")).unwrap();
        let of = |parent: &Path| check_parent(&images, parent).unwrap_err().to_string();
        assert_eq!(of(home.path()), "--parent-path must be relative");
        assert_eq!(
            of(Path::new("./none")),
            format!(
                "invalid --parent-path: stat {}/none: no such file or directory",
                images.display()
            )
        );
        fs::write(home.path().join("file"), "").unwrap();
        assert!(of(Path::new("../file")).ends_with("/file: not a directory"));
    }

    #[test]
    fn descriptors_are_written_and_read() {
        let home = tempfile::tempdir().unwrap();
        let directory = opened(home.path());
        assert!(directory.read_pipes().is_err());
        let names = ["pipe:[12]", "/dev/null", "pipe:[13]"].map(str::to_owned);
        directory.write_descriptors(&names).unwrap();
        let path = home.path().join(DESCRIPTORS);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            r#"["pipe:[12]","/dev/null","pipe:[13]"]"#
        );
        let pipes = directory.read_pipes().unwrap();
        assert_eq!(pipes, [("pipe:[12]".to_owned(), 0), ("pipe:[13]".to_owned(), 2)]);
        fs::remove_file(&path).unwrap();
        symlink("/etc/hostname", &path).unwrap();
        assert!(directory.read_pipes().is_err());
        assert!(directory.write_descriptors(&names).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, " ".repeat(MAX_DESCRIPTORS_BYTES as usize + 1)).unwrap();
        let error = directory.read_pipes().unwrap_err().to_string();
        assert!(error.ends_with("is longer than 64 KiB"), "{error}");
    }

    #[test]
    fn only_pipes_by_their_own_name_are_given() {
        for bad in [
            r#"["file:pipe:[1]"]"#,
            r#"["pipe:[]"]"#,
            r#"["pipe:[1]x"]"#,
            r#"["pipe:[-1]"]"#,
            r#"{"0": "pipe:[1]"}"#,
            "[1]",
            "",
        ] {
            assert!(pipes(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(pipes(b"[]"), Ok(vec![]));
        assert_eq!(pipes(b"null"), Ok(vec![]));
        let four = pipes(br#"["/dev/pts/0","","socket:[3]","pipe:[9]"]"#).unwrap();
        assert!(four.is_empty(), "{four:?}");
    }

    #[test]
    fn errors_are_quoted_with_what_led_to_them() {
        let mut log = String::new();
        for number in 1..=30 {
            log += &match number {
                9 | 11 | 25 => format!("Error ({number})\u{1b}[0m\n"),
                _ => format!("line {number}\n"),
            };
        }
        let quoted = excerpt(log.as_bytes());
        assert_eq!(
            quoted,
            [
                "4:line 4",
                "5:line 5",
                "6:line 6",
                "7:line 7",
                "8:line 8",
                "9:Error (9) [0m",
                "10:line 10",
                "11:Error (11) [0m",
                "...",
                "20:line 20",
                "21:line 21",
                "22:line 22",
                "23:line 23",
                "24:line 24",
                "25:Error (25) [0m",
            ]
        );
        let long = format!("Error {}\nmore\n", "x".repeat(5000));
        let quoted = excerpt(long.as_bytes());
        assert_eq!(quoted.len(), 1);
        assert!(quoted[0].len() < 1100);
        let many = "Error\n".repeat(100_000);
        assert_eq!(excerpt(many.as_bytes()).len(), 60);
        assert!(excerpt(&b""[..]).is_empty());
    }
}
