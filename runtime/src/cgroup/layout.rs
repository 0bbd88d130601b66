//! Which control group hierarchies the host has, and where this process stands in them.
//!
//! Read from `/proc/self/mountinfo` and `/proc/self/cgroup` ([cgroups(7)]), so that it is right inside a
//! container too, where only a part of a hierarchy is mounted.
//!
//! [cgroups(7)]: https://man7.org/linux/man-pages/man7/cgroups.7.html

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::procfs;

const MOUNTS: &str = "/proc/self/mountinfo";

/// The three ways a host arranges its hierarchies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// One hierarchy a controller.
    V1,
    /// v1 controllers, and a v2 hierarchy without them.
    Hybrid,
    /// One v2 hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hierarchy {
    /// The v1 controllers bound to it (`cpu`, `cpuacct`, or `name=systemd`), or one empty name for v2.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// This process's own group below `mount`; nothing when the mount does not show it.
    pub own: Option<PathBuf>,
}

/// The host's hierarchies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    version: Version,
    hierarchies: Vec<Hierarchy>,
    initial_user_namespace: bool,
}

impl Layout {
    /// Reads `/proc/self/mountinfo`, `/proc/self/cgroup` and `/proc/self/uid_map`.
    ///
    /// # Errors
    ///
    /// One of them cannot be read or understood, or no control group file system is mounted.
    pub fn detect() -> Result<Self, Error> {
        Self::read("/proc/self/cgroup")
    }

    /// As [`Self::detect`], with [`Hierarchy::own`] for the groups of another process.
    pub(crate) fn of_process(pid: i32) -> Result<Self, Error> {
        Self::read(&format!("/proc/{pid}/cgroup"))
    }

    fn read(own: &str) -> Result<Self, Error> {
        let read =
            |path: &str| procfs::read_bytes(path, 16 << 10).map_err(|error| Error::io("read", path, error));
        let own = read(own)?;
        let uid_map = read("/proc/self/uid_map")?;
        let own = String::from_utf8_lossy(&own);
        let mounts = read_mounts(&own).map_err(|error| Error::io("read", MOUNTS, error))?;
        Self::assemble(&mounts, &own, &String::from_utf8_lossy(&uid_map))
    }

    /// As [`Self::detect`], from the texts of the three files.
    ///
    /// # Errors
    ///
    /// A text cannot be understood, or shows no control group file system.
    pub fn parse(mountinfo: &str, own: &str, uid_map: &str) -> Result<Self, Error> {
        let mounts: Vec<CgroupMount> = mountinfo.lines().filter_map(CgroupMount::parse).collect();
        Self::assemble(&mounts, own, uid_map)
    }

    fn assemble(mounts: &[CgroupMount], own: &str, uid_map: &str) -> Result<Self, Error> {
        let mut hierarchies = Vec::new();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (fields.next(), fields.next()) else {
                return Err(Error::Malformed {
                    file: "/proc/self/cgroup".into(),
                    problem: format!("bad line {line:?}"),
                });
            };
            let controllers: Vec<String> = names.split(',').map(str::to_owned).collect();
            let Some(mount) = mounts.iter().find(|mount| mount.has(&controllers[0])) else {
                continue;
            };
            hierarchies.push(Hierarchy {
                own: mount.locate(path),
                mount: mount.at.clone(),
                controllers,
            });
        }
        let unified = hierarchies
            .iter()
            .any(|hierarchy| hierarchy.controllers[0].is_empty());
        let split = hierarchies
            .iter()
            .any(|hierarchy| !hierarchy.controllers[0].is_empty());
        let version = match (split, unified) {
            (true, true) => Version::Hybrid,
            (true, false) => Version::V1,
            (false, true) => Version::V2,
            (false, false) => return Err(Error::Unsupported("a host without mounted cgroups".into())),
        };
        let initial_user_namespace = uid_map
            .split_ascii_whitespace()
            .eq(["0", "0", "4294967295"].iter().copied());
        Ok(Self {
            version,
            hierarchies,
            initial_user_namespace,
        })
    }

    /// Which of the three ways it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The mounted hierarchies, in the kernel's order.
    #[must_use]
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The hierarchy that a v1 controller, `name=systemd`, or (with an empty name) v2 is bound to.
    #[must_use]
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }

    /// Whether this process is in the host's initial user namespace. Elsewhere the kernel refuses device rules.
    #[must_use]
    pub fn in_initial_user_namespace(&self) -> bool {
        self.initial_user_namespace
    }
}

/// The mounts of the hierarchies that the text `own` of `/proc/self/cgroup` tells of, up to the last that is looked for:
/// they are made at boot and stand first, and a host with many containers has thousands of mounts after them.
fn read_mounts(own: &str) -> std::io::Result<Vec<CgroupMount>> {
    let mut missing: Vec<&str> = own.lines().filter_map(first_controller).collect();
    // The kernel writes no more lines than were asked for, and takes 2 µs for each.
    let mut file = BufReader::with_capacity(1 << 10, fs::File::open(MOUNTS)?);
    let mut mounts = Vec::new();
    let mut line = Vec::new();
    while !missing.is_empty() && file.read_until(b'\n', &mut line)? > 0 {
        if let Some(mount) = CgroupMount::parse(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
            missing.retain(|controller| !mount.has(controller));
            mounts.push(mount);
        }
        line.clear();
    }
    Ok(mounts)
}

/// The first name in a line `4:cpu,cpuacct:/group` of `/proc/self/cgroup`; none at all is v2's.
fn first_controller(line: &str) -> Option<&str> {
    line.split(':').nth(1)?.split(',').next()
}

/// A line of mountinfo about a control group file system.
struct CgroupMount {
    root: PathBuf,
    at: PathBuf,
    /// Nothing for v2.
    options: Option<String>,
}

impl CgroupMount {
    /// `36 35 98:0 /root /mount-point options optional-fields... - type source super-options`
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        let options = match file_system.next()? {
            "cgroup2" => None,
            "cgroup" => Some(file_system.nth(1)?.to_owned()),
            _ => return None,
        };
        let mut fields = mount.split(' ').skip(3);
        let root = unescape(fields.next()?);
        let at = unescape(fields.next()?);
        Some(Self { root, at, options })
    }

    fn has(&self, controller: &str) -> bool {
        match &self.options {
            None => controller.is_empty(),
            Some(options) => !controller.is_empty() && options.split(',').any(|option| option == controller),
        }
    }

    /// Where the group that `/proc/self/cgroup` calls `path` is to be seen.
    fn locate(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        below
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
            .then(|| join(&self.at, below))
    }
}

/// As [`Path::join`], but without the slash at the end that joining an empty path leaves.
pub(super) fn join(base: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        base.to_owned()
    } else {
        base.join(below)
    }
}

/// Undoes mountinfo's octal escapes of blanks and backslashes.
pub(crate) fn unescape(field: &str) -> PathBuf {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        match after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) if byte.is_ascii() => {
                text.push(char::from(byte));
                rest = &after[3..];
            }
            _ => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_OWN: &str = "9:name=systemd:/\n8:pids:/\n4:memory:/a/b\n1:cpu,cpuacct:/user.slice\n0::/\n";
    const HOST_UIDS: &str = "         0          0 4294967295\n";

    #[test]
    fn a_hybrid_host_has_both_kinds_of_hierarchies() {
        let layout = Layout::parse(HYBRID, HYBRID_OWN, HOST_UIDS).unwrap();
        assert_eq!(layout.version(), Version::Hybrid);
        assert!(layout.in_initial_user_namespace());
        let cpu = layout.hierarchy("cpuacct").unwrap();
        assert_eq!(cpu.mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(
            cpu.own.as_deref(),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/user.slice"))
        );
        assert_eq!(
            layout.hierarchy("name=systemd").unwrap().mount,
            Path::new("/sys/fs/cgroup/systemd")
        );
        assert_eq!(
            layout.hierarchy("").unwrap().own.as_deref(),
            Some(Path::new("/sys/fs/cgroup/unified"))
        );
        assert_eq!(
            layout.hierarchy("pids"),
            None,
            "a controller that is not mounted is not there"
        );
    }

    #[test]
    fn one_v2_mount_is_the_v2_layout() {
        let layout = Layout::parse(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/user.slice/session-1.scope\n",
            "0 1000 1\n1 100000 65536\n",
        )
        .unwrap();
        assert_eq!(layout.version(), Version::V2);
        assert!(!layout.in_initial_user_namespace());
        assert_eq!(
            layout.hierarchy("").unwrap().own.as_deref(),
            Some(Path::new("/sys/fs/cgroup/user.slice/session-1.scope"))
        );
    }

    #[test]
    fn inside_a_container_only_a_part_of_a_hierarchy_is_mounted() {
        let mounts = "35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let inside = Layout::parse(mounts, "4:memory:/docker/ab/x\n", HOST_UIDS).unwrap();
        assert_eq!(inside.version(), Version::V1);
        assert_eq!(
            inside.hierarchy("memory").unwrap().own.as_deref(),
            Some(Path::new("/sys/fs/cgroup/memory/x"))
        );
        let outside = Layout::parse(mounts, "4:memory:/elsewhere\n", HOST_UIDS).unwrap();
        assert_eq!(outside.hierarchy("memory").unwrap().own, None);
        let above = Layout::parse(
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "4:memory:/../x\n",
            HOST_UIDS,
        )
        .unwrap();
        assert_eq!(above.hierarchy("memory").unwrap().own, None);
    }

    #[test]
    fn a_host_without_cgroups_is_named() {
        let error = Layout::parse("31 23 0:28 / / rw - ext4 /dev/vda rw\n", "", HOST_UIDS).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a host without mounted cgroups is not supported"
        );
        assert!(Layout::parse("", "nonsense", HOST_UIDS).is_err());
    }

    #[test]
    fn escaped_mount_points_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(r"/a\9"), Path::new(r"/a\9"));
    }
}
