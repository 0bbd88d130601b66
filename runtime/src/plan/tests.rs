//! Plans as text, compared with files that a person has read.
//!
//! After a wanted change: `WHARF_WRITE_GOLDEN=1 cargo test -p wharf-runtime plan::tests`, and read the difference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::cgroup::Version;
use crate::lsm::Enabled;
use crate::spec;

fn groups(version: Version) -> BTreeMap<String, PathBuf> {
    let group = |controller: &str, path: &str| (controller.to_owned(), PathBuf::from(path));
    match version {
        Version::V2 => [group("", "/sys/fs/cgroup/box")].into(),
        Version::V1 | Version::Hybrid => [
            group("", "/sys/fs/cgroup/unified/box"),
            group("cpu", "/sys/fs/cgroup/cpu,cpuacct/box"),
            group("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/box"),
            group("name=systemd", "/sys/fs/cgroup/systemd/box"),
        ]
        .into(),
    }
}

fn compile_for(version: Version, document: &Value) -> Result<Plan, Error> {
    let spec = spec::parse(document.to_string().into_bytes()).unwrap();
    let id = ContainerId::new("box").unwrap();
    Plan::compile(
        spec.oci(),
        &Facts {
            id: &id,
            bundle: Path::new("/bundle"),
            cgroup_version: version,
            cgroup_paths: &groups(version),
            new_cgroup_namespace: false,
            lsm: Enabled::default(),
            no_pivot: false,
            whole_views: &[],
            staging: false,
            no_new_keyring: false,
            caller: Caller::ROOT,
            filter_comes_later: false,
        },
    )
}

fn compile(document: &Value) -> Result<Plan, Error> {
    compile_for(Version::V2, document)
}

fn minimal() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    })
}

/// What container engines ask for every day.
fn usual() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 24, "width": 80},
            "cwd": "/srv/../work",
            "args": ["server", "--port", "80"],
            "env": ["PATH=/usr/bin:/bin", "A=1", "A=2"],
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 7},
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
                "effective": ["CAP_KILL"],
                "permitted": ["CAP_KILL"],
                "ambient": ["CAP_KILL"],
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
            {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "rprivate", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "pid"},
                {"type": "network", "path": "/run/netns/box"},
            ],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 432, "uid": 7, "gid": 8}],
            "sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "0"},
            "maskedPaths": ["/proc/kcore", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

#[track_caller]
fn compare(name: &str, plan: &Plan) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/plan/golden")
        .join(name);
    let text = format!("{plan:#?}\n");
    if std::env::var_os("WHARF_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let difference = golden
        .lines()
        .zip(text.lines())
        .position(|(golden, text)| golden != text);
    assert!(
        golden == text,
        "{name} differs, first in line {difference:?}:\n{text}"
    );
}

#[test]
fn the_usual_container_on_v2() {
    compare("usual-v2.txt", &compile(&usual()).unwrap());
}

#[test]
fn the_usual_container_on_v1() {
    compare("usual-v1.txt", &compile_for(Version::Hybrid, &usual()).unwrap());
}

#[test]
fn a_container_in_a_user_namespace() {
    let mut document = minimal();
    document["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "user"}, {"type": "time"}, {"type": "cgroup"}]);
    document["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    document["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 2000, "size": 10}]);
    document["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 5}, "monotonic": {"secs": -1, "nanosecs": 3}});
    document["linux"]["rootfsPropagation"] = json!("rshared");
    compare("user-namespace.txt", &compile(&document).unwrap());
}

/// Changes one field, and expects an error that names it.
#[track_caller]
fn refused(pointer: &str, value: Value, named: &str) {
    let mut document = minimal();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
    let spec = spec::parse(document.to_string().into_bytes());
    // Either layer may refuse; none may let it pass.
    let error = match spec {
        Err(error) => error.to_string(),
        Ok(_) => compile(&document).map(drop).unwrap_err().to_string(),
    };
    assert!(error.contains(named), "{error:?} does not name {named:?}");
}

#[test]
fn what_cannot_be_carried_out_is_refused_by_name() {
    let mounts = |mount: Value| json!([mount]);
    refused(
        "/mounts",
        mounts(json!({"destination": "/", "type": "tmpfs", "source": "x"})),
        "mounts[0].destination",
    );
    refused(
        "/mounts",
        mounts(json!({"destination": "/a/..", "type": "tmpfs", "source": "x"})),
        "mounts[0].destination",
    );
    refused(
        "/mounts",
        mounts(json!({"destination": "/proc/sys", "type": "tmpfs", "source": "x"})),
        "/proc",
    );
    refused(
        "/mounts",
        mounts(json!({"destination": "/x/../proc/self", "type": "bind", "source": "/x"})),
        "/proc",
    );
    refused(
        "/mounts",
        mounts(json!({"destination": "/proc", "type": "tmpfs", "source": "x"})),
        "/proc",
    );
    refused(
        "/mounts",
        mounts(json!({"destination": "/a", "type": "bind"})),
        "mounts[0].source",
    );
    refused(
        "/mounts",
        mounts(json!({"destination": "/a", "type": "bind", "source": "b", "options": ["tmpcopyup"]})),
        "tmpcopyup",
    );
    refused(
        "/mounts",
        mounts(json!({"destination": "/a", "type": "bind", "source": "b", "options": ["idmap"]})),
        "both uid and gid mappings",
    );
    refused(
        "/mounts",
        mounts(
            json!({"destination": "/a", "type": "tmpfs", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
        ),
        "only supported for bind-mounts",
    );
    refused(
        "/linux/namespaces",
        json!([{"type": "mount"}, {"type": "user"}]),
        "linux.uidMappings",
    );
    refused(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": 1, "size": 1}]),
        "uidMappings",
    );
    refused("/linux/sysctl", json!({"kernel.panic": "1"}), "kernel.panic");
    refused("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}), "net");
    refused(
        "/linux/rootfsPropagation",
        json!("sideways"),
        "linux.rootfsPropagation",
    );
    refused(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 1}}),
        "linux.timeOffsets",
    );
    refused(
        "/linux/intelRdt",
        json!({"closID": "x/y"}),
        "linux.intelRdt.closID",
    );
    refused("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices");
    refused("/hostname", json!("x"), "uts");
    refused("/process/args", json!([]), "process.args");
    refused("/process/cwd", json!("relative"), "process.cwd");
    refused("/process/env", json!(["NOVALUE"]), "process.env");
    refused("/process/apparmorProfile", json!("profile"), "AppArmor");
    refused("/process/selinuxLabel", json!("a:b:c"), "SELinux");
    refused("/process/oomScoreAdj", json!(1001), "oomScoreAdj");
    refused("/linux/mountLabel", json!("a:b:c"), "linux.mountLabel");
}

#[test]
fn a_sysctl_may_be_written_with_either_separator() {
    let plan = compile(&usual()).unwrap();
    let paths: Vec<&str> = plan
        .sysctls
        .iter()
        .map(|(path, _)| path.to_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["sys/net/ipv4/conf/eth0.1/forwarding", "sys/net/ipv4/ip_forward"]
    );
}

#[test]
fn a_container_in_the_host_s_mount_namespace() {
    let mut document = minimal();
    document["linux"]["namespaces"] = json!([{"type": "pid"}]);
    let plan = compile(&document).unwrap();
    assert_eq!(plan.rootfs.propagation, None);
    assert_eq!(plan.rootfs.way, crate::rootfs::Way::Chroot);
    document["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
    let error = compile(&document).unwrap_err().to_string();
    assert!(
        error.contains("unable to restrict sys entries without a private MNT namespace"),
        "{error}"
    );
}

/// Everything that the options of a mount can ask for.
#[test]
fn mounts_of_every_kind() {
    let mut document = minimal();
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    document["mounts"] = json!([
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "ro", "strictatime"]},
        {"destination": "/copy", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro", "mode=700"]},
        {"destination": "/bundle/rootfs/by/host/path", "type": "bind", "source": "/src", "options": ["bind"]},
        {"destination": "/flags", "source": "src",
         "options": ["rbind", "ro", "dev", "noatime", "rnosuid", "rslave", "shared", "z=ignored"]},
        {"destination": "/mapped", "source": "src", "options": ["rbind", "ridmap"], "uidMappings": maps, "gidMappings": maps},
        {"destination": "/overlay", "type": "overlay", "source": "overlay",
         "options": [format!("lowerdir={}", "/l".repeat(200)), "upperdir=/u", "workdir=/w", "sync"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        {"destination": "/flags", "options": ["bind", "remount", "nosuid"]},
        {"destination": "/copy", "type": "tmpfs", "options": ["remount", "size=1m", "ro"]},
    ]);
    document["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/../proc/kcore", "/sys/firmware/"]);
    document["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/sys"]);
    let plan = compile(&document).unwrap();
    assert_eq!(
        plan.rootfs.warnings,
        ["mounts[3]: z=ignored has no meaning for a bind mount"]
    );
    compare("mounts.txt", &plan);
}
