//! What a container's file system has of the host's, for whoever saves and restores it: criu is told by name which mounts it
//! finds again there, and where.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::cgroup_mount::hierarchies;
use super::text::{beneath_root, c_path};
use super::{Error, device, mount, options};
use crate::cgroup::Version;
use crate::spec::oci;

/// Something of the host's in the container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct External {
    /// Where in the container, absolute.
    pub(crate) place: PathBuf,
    /// Where on the host, absolute.
    pub(crate) source: PathBuf,
}

/// What of the host it depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// The bundle, absolute.
    pub(crate) bundle: &'a Path,
    pub(crate) cgroup_version: Version,
    /// The container's own groups: controller to directory.
    pub(crate) cgroup_paths: &'a BTreeMap<String, PathBuf>,
    /// The container has a cgroup namespace.
    pub(crate) cgroup_namespace: bool,
}

/// The targets of mounts have to be there before criu mounts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Mountpoint {
    /// Beneath the root, clean.
    pub(crate) place: CString,
    /// Whether links on the way are followed (beneath the root).
    pub(crate) follow_links: bool,
    /// What is bound there, as the targets of later mounts may be in it.
    pub(crate) bind: Option<CString>,
}

/// The bind mounts, in order, and on a host with v1 hierarchies the groups that are bound.
pub(crate) fn external_mounts(spec: &oci::Spec, host: &Host<'_>) -> Result<Vec<External>, Error> {
    let mut external = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let place = place_of(spec, mount, host);
        match kind_of(index, mount)? {
            Kind::Bind => external.push(External {
                place,
                source: host.bundle.join(&mount.source),
            }),
            // With a namespace of its own they are mounts of the container's.
            Kind::Cgroup if host.cgroup_version != Version::V2 && !host.cgroup_namespace => {
                let groups = hierarchies(host.cgroup_paths).into_iter();
                external.extend(groups.map(|(name, (path, _))| External {
                    place: place.join(name),
                    source: path.to_owned(),
                }));
            }
            Kind::Cgroup | Kind::Other | Kind::Nothing => {}
        }
    }
    Ok(external)
}

/// The nodes that are bound where they may not be made, all of them: which are is the kernel's decision.
pub(crate) fn external_devices(spec: &oci::Spec) -> Result<Vec<External>, Error> {
    let devices = spec.linux.as_ref().map(|linux| linux.devices.as_slice());
    let nodes = device::compile(devices.unwrap_or_default())?;
    let paths = nodes
        .iter()
        .map(|node| Path::new("/").join(node.target.as_path()));
    Ok(paths
        .map(|path| External {
            source: path.clone(),
            place: path,
        })
        .collect())
}

/// What has to be there for `mounts[]`. What is in a tmpfs criu makes itself.
pub(crate) fn mountpoints(spec: &oci::Spec, host: &Host<'_>) -> Result<Vec<Mountpoint>, Error> {
    let mut needed = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let place = place_of(spec, mount, host);
        let above = |other: &oci::Mount| {
            other.typ == "tmpfs" && {
                let other = place_of(spec, other, host);
                place != other && place.starts_with(other)
            }
        };
        let kind = kind_of(index, mount)?;
        // Those of control groups are in a tmpfs or in sysfs.
        if matches!(kind, Kind::Cgroup | Kind::Nothing) || spec.mounts.iter().any(above) {
            continue;
        }
        let field = format!("mounts[{index}]");
        needed.push(Mountpoint {
            place: c_path(&field, place.strip_prefix("/").unwrap_or(&place))?,
            follow_links: mount.typ != "proc" && mount.typ != "sysfs",
            bind: match kind {
                Kind::Bind => Some(c_path(&field, &host.bundle.join(&mount.source))?),
                _ => None,
            },
        });
    }
    Ok(needed)
}

enum Kind {
    Bind,
    Cgroup,
    Other,
    /// It changes a mount.
    Nothing,
}

fn kind_of(index: usize, mount: &oci::Mount) -> Result<Kind, Error> {
    let options = options::parse(&format!("mounts[{index}]"), &mount.options)?;
    let bind = options.bind.is_some() || mount.typ == "bind" || mount.typ == "rbind";
    Ok(match (options.remount, bind, mount.typ.as_str()) {
        (true, ..) => Kind::Nothing,
        (_, true, _) => Kind::Bind,
        (_, _, "cgroup") => Kind::Cgroup,
        _ => Kind::Other,
    })
}

fn place_of(spec: &oci::Spec, mount: &oci::Mount, host: &Host<'_>) -> PathBuf {
    let root = spec.root.as_ref().map(|root| host.bundle.join(&root.path));
    let place = match &root {
        Some(root) => mount::in_container(&mount.destination, root),
        None => &mount.destination,
    };
    Path::new("/").join(beneath_root(place))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with<T>(
        version: Version,
        cgroup_namespace: bool,
        check: impl FnOnce(&oci::Spec, &Host<'_>) -> T,
    ) -> T {
        let spec = serde_json::from_value(json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
                {"destination": "/device", "source": "/x", "options": ["rbind"]},
                {"destination": "conf/../etc/conf", "type": "bind", "source": "files"},
                {"destination": "/b/rootfs/data", "type": "bind", "source": "/data"},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
                {"destination": "/data", "type": "none", "options": ["remount", "bind", "ro"]},
            ],
            "linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]},
        }))
        .unwrap();
        let paths: BTreeMap<String, PathBuf> = [
            ("cpu".into(), "/sys/fs/cgroup/cpu,cpuacct/g".into()),
            ("cpuacct".into(), "/sys/fs/cgroup/cpu,cpuacct/g".into()),
            ("pids".into(), "/sys/fs/cgroup/pids/g".into()),
        ]
        .into();
        let host = Host {
            bundle: Path::new("/b"),
            cgroup_version: version,
            cgroup_paths: &paths,
            cgroup_namespace,
        };
        check(&spec, &host)
    }

    fn pairs(external: &[External]) -> Vec<(&str, &str)> {
        external
            .iter()
            .map(|external| {
                (
                    external.place.to_str().unwrap(),
                    external.source.to_str().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn bind_mounts_and_groups_are_the_hosts() {
        let binds = [("/device", "/x"), ("/etc/conf", "/b/files"), ("/data", "/data")];
        with(Version::Hybrid, false, |spec, host| {
            let external = external_mounts(spec, host).unwrap();
            assert_eq!(pairs(&external)[..3], binds);
            assert_eq!(
                pairs(&external)[3..],
                [
                    ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/g"),
                    ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/g"),
                ]
            );
        });
        for (version, namespace) in [(Version::V2, false), (Version::V1, true)] {
            with(version, namespace, |spec, host| {
                assert_eq!(pairs(&external_mounts(spec, host).unwrap()), binds);
            });
        }
    }

    #[test]
    fn targets_are_needed_where_criu_makes_none() {
        with(Version::V1, false, |spec, host| {
            let needed = mountpoints(spec, host).unwrap();
            let needed: Vec<_> = needed
                .iter()
                .map(|point| {
                    (
                        point.place.to_str().unwrap(),
                        point.follow_links,
                        point.bind.is_some(),
                    )
                })
                .collect();
            assert_eq!(
                needed,
                [
                    ("proc", false, false),
                    ("dev", true, false),
                    ("device", true, true),
                    ("etc/conf", true, true),
                    ("data", true, true),
                ]
            );
        });
    }

    #[test]
    fn every_node_may_be_the_hosts() {
        with(Version::V1, false, |spec, _| {
            let devices = external_devices(spec).unwrap();
            assert!(pairs(&devices).contains(&("/dev/fuse", "/dev/fuse")));
            assert!(pairs(&devices).contains(&("/dev/null", "/dev/null")));
        });
    }
}
