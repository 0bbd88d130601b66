//! The OCI spec of a container, from what was merged and checked.
//!
//! Owns Docker's defaults: environment, masked and read-only paths, namespaces, cgroup path. Pure but for device nodes,
//! which are looked up on the host.

use super::facts::Facts;
use super::mount::Requested;
use super::user::User;
use super::{capability, command, device, merge_env, mount, resource, seccomp};
use crate::api::types::{ContainerConfig, ExecConfig, HostConfig};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Everything a spec is made from.
pub struct Input<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Image and request merged.
    pub config: &'a ContainerConfig,
    /// What was asked of the host.
    pub host: &'a HostConfig,
    /// Whether the container has a network of its own, with loopback only.
    pub private_network: bool,
    /// The mounts that were asked for.
    pub mounts: &'a [Requested],
    /// Who the process is.
    pub user: &'a User,
    /// The directory with the generated `hosts`, `hostname` and `resolv.conf`.
    pub files: &'a Path,
    /// The host.
    pub facts: &'a Facts,
}

/// Builds the spec.
///
/// # Errors
///
/// A request that cannot be met; see the modules that check its parts.
pub fn build(input: &Input<'_>) -> Result<Value> {
    let (config, host) = (input.config, input.host);
    let security = Security::read(host)?;
    let capabilities = capability::resolve(
        host.privileged,
        &host.cap_add,
        &host.cap_drop,
        input.facts.capabilities,
    )?;
    let mut process = json!({
        "terminal": config.tty,
        "user": { "uid": input.user.uid, "gid": input.user.gid, "additionalGids": input.user.groups },
        "args": command(config),
        "env": environment(input)?,
        "cwd": if config.working_dir.is_empty() { "/" } else { &config.working_dir },
        "capabilities": capability_sets(&capabilities, input.user.uid),
        "noNewPrivileges": security.no_new_privileges,
    });
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        let message = format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        );
        return Err(Error::invalid(message));
    }
    let rlimits = resource::rlimits(host)?;
    if !rlimits.is_empty() {
        process["rlimits"] = rlimits.into();
    }
    if host.oom_score_adj != 0 {
        if !(-1000..=1000).contains(&host.oom_score_adj) {
            let message = format!(
                "Invalid value {}, range for oom score adj is [-1000, 1000]",
                host.oom_score_adj
            );
            return Err(Error::invalid(message));
        }
        process["oomScoreAdj"] = host.oom_score_adj.into();
    }
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": { "path": "rootfs", "readonly": host.readonly_rootfs },
        "mounts": mount::oci_mounts(host, input.mounts, input.files),
        "linux": linux(input, &security, &capabilities)?,
    });
    if host.uts_mode != "host" {
        spec["hostname"] = hostname(input).into();
    }
    if !host.annotations.is_empty() {
        spec["annotations"] = json!(host.annotations);
    }
    Ok(spec)
}

/// The process of an exec: the container's own with what was asked for in its place.
///
/// # Errors
///
/// An environment entry or a directory that is wrong.
pub fn exec_process(spec: &Value, exec: &ExecConfig, user: Option<&User>, facts: &Facts) -> Result<Value> {
    let mut process = spec["process"].clone();
    let base: Vec<String> = serde_json::from_value(process["env"].clone())
        .map_err(|error| Error::system(format!("read the container's environment: {error}")))?;
    let mut env = merge_env(&base, &exec.env)?;
    if let Some(user) = user {
        env.retain(|entry| !entry.starts_with("HOME=") || exec.env.contains(entry));
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", user.home));
        }
        process["user"] = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups });
    }
    env.retain(|entry| {
        !entry.starts_with("TERM=") || exec.tty || base.contains(entry) || exec.env.contains(entry)
    });
    if exec.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    let uid = process["user"]["uid"]
        .as_u64()
        .and_then(|uid| u32::try_from(uid).ok())
        .unwrap_or(0);
    if exec.privileged {
        let all = capability::resolve(true, &[], &[], facts.capabilities)?;
        process["capabilities"] = capability_sets(&all, uid);
        process["capabilities"]["effective"] = json!(all);
        process["capabilities"]["permitted"] = json!(all);
    } else if user.is_some() {
        let bounding = process["capabilities"]["bounding"].clone();
        let held = if uid == 0 { bounding.clone() } else { json!([]) };
        process["capabilities"] =
            json!({ "bounding": bounding, "effective": held, "permitted": held, "inheritable": [] });
    }
    process["args"] = json!(exec.cmd);
    process["env"] = json!(env);
    process["terminal"] = exec.tty.into();
    if let (true, Some([height, width])) = (exec.tty, exec.console_size) {
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    if !exec.working_dir.is_empty() {
        if !exec.working_dir.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory '{}' needs to be an absolute path",
                exec.working_dir
            )));
        }
        process["cwd"] = exec.working_dir.clone().into();
    }
    Ok(process)
}

/// The host name inside.
pub fn hostname(input: &Input<'_>) -> String {
    if input.config.hostname.is_empty() {
        input.id.chars().take(12).collect()
    } else {
        input.config.hostname.clone()
    }
}

// A process that is not root starts with no capability, as execve would leave it; the bounding set says what it can gain.
fn capability_sets(capabilities: &[&str], uid: u32) -> Value {
    let held: &[&str] = if uid == 0 { capabilities } else { &[] };
    json!({ "bounding": capabilities, "effective": held, "permitted": held, "inheritable": [] })
}

fn environment(input: &Input<'_>) -> Result<Vec<String>> {
    let mut base = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", hostname(input))];
    if input.config.tty {
        base.push("TERM=xterm".to_owned());
    }
    base.push(format!("HOME={}", input.user.home));
    merge_env(&base, &input.config.env)
}

struct Security {
    seccomp: bool,
    no_new_privileges: bool,
}

impl Security {
    fn read(host: &HostConfig) -> Result<Self> {
        let mut security = Self {
            seccomp: !host.privileged,
            no_new_privileges: false,
        };
        for option in &host.security_opt {
            match option.split_once(['=', ':']).unwrap_or((option, "")) {
                ("seccomp", "unconfined") => security.seccomp = false,
                ("seccomp", "builtin") => security.seccomp = true,
                ("seccomp", _) => {
                    return Err(Error::not_supported(
                        "SecurityOpt: a seccomp profile of one's own",
                    ));
                }
                ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
                ("no-new-privileges", "false") => security.no_new_privileges = false,
                // No profile and no label is what there is.
                ("apparmor", "unconfined") | ("label", "disable") => {}
                (name, _) => return Err(Error::not_supported(format!("SecurityOpt: {name}"))),
            }
        }
        Ok(security)
    }
}

fn linux(input: &Input<'_>, security: &Security, capabilities: &[&str]) -> Result<Value> {
    let host = input.host;
    let devices = device::devices(host)?;
    let mut resources = resource::resources(host, input.facts)?;
    resources.insert("devices".to_owned(), devices.rules.into());
    let mut linux = json!({
        "namespaces": namespaces(input)?,
        "devices": devices.nodes,
        "resources": resources,
        "cgroupsPath": cgroup_path(input)?,
        "maskedPaths": masked(input),
        "readonlyPaths": match &host.readonly_paths {
            Some(paths) => paths.clone(),
            None if host.privileged => Vec::new(),
            None => READONLY.map(str::to_owned).to_vec(),
        },
        "sysctl": sysctls(input)?,
    });
    if security.seccomp {
        linux["seccomp"] = seccomp::profile(capabilities);
    }
    Ok(linux)
}

fn masked(input: &Input<'_>) -> Vec<String> {
    match &input.host.masked_paths {
        Some(paths) => paths.clone(),
        None if input.host.privileged => Vec::new(),
        None => MASKED
            .iter()
            .map(|path| (*path).to_owned())
            .chain(input.facts.thermal_paths.iter().cloned())
            .collect(),
    }
}

fn namespaces(input: &Input<'_>) -> Result<Vec<Value>> {
    let host = input.host;
    let unsupported = |field: &str, value: &str| Err(Error::not_supported(format!("{field}: {value:?}")));
    let mut kinds = vec!["mount"];
    match host.uts_mode.as_str() {
        "" => kinds.push("uts"),
        "host" => {}
        other => return unsupported("UTSMode", other),
    }
    match host.ipc_mode.as_str() {
        "" | "private" | "shareable" | "none" => kinds.push("ipc"),
        "host" => {}
        other => return unsupported("IpcMode", other),
    }
    match host.pid_mode.as_str() {
        "" => kinds.push("pid"),
        "host" => {}
        other => return unsupported("PidMode", other),
    }
    if input.private_network {
        kinds.push("network");
    }
    match host.cgroupns_mode.as_str() {
        "private" => kinds.push("cgroup"),
        "" if input.facts.cgroup_v2 && !host.privileged => kinds.push("cgroup"),
        "" | "host" => {}
        other => return unsupported("CgroupnsMode", other),
    }
    Ok(kinds.into_iter().map(|kind| json!({ "type": kind })).collect())
}

fn cgroup_path(input: &Input<'_>) -> Result<String> {
    let parent = if input.host.cgroup_parent.is_empty() {
        "/wharf"
    } else {
        &input.host.cgroup_parent
    };
    let relative = parent.strip_prefix('/').unwrap_or(parent);
    if relative.is_empty()
        || relative
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        || relative.ends_with(".slice")
    {
        return Err(Error::invalid(format!(
            "invalid CgroupParent: {parent:?} is not a plain path of cgroups"
        )));
    }
    Ok(format!("/{relative}/{}", input.id))
}

fn sysctls(input: &Input<'_>) -> Result<Map<String, Value>> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let mut sysctls = Map::new();
    if input.private_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".into());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".into());
    }
    if !input.config.domainname.is_empty() && input.host.uts_mode != "host" {
        sysctls.insert(
            "kernel.domainname".to_owned(),
            input.config.domainname.clone().into(),
        );
    }
    for (name, value) in &input.host.sysctls {
        let own_ipc =
            input.host.ipc_mode != "host" && (IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue."));
        let own_network = input.private_network && name.starts_with("net.");
        // Anything else is the host's.
        if !(own_ipc || own_network) || name.contains('/') || name.contains("..") {
            return Err(Error::invalid(format!(
                "sysctl {name:?} is not in a namespace of the container"
            )));
        }
        sysctls.insert(name.clone(), value.clone().into());
    }
    Ok(sysctls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::config::{ImageDefaults, merge};

    fn facts() -> Facts {
        Facts {
            cgroup_v2: true,
            swap_limit: true,
            capabilities: u64::MAX,
            thermal_paths: Vec::new(),
        }
    }

    fn spec(config: &ContainerConfig, host: &HostConfig, user: &User) -> Result<Value> {
        build(&Input {
            id: "0123456789abcdef",
            config,
            host,
            private_network: host.network_mode != "host",
            mounts: &mount::requested(host)?,
            user,
            files: Path::new("/files"),
            facts: &facts(),
        })
    }

    fn root() -> User {
        User {
            home: "/root".to_owned(),
            ..Default::default()
        }
    }

    fn shell() -> ContainerConfig {
        ContainerConfig {
            cmd: vec!["sh".to_owned()],
            ..Default::default()
        }
    }

    #[test]
    fn defaults_are_those_of_docker() {
        let spec = spec(&shell(), &HostConfig::default(), &root()).unwrap();
        assert_eq!(spec["process"]["args"], json!(["sh"]));
        assert_eq!(spec["process"]["cwd"], "/");
        assert_eq!(spec["hostname"], "0123456789ab");
        assert_eq!(
            spec["process"]["env"],
            json!([DEFAULT_PATH, "HOSTNAME=0123456789ab", "HOME=/root"])
        );
        assert_eq!(spec["linux"]["cgroupsPath"], "/wharf/0123456789abcdef");
        assert_eq!(spec["process"]["capabilities"]["inheritable"], json!([]));
        assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        let kinds: Vec<_> = spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kind| kind["type"].clone())
            .collect();
        assert_eq!(kinds, ["mount", "uts", "ipc", "pid", "network", "cgroup"]);
    }

    #[test]
    fn other_users_start_without_capabilities() {
        let user = User {
            uid: 1,
            home: "/".to_owned(),
            ..Default::default()
        };
        let sets = spec(&shell(), &HostConfig::default(), &user).unwrap()["process"]["capabilities"].clone();
        assert_eq!(sets["effective"], json!([]));
        assert_eq!(sets["permitted"], json!([]));
        assert_eq!(
            sets["bounding"].as_array().unwrap().len(),
            capability::DEFAULT.len()
        );
    }

    #[test]
    fn an_exec_by_another_user_loses_what_root_had() {
        let spec = spec(&shell(), &HostConfig::default(), &root()).unwrap();
        let user = User {
            uid: 1,
            home: "/one".to_owned(),
            ..Default::default()
        };
        let process = exec_process(&spec, &ExecConfig::default(), Some(&user), &facts()).unwrap();
        assert_eq!(process["user"]["uid"], 1);
        assert_eq!(process["capabilities"]["effective"], json!([]));
        assert!(process["env"].as_array().unwrap().contains(&json!("HOME=/one")));
        let process = exec_process(&spec, &ExecConfig::default(), None, &facts()).unwrap();
        assert_eq!(process["capabilities"], spec["process"]["capabilities"]);
    }

    #[test]
    fn images_reach_only_what_images_may() {
        let hostile = br#"{"config":{"Cmd":["sh"],"User":"","Labels":{"io.x/log":"binary:///bin/sh","privileged":"true"},
            "Volumes":{"/../../etc":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGSTOP",
            "Mounts":[{"Type":"bind","Source":"/"}],"Privileged":true,"Annotations":{"a":"b"},"CapAdd":["ALL"]}}"#;
        let plain = merge(
            &ImageDefaults::read(br#"{"config":{"Cmd":["sh"]}}"#).unwrap(),
            ContainerConfig::default(),
        )
        .unwrap();
        let merged = merge(&ImageDefaults::read(hostile).unwrap(), ContainerConfig::default()).unwrap();
        let host = HostConfig::default();
        assert_eq!(
            spec(&merged, &host, &root()).unwrap(),
            spec(&plain, &host, &root()).unwrap()
        );
    }

    #[test]
    fn what_is_the_hosts_is_refused() {
        for (name, host) in [
            (
                "sysctl",
                HostConfig {
                    sysctls: [("kernel.core_pattern".to_owned(), "|/x".to_owned())].into(),
                    ..Default::default()
                },
            ),
            (
                "net sysctl",
                HostConfig {
                    network_mode: "host".to_owned(),
                    sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
                    ..Default::default()
                },
            ),
            (
                "cgroup",
                HostConfig {
                    cgroup_parent: "../x".to_owned(),
                    ..Default::default()
                },
            ),
            (
                "seccomp file",
                HostConfig {
                    security_opt: vec!["seccomp={}".to_owned()],
                    ..Default::default()
                },
            ),
            (
                "apparmor",
                HostConfig {
                    security_opt: vec!["apparmor=mine".to_owned()],
                    ..Default::default()
                },
            ),
            (
                "pid",
                HostConfig {
                    pid_mode: "container:x".to_owned(),
                    ..Default::default()
                },
            ),
        ] {
            assert!(spec(&shell(), &host, &root()).is_err(), "{name}");
        }
    }
}
