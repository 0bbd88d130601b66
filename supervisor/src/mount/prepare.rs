//! What mounts ask to be made first: directories (`mkdir/…`) and files with an empty filesystem (`mkfs/…`).
//!
//! Both lie below the daemon's own directories, and are reached from there without following a link out of them; what lies
//! elsewhere is refused. A filesystem is made in a file without a name, which gets its name when it is whole: a crash
//! leaves nothing, and a file that is there is taken as it is.

use std::{
    fs::File,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fd::{AsRawFd as _, OwnedFd},
    fs::{self, AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};

use super::Mount;
use crate::error::{Error, Result};

/// Options that begin like this are for here, and go.
const MKDIR: &str = "X-containerd.mkdir.";
const MKFS: &str = "X-containerd.mkfs.";

/// The longest that is told of what a program says.
const MAX_WORDS: usize = 1024;

/// Makes the directories that the options name: `X-containerd.mkdir.path=PATH[:MODE[:UID:GID]]`, by default 0700 and root's.
///
/// # Errors
///
/// `InvalidArgument` for a bad option; `Unimplemented` for a path outside `roots`; `Unknown` from the disk.
pub fn directories(mount: &mut Mount, roots: &[PathBuf]) -> Result<()> {
    let (ours, rest) = split(&mount.options, MKDIR);
    for option in ours {
        Directory::parse(option)?.make(roots)?;
    }
    mount.options = rest;
    Ok(())
}

/// Makes the file that is the mount's source, unless it is there: `X-containerd.mkfs.size=SIZE`, and optionally `.fs=` one
/// of `ext2`, `ext3`, `ext4` (the default) and `xfs`, and `.uuid=`. Blocks for the program that makes it.
///
/// # Errors
///
/// `InvalidArgument` for a bad option; `Unimplemented` for a source outside `roots`; `Unknown` from the program or the disk.
pub fn filesystem(mount: &mut Mount, roots: &[PathBuf]) -> Result<()> {
    let place = Place::open(&mount.source, roots, "mkfs")?;
    let (ours, rest) = split(&mount.options, MKFS);
    let wanted = Filesystem::parse(&ours)?;
    mount.options = rest;
    match fs::statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => wanted.make(&place),
        Err(error) => Err(Error::io(format!("stat {}", mount.source), error)),
    }
}

/// The options that begin with `prefix`, without it, and the others.
fn split<'a>(options: &'a [String], prefix: &str) -> (Vec<&'a str>, Vec<String>) {
    let mut ours = Vec::new();
    let mut rest = Vec::new();
    for option in options {
        match option.strip_prefix(prefix) {
            Some(option) => ours.push(option),
            None => rest.push(option.clone()),
        }
    }
    (ours, rest)
}

/// A name in a directory below one of the roots.
#[derive(Debug)]
struct Place {
    path: String,
    parent: OwnedFd,
    name: String,
}

impl Place {
    fn open(path: &str, roots: &[PathBuf], what: &str) -> Result<Self> {
        let outside = || Error::unimplemented(format!("no root {path:?} configured for {what}"));
        let (root, below) = roots
            .iter()
            .find_map(|root| Some((root, Path::new(path).strip_prefix(root).ok()?)))
            .ok_or_else(outside)?;
        let name = below
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(outside)?;
        let parent = below
            .parent()
            .filter(|parent| *parent != Path::new(""))
            .unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |error| Error::io(format!("open the directory of {path}"), error);
        let root = fs::open(root, flags, Mode::empty()).map_err(failed)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let parent = fs::openat2(&root, parent, flags, Mode::empty(), resolve).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            parent,
            name: name.to_owned(),
        })
    }
}

/// A directory to be made.
#[derive(Debug, PartialEq, Eq)]
struct Directory<'a> {
    path: &'a str,
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl<'a> Directory<'a> {
    fn parse(option: &'a str) -> Result<Self> {
        let invalid = || Error::invalid(format!("mkdir option {option:?}"));
        let value = option.strip_prefix("path=").ok_or_else(invalid)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| invalid());
        let (path, mode, owner) = match value.splitn(4, ':').collect::<Vec<_>>()[..] {
            [path] => (path, None, None),
            [path, mode] => (path, Some(mode), None),
            [path, mode, uid, gid] => (path, Some(mode), Some((number(uid)?, number(gid)?))),
            _ => return Err(invalid()),
        };
        let mode = match mode {
            None => 0o700,
            Some(mode) => u32::from_str_radix(mode, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(invalid)?,
        };
        Ok(Self { path, mode, owner })
    }

    fn make(&self, roots: &[PathBuf]) -> Result<()> {
        let failed = |error: std::io::Error| Error::io(format!("make directory {}", self.path), error);
        let place = Place::open(self.path, roots, "mkdir")?;
        let is_new = match fs::mkdirat(&place.parent, &place.name, Mode::from_raw_mode(self.mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error.into())),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(&place.parent, &place.name, flags, Mode::empty());
        let directory = File::from(opened.map_err(|error| failed(error.into()))?);
        let found = directory.metadata().map_err(failed)?;
        // The owner first: a change of it would take the mode's special bits away.
        if let Some((uid, gid)) = self.owner.filter(|owner| *owner != (found.uid(), found.gid())) {
            fs::fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|error| failed(error.into()))?;
        }
        if is_new || found.mode() & 0o777 != self.mode {
            directory
                .set_permissions(std::fs::Permissions::from_mode(self.mode))
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// A filesystem to be made.
#[derive(Debug, PartialEq, Eq)]
struct Filesystem {
    size: u64,
    kind: String,
    uuid: Option<String>,
}

impl Filesystem {
    fn parse(options: &[&str]) -> Result<Self> {
        let mut wanted = Self {
            size: 0,
            kind: "ext4".to_owned(),
            uuid: None,
        };
        for option in options {
            match option.split_once('=') {
                Some(("size", value)) => wanted.size = bytes(value)?,
                Some(("fs", value @ ("ext2" | "ext3" | "ext4" | "xfs"))) => {
                    value.clone_into(&mut wanted.kind);
                }
                Some(("fs", value)) => {
                    return Err(Error::invalid(format!("unsupported filesystem {value:?}")));
                }
                Some(("uuid", value)) if is_uuid(value) => wanted.uuid = Some(value.to_owned()),
                Some(("uuid", value)) => return Err(Error::invalid(format!("mkfs.uuid {value:?}"))),
                _ => return Err(Error::invalid(format!("unknown mount option {MKFS}{option}"))),
            }
        }
        if wanted.size == 0 {
            return Err(Error::invalid("mkfs requires mkfs.size option"));
        }
        Ok(wanted)
    }

    fn make(&self, place: &Place) -> Result<()> {
        let failed = |error: std::io::Error| Error::io(format!("create file {}", place.path), error);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = fs::openat(&place.parent, ".", flags, Mode::from_raw_mode(0o640));
        let file = File::from(file.map_err(|error| failed(error.into()))?);
        file.set_len(self.size).map_err(failed)?;
        let program = format!("mkfs.{}", self.kind);
        let mut command = Command::new(&program);
        command.arg("-q");
        match (&self.uuid, self.kind.as_str()) {
            (None, _) => {}
            (Some(uuid), "xfs") => drop(command.args(["-m", &format!("uuid={uuid}")])),
            (Some(uuid), _) => drop(command.args(["-U", uuid])),
        }
        // Its standard input is the file, which has no name.
        let input = file.try_clone().map_err(failed)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let output = command
            .arg("/proc/self/fd/0")
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::from(input))
            .output()
            .map_err(|error| Error::io(format!("run {program}"), error))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let words: String = words.trim().chars().take(MAX_WORDS).collect();
            return Err(Error::unknown(
                format!("format {} with {program}", place.path),
                words,
            ));
        }
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        match fs::linkat(
            fs::CWD,
            nameless.as_str(),
            &place.parent,
            place.name.as_str(),
            AtFlags::SYMLINK_FOLLOW,
        ) {
            // Somebody else made it meanwhile.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// A size as `10MiB`, `10m` or `1.5gb`: all units are powers of 1024.
fn bytes(text: &str) -> Result<u64> {
    let invalid = || Error::invalid(format!("mkfs.size {text:?}"));
    let end = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    let size = number * 1024_f64.powi(power);
    // The kernel's own limit of an offset.
    if !(1.0..9e18).contains(&size) {
        return Err(invalid());
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    Ok(size as u64)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text
            .chars()
            .all(|character| character.is_ascii_hexdigit() || character == '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn mount(source: &Path, options: &[&str]) -> Mount {
        Mount {
            source: source.to_str().unwrap().to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn sizes_are_read_as_containerd_reads_them() {
        for (text, size) in [
            ("4096", 4096),
            ("10M", 10 << 20),
            ("10MiB", 10 << 20),
            ("1.5 gb", 3 << 29),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
        for bad in ["", "M", "-1", "1x", "0", "1e30", "9999999999p", "1.2.3"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_are_checked() {
        let parsed = Directory::parse("path=/a:755:1:2").unwrap();
        assert_eq!(
            (parsed.path, parsed.mode, parsed.owner),
            ("/a", 0o755, Some((1, 2)))
        );
        assert_eq!(Directory::parse("path=/a").unwrap().mode, 0o700);
        for bad in [
            "/a",
            "path=/a:9",
            "path=/a:1777",
            "path=/a:700:1",
            "path=/a:700:x:1",
        ] {
            assert_eq!(
                Directory::parse(bad).unwrap_err().kind(),
                Kind::InvalidArgument,
                "{bad}"
            );
        }
        for bad in [
            &["fs=ext4"][..],
            &["size=1M", "fs=ntfs"],
            &["size=1M", "uuid=x"],
            &["size"],
            &["size=1M", "what=1"],
        ] {
            assert_eq!(
                Filesystem::parse(bad).unwrap_err().kind(),
                Kind::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn directories_are_made_below_the_roots_only() {
        let root = tempfile::tempdir().unwrap();
        let roots = [root.path().to_owned()];
        let inside = root.path().join("inside");
        let wanted = format!("{MKDIR}path={}:750", inside.display());
        let mut one = mount(Path::new("/s"), &["ro", &wanted]);
        directories(&mut one, &roots).unwrap();
        assert_eq!(one.options, ["ro"]);
        assert_eq!(inside.metadata().unwrap().mode() & 0o777, 0o750);
        // Once more: nothing but the mode changes.
        let wanted = format!("{MKDIR}path={}", inside.display());
        directories(&mut mount(Path::new("/s"), &[&wanted]), &roots).unwrap();
        assert_eq!(inside.metadata().unwrap().mode() & 0o777, 0o700);

        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let sibling = format!("{}-sibling", root.path().display());
        for bad in [
            format!("{}/x", outside.path().display()),
            format!("{}/link/x", root.path().display()),
            format!("{}/../x", root.path().display()),
            sibling,
            root.path().display().to_string(),
        ] {
            let wanted = format!("{MKDIR}path={bad}");
            assert!(
                directories(&mut mount(Path::new("/s"), &[&wanted]), &roots).is_err(),
                "{bad}"
            );
        }
        assert_eq!(outside.path().read_dir().unwrap().count(), 0);
    }
}
