//! A container's control groups, planned from its configuration and from what the caller may do.

use std::path::Path;

use crate::cgroup::{CgroupPlan, Layout, Manager, Version, Wanted};
use crate::spec::oci;
use crate::{CreateOptions, Error};

/// Plans the groups of a container. With systemd this asks it first, which blocks.
pub(crate) fn plan(spec: &oci::Spec, layout: &Layout, options: &CreateOptions) -> Result<CgroupPlan, Error> {
    let linux = spec.linux.as_ref();
    let wanted = Wanted {
        id: options.id.as_str(),
        cgroups_path: linux.map(|linux| linux.cgroups_path.as_path()),
        resources: linux.and_then(|linux| linux.resources.as_ref()),
        annotations: &spec.annotations,
    };
    let rootless = options.rootless.unwrap_or_else(|| is_rootless(layout));
    let plan = if options.systemd_cgroup {
        CgroupPlan::compile_unit(layout, &Manager::ask(rootless)?, &wanted)?
    } else {
        CgroupPlan::compile(layout, wanted.cgroups_path, wanted.id, wanted.resources)?
    };
    let owner = match layout.version() {
        Version::V2 => owner(spec),
        Version::V1 | Version::Hybrid => None,
    };
    Ok(plan.rootless(rootless).owned_by(owner))
}

/// Whether the caller cannot be expected to have permission.
fn is_rootless(layout: &Layout) -> bool {
    !rustix::process::geteuid().is_root() || !layout.in_initial_user_namespace()
}

/// The user of the caller's who is to own the group: the one that the container's process runs as, where it sees
/// its group as a root and may write to it.
fn owner(spec: &oci::Spec) -> Option<u32> {
    let linux = spec.linux.as_ref()?;
    let new = |kind| {
        let is_new =
            |namespace: &oci::LinuxNamespace| namespace.typ == kind && namespace.path.as_os_str().is_empty();
        linux.namespaces.iter().any(is_new)
    };
    let is_writable = |mount: &oci::Mount| {
        mount.typ == "cgroup"
            && Path::new("/sys/fs/cgroup") == mount.destination
            && mount
                .options
                .iter()
                .rfind(|option| *option == "ro" || *option == "rw")
                .is_none_or(|last| last == "rw")
    };
    if !new(oci::LinuxNamespaceType::Cgroup) || !spec.mounts.iter().any(is_writable) {
        return None;
    }
    let uid = spec.process.as_ref().map_or(0, |process| process.user.uid);
    let has_user_namespace = linux
        .namespaces
        .iter()
        .any(|namespace| namespace.typ == oci::LinuxNamespaceType::User);
    let owner = if has_user_namespace {
        linux.user_outside(uid)
    } else {
        Some(uid)
    };
    // Whoever makes the group owns it.
    owner.filter(|owner| *owner != rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owner_of(edit: impl FnOnce(&mut serde_json::Value)) -> Option<u32> {
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "process": {"user": {"uid": 5, "gid": 0}, "cwd": "/"},
            "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}],
            "linux": {
                "namespaces": [{"type": "cgroup"}, {"type": "user"}],
                "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 10}],
            },
        });
        edit(&mut spec);
        owner(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_group_that_the_container_may_write_to_is_its_users() {
        assert_eq!(owner_of(|_| {}), Some(100_005));
        assert_eq!(
            owner_of(|spec| spec["mounts"][0]["options"] = json!([])),
            Some(100_005)
        );
        assert_eq!(
            owner_of(|spec| spec["process"]["user"]["uid"] = 10.into()),
            None,
            "not mapped"
        );
        assert_eq!(
            owner_of(|spec| spec["mounts"][0]["options"] = json!(["ro"])),
            None
        );
        assert_eq!(
            owner_of(|spec| spec["linux"]["namespaces"] = json!([{"type": "user"}])),
            None
        );
        assert_eq!(owner_of(|spec| spec["linux"]["uidMappings"] = json!([])), None);
        assert_eq!(
            owner_of(|spec| spec["linux"]["namespaces"] = json!([{"type": "cgroup"}])),
            Some(5)
        );
    }
}
