//! Names of units, and where systemd puts their control groups ([systemd.slice(5)]).
//!
//! [systemd.slice(5)]: https://www.freedesktop.org/software/systemd/man/latest/systemd.slice.html

use std::path::{Path, PathBuf};

use crate::cgroup::Error;

/// The longest name that systemd takes.
const MAX_BYTES: usize = 255;

/// A container's unit, as `linux.cgroupsPath` names it: `slice:prefix:name`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct UnitName {
    /// Empty for the default one.
    slice: String,
    prefix: String,
    name: String,
}

impl UnitName {
    /// Reads `slice:prefix:name`; without a path it is `prefix` and the container's id in the default slice.
    pub fn parse(cgroups_path: Option<&Path>, id: &str, prefix: &str) -> Result<Self, Error> {
        let field = |problem: String| Error::field("linux.cgroupsPath", problem);
        let unit = match cgroups_path.filter(|path| !path.as_os_str().is_empty()) {
            None => Self {
                slice: String::new(),
                prefix: prefix.to_owned(),
                name: id.to_owned(),
            },
            Some(path) => {
                let text = path.to_str().unwrap_or_default();
                let parts: Vec<&str> = text.split(':').collect();
                let [slice, prefix, name] = parts[..] else {
                    let text = path.display().to_string();
                    return Err(field(format!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
                    )));
                };
                Self {
                    slice: slice.to_owned(),
                    prefix: prefix.to_owned(),
                    name: name.to_owned(),
                }
            }
        };
        let full = unit.full();
        // The name becomes a part of a path; systemd itself is stricter still.
        if unit.name.is_empty() || full.contains(['/', '\0']) || full.len() > MAX_BYTES {
            return Err(field(format!("{full:?} is no name of a unit")));
        }
        Ok(unit)
    }

    /// The name with its suffix: a scope, unless the name says that it is a slice.
    pub fn full(&self) -> String {
        if self.is_slice() {
            self.name.clone()
        } else {
            format!("{}-{}.scope", self.prefix, self.name)
        }
    }

    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// The name without prefix and suffix.
    pub fn short(&self) -> &str {
        &self.name
    }

    /// The slice it is in.
    pub fn slice(&self, user: bool) -> &str {
        match (self.slice.as_str(), user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (slice, _) => slice,
        }
    }

    /// The control group's place below the manager's own.
    pub fn group(&self, user: bool) -> Result<PathBuf, Error> {
        let slice = expand(self.slice(user)).ok_or_else(|| {
            Error::field(
                "linux.cgroupsPath",
                format!("invalid slice name: {}", self.slice(user)),
            )
        })?;
        Ok(slice.join(self.full()))
    }
}

/// `a-b.slice` is in `a.slice`; `-.slice` is the root. Nothing for a name that is no slice's.
fn expand(slice: &str) -> Option<PathBuf> {
    let name = slice
        .strip_suffix(".slice")
        .filter(|name| !name.is_empty() && !name.contains('/'))?;
    let mut path = PathBuf::new();
    if name == "-" {
        return Some(path);
    }
    let mut upto = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        upto.push_str(part);
        path.push(format!("{upto}.slice"));
        upto.push('-');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_nest_by_their_dashes() {
        for (slice, path) in [
            ("system.slice", "system.slice"),
            ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
            ("-.slice", ""),
        ] {
            assert_eq!(expand(slice).as_deref(), Some(Path::new(path)), "{slice}");
        }
        for bad in [
            "",
            "a",
            ".slice",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a/b.slice",
            "../x.slice",
        ] {
            assert_eq!(expand(bad), None, "{bad}");
        }
    }

    #[test]
    fn three_parts_name_a_unit() {
        let unit = |path: &str| UnitName::parse(Some(Path::new(path)), "id", "wharf");
        let docker = unit("system.slice:docker:1234").unwrap();
        assert_eq!(docker.full(), "docker-1234.scope");
        assert_eq!(
            docker.group(false).unwrap(),
            Path::new("system.slice/docker-1234.scope")
        );
        let pod = unit("kube-pods.slice::kube-pods-one.slice").unwrap();
        assert_eq!(pod.full(), "kube-pods-one.slice");
        assert_eq!(unit(":docker:1").unwrap().slice(true), "user.slice");
        let default = UnitName::parse(None, "box", "wharf").unwrap();
        assert_eq!(default.full(), "wharf-box.scope");
        assert_eq!(default.slice(false), "system.slice");
        assert!(unit("bad:docker:1").unwrap().group(false).is_err());
    }

    #[test]
    fn other_paths_are_refused_by_name() {
        for bad in ["/a/b", "a:b", "a:b:c:d", "s.slice:p:", "s.slice:p:a/../../b"] {
            let error = UnitName::parse(Some(Path::new(bad)), "id", "wharf")
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("linux.cgroupsPath: "), "{error}");
        }
    }
}
