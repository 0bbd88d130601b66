//! The control group that the shim itself is to be in (`ShimCgroup` of the runtime's options), apart from its containers'.
//!
//! The group is the client's: it must be there, and is neither made nor removed. On v1 and hybrid hosts the shim joins it in
//! each v1 hierarchy that has it, as containerd's does; on v2 hosts in the one hierarchy.
//!
//! Refuses paths that climb.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::process::Pid;
use wharf_runtime::cgroup::{Layout, Version};

/// Why the shim is not in the group.
#[derive(Debug, thiserror::Error)]
pub enum OwnCgroupError {
    /// The path is not one of a group.
    #[error("ShimCgroup {0:?} is not a plain path")]
    Path(String),
    /// No hierarchy has it.
    #[error("load cgroup {0}: cgroup deleted")]
    Missing(String),
    /// The host's hierarchies are unknown.
    #[error("find the control groups: {0}")]
    Layout(#[from] wharf_runtime::cgroup::Error),
    /// The kernel refused.
    #[error("join cgroup {}: {source}", .group.display())]
    Join {
        /// The group's directory.
        group: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Puts the process `pid` into the group `path`.
///
/// # Errors
///
/// The group is not there, or cannot be joined; the process may be in it in some hierarchies then.
pub fn join(path: &str, pid: Pid) -> Result<(), OwnCgroupError> {
    for group in groups(&Layout::detect()?, path)? {
        let procs = group.join("cgroup.procs");
        fs::write(procs, pid.as_raw_nonzero().to_string())
            .map_err(|source| OwnCgroupError::Join { group, source })?;
    }
    Ok(())
}

/// The directories of the group `path`, in the hierarchies that have it.
fn groups(layout: &Layout, path: &str) -> Result<Vec<PathBuf>, OwnCgroupError> {
    let below = Path::new(path.trim_start_matches('/'));
    let is_plain = below
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if !is_plain || path.contains('\0') {
        return Err(OwnCgroupError::Path(path.to_owned()));
    }
    let is_unified = layout.version() == Version::V2;
    let groups: Vec<PathBuf> = layout
        .hierarchies()
        .iter()
        .filter(|hierarchy| hierarchy.controllers.iter().any(String::is_empty) == is_unified)
        .map(|hierarchy| hierarchy.mount.join(below))
        .filter(|group| group.is_dir())
        .collect();
    if groups.is_empty() {
        return Err(OwnCgroupError::Missing(path.to_owned()));
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_of_groups_that_are_there_are_taken() {
        let root = tempfile::tempdir().unwrap();
        let mount = |name: &str, kind: &str, options: &str| {
            let place = root.path().join(name);
            fs::create_dir(&place).unwrap();
            format!("30 25 0:26 / {} rw - {kind} {kind} {options}\n", place.display())
        };
        let v1 = mount("memory", "cgroup", "rw,memory")
            + &mount("pids", "cgroup", "rw,pids")
            + &mount("unified", "cgroup2", "rw");
        let own = "2:memory:/\n1:pids:/\n0::/\n";
        let map = "0 0 4294967295\n";
        for group in ["memory/shims/a", "unified/shims/a"] {
            fs::create_dir_all(root.path().join(group)).unwrap();
        }
        let layout = Layout::parse(&v1, own, map).unwrap();
        // Not in the v2 hierarchy of a hybrid host, and not where it is missing.
        assert_eq!(
            groups(&layout, "/shims/a").unwrap(),
            [root.path().join("memory/shims/a")]
        );
        assert!(matches!(
            groups(&layout, "/shims/b"),
            Err(OwnCgroupError::Missing(_))
        ));
        for bad in ["/shims/../..", "../x", "/a\0b"] {
            assert!(
                matches!(groups(&layout, bad), Err(OwnCgroupError::Path(_))),
                "{bad}"
            );
        }
        let v2 = mount("v2", "cgroup2", "rw");
        fs::create_dir(root.path().join("v2/s")).unwrap();
        let layout = Layout::parse(&v2, "0::/\n", map).unwrap();
        assert_eq!(groups(&layout, "s").unwrap(), [root.path().join("v2/s")]);
    }
}
