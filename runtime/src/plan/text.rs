//! Text of the configuration as C strings.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::spec::check_path;

/// `text` as a C string.
pub(super) fn c_string(field: &str, text: impl AsRef<OsStr>) -> Result<CString, Error> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| Error::field(field, "contains a zero byte"))
}

/// `path` as a C string that the kernel takes as one path.
pub(super) fn c_path(field: &str, path: &Path) -> Result<CString, Error> {
    check_path(path).map_err(|problem| Error::field(field, problem))?;
    c_string(field, path)
}

/// `path` as seen from a root directory: `.` dropped, `..` resolved by name and stopped at the root, relative.
pub(super) fn beneath_root(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// A place in the root file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Relative to the root, clean, never empty.
    pub path: CString,
    /// The directory above it; nothing when that is the root.
    pub parent: Option<CString>,
}

impl Target {
    /// The target that `path` names in the container.
    pub(super) fn new(field: &str, path: &Path) -> Result<Self, Error> {
        let clean = beneath_root(path);
        if clean.as_os_str().is_empty() {
            return Err(Error::field(field, "the root itself cannot be the target"));
        }
        let parent = clean.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(Self {
            path: c_path(field, &clean)?,
            parent: parent.map(|parent| c_path(field, parent)).transpose()?,
        })
    }

    /// Relative to the root.
    pub(crate) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stay_beneath_the_root() {
        for (given, clean) in [
            ("/a/b", "a/b"),
            ("a", "a"),
            ("/../../etc/passwd", "etc/passwd"),
            ("/a/./b//c/../d/", "a/b/d"),
        ] {
            let target = Target::new("f", Path::new(given)).unwrap();
            assert_eq!(target.path.to_str().unwrap(), clean);
        }
        assert!(Target::new("f", Path::new("/a/..")).is_err());
        let target = Target::new("f", Path::new("/a/b/c")).unwrap();
        assert_eq!(target.parent.as_deref(), Some(c"a/b"));
        assert_eq!(Target::new("f", Path::new("/a")).unwrap().parent, None);
    }
}
