//! What a compiled configuration promises, whatever the configuration was.

use std::ffi::CStr;
use std::path::{Component, Path};

use super::bytes::Bytes;
use super::configuration::configuration;
use super::filter;
use super::runtime::ContainerId;
use super::runtime::cgroup::{CgroupPlan, Layout};
use super::runtime::lsm::Enabled;
use super::runtime::plan::{Caller, Facts, Operation, Plan, Target};
use super::runtime::spec;

const V2_MOUNTS: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
const V1_MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
";
const V1_OWN: &str = "5:devices:/\n4:memory:/jobs\n1:cpu,cpuacct:/\n";

/// Compiles the configuration that the bytes make, and looks at the plan. Panics when a promise is broken.
pub fn check(data: &[u8]) {
    let mut bytes = Bytes(data);
    let old = bytes.byte() & 1 != 0;
    let document = configuration(&mut bytes);
    let Ok(spec) = spec::parse(document.to_string().into_bytes()) else {
        return;
    };
    let (mounts, own) = if old {
        (V1_MOUNTS, V1_OWN)
    } else {
        (V2_MOUNTS, "0::/\n")
    };
    let layout = Layout::parse(mounts, own, "0 0 4294967295").expect("a usual host");
    let linux = spec.oci().linux.as_ref();
    let path = linux
        .map(|linux| linux.cgroups_path.as_path())
        .filter(|path| !path.as_os_str().is_empty());
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    let Ok(cgroups) = CgroupPlan::compile(&layout, path, "box", resources) else {
        return;
    };
    for group in cgroups.paths().values() {
        assert!(
            group.starts_with("/sys/fs/cgroup") && is_clean(group),
            "{}",
            group.display()
        );
    }
    let id = ContainerId::new("box").expect("a name");
    let facts = Facts {
        id: &id,
        bundle: Path::new("/bundle"),
        cgroup_version: layout.version(),
        cgroup_paths: &cgroups.paths(),
        new_cgroup_namespace: false,
        lsm: Enabled::default(),
        no_pivot: false,
        whole_views: &[],
        staging: false,
        no_new_keyring: false,
        caller: Caller::ROOT,
        filter_comes_later: false,
    };
    if let Ok(plan) = Plan::compile(spec.oci(), &facts) {
        look(&plan);
    }
}

fn look(plan: &Plan) {
    let rootfs = &plan.rootfs;
    assert!(rootfs.path.to_bytes().starts_with(b"/"), "{:?}", rootfs.path);
    for operation in &rootfs.operations {
        target(match operation {
            Operation::Mount(mount) => &mount.target,
            Operation::Link { at, .. } | Operation::Remount { at, .. } => at,
        });
    }
    rootfs.devices.iter().for_each(|device| target(&device.target));
    rootfs.links.iter().for_each(|link| target(&link.at));
    rootfs.console.iter().chain(&rootfs.cwd).for_each(target);
    rootfs
        .masked
        .iter()
        .chain(&rootfs.read_only_paths)
        .for_each(|path| beneath(path));
    for (path, _) in &plan.sysctls {
        beneath(path);
        assert!(path.to_bytes().starts_with(b"sys/"), "{path:?}");
    }
    let process = &plan.process;
    assert!(process.cwd.to_bytes().starts_with(b"/"));
    assert!(
        process.uid != u32::MAX
            && process.gid != u32::MAX
            && !process.groups.iter().flatten().any(|group| *group == u32::MAX)
    );
    let sets = &process.capabilities;
    for set in [
        sets.bounding,
        sets.effective,
        sets.permitted,
        sets.inheritable,
        sets.ambient,
    ] {
        assert_eq!(set >> 41, 0, "{set:#x}: bits that are no capability");
    }
    if let Some(program) = &process.seccomp {
        filter::verify(program.instructions());
        assert_eq!(program.has_listener(), process.agent.is_some());
    }
}

/// A target is beneath the root, and the directory above it is named.
fn target(target: &Target) {
    beneath(&target.path);
    let above = as_path(&target.path).parent();
    let above = above.filter(|above| !above.as_os_str().is_empty());
    assert_eq!(target.parent.as_deref().map(as_path), above);
}

fn beneath(path: &CStr) {
    let bytes = path.to_bytes();
    assert!(!bytes.is_empty() && bytes.len() < 4096, "{path:?}");
    assert!(as_path(path).is_relative() && is_clean(as_path(path)), "{path:?}");
}

fn is_clean(path: &Path) -> bool {
    path.components()
        .all(|component| !matches!(component, Component::ParentDir))
}

fn as_path(path: &CStr) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))
}
