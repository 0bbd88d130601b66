//! Mounts: Docker's default set, and what a request puts beside or in place of them.
//!
//! Refuses named volumes and relative sources by name. The source of a bind in the short form is made when it is
//! missing, as Docker does; in the long form it must exist.

use crate::api::types::{HostConfig, MountPoint};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::path::{Component, Path};

const DEFAULT_SHM: i64 = 64 << 20;

/// A mount that was asked for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// The host's path, or `tmpfs`.
    pub source: String,
    /// The path inside, absolute and without `..`.
    pub target: String,
    /// What it is.
    pub kind: Kind,
    /// Options of the OCI spec.
    pub options: Vec<String>,
    /// The options as written.
    pub mode: String,
    /// Whether a missing source is made as a directory.
    pub create_source: bool,
}

/// What a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path of the host.
    Bind,
    /// A file system in memory.
    Tmpfs,
}

/// Reads `Binds`, `Mounts` and `Tmpfs` of a request.
///
/// # Errors
///
/// A form that is wrong, two mounts on one target, or a kind of mount that is not there yet.
pub fn requested(host: &HostConfig) -> Result<Vec<Requested>> {
    let mut mounts = Vec::new();
    for bind in &host.binds {
        mounts.push(parse_bind(bind)?);
    }
    for mount in &host.mounts {
        mounts.push(long_form(mount)?);
    }
    for (target, options) in &host.tmpfs {
        mounts.push(tmpfs(target, options)?);
    }
    // A parent is mounted before what lies below it.
    mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
    for (index, mount) in mounts.iter().enumerate() {
        if mounts[..index].iter().any(|other| other.target == mount.target) {
            return Err(Error::invalid(format!("Duplicate mount point: {}", mount.target)));
        }
    }
    Ok(mounts)
}

fn parse_bind(bind: &str) -> Result<Requested> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{bind}'"));
    let mut parts = bind.split(':');
    let (source, target, mode) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(target), mode, None) => (source, target, mode.unwrap_or_default()),
        (Some(_), None, ..) => {
            return Err(Error::not_supported(format!(
                "Binds: the anonymous volume {bind:?}"
            )));
        }
        _ => return Err(invalid()),
    };
    if source.is_empty() {
        return Err(invalid());
    }
    if !source.starts_with('/') {
        return Err(Error::not_supported(format!(
            "Binds: the named volume {source:?}"
        )));
    }
    let (mut access, mut propagation) = ("rw", "rprivate");
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" | "rw" => access = word,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => propagation = word,
            // Hints for hosts whose files are far away, and labels that only mean something with SELinux.
            "consistent" | "cached" | "delegated" => {}
            "z" | "Z" if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            "z" | "Z" => {
                return Err(Error::not_supported(format!(
                    "Binds: SELinux relabelling {word:?}"
                )));
            }
            "nocopy" => {
                return Err(Error::invalid(format!(
                    "invalid mode: {mode}: nocopy is for volumes"
                )));
            }
            _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
        }
    }
    Ok(Requested {
        source: source.to_owned(),
        target: clean_target(target)?,
        kind: Kind::Bind,
        options: ["rbind", propagation, access].map(str::to_owned).to_vec(),
        mode: mode.to_owned(),
        create_source: true,
    })
}

fn long_form(mount: &crate::api::types::Mount) -> Result<Requested> {
    let access = if mount.read_only { "ro" } else { "rw" };
    match mount.r#type.as_str() {
        "bind" => {
            if !mount.source.starts_with('/') {
                let message = format!(
                    "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
                    mount.source
                );
                return Err(Error::invalid(message));
            }
            let mut create_source = false;
            let mut propagation = "rprivate".to_owned();
            let mut recursive = "rbind";
            for (name, value) in members(mount, "BindOptions") {
                match (name.as_str(), value) {
                    (_, value) if is_nothing(value) => {}
                    ("CreateMountpoint", Value::Bool(true)) => create_source = true,
                    ("NonRecursive", Value::Bool(true)) => recursive = "bind",
                    ("Propagation", Value::String(word)) => {
                        if !["private", "rprivate", "shared", "rshared", "slave", "rslave"]
                            .contains(&word.as_str())
                        {
                            return Err(Error::invalid(format!("invalid propagation mode: {word}")));
                        }
                        propagation.clone_from(word);
                    }
                    _ => return Err(Error::not_supported(format!("Mounts: BindOptions.{name}"))),
                }
            }
            refuse_rest(mount, "BindOptions")?;
            if !create_source && !Path::new(&mount.source).exists() {
                let message = format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    mount.source
                );
                return Err(Error::invalid(message));
            }
            Ok(Requested {
                source: mount.source.clone(),
                target: clean_target(&mount.target)?,
                kind: Kind::Bind,
                options: [recursive, &propagation, access].map(str::to_owned).to_vec(),
                mode: String::new(),
                create_source,
            })
        }
        "tmpfs" => {
            let mut options = vec![access.to_owned()];
            for (name, value) in members(mount, "TmpfsOptions") {
                match (name.as_str(), value.as_u64()) {
                    (_, _) if is_nothing(value) => {}
                    ("SizeBytes", Some(size)) => options.push(format!("size={size}")),
                    ("Mode", Some(mode)) => options.push(format!("mode={mode:o}")),
                    _ => return Err(Error::not_supported(format!("Mounts: TmpfsOptions.{name}"))),
                }
            }
            refuse_rest(mount, "TmpfsOptions")?;
            tmpfs(&mount.target, &options.join(","))
        }
        "" => Err(Error::invalid("invalid mount config: Type is missing")),
        other => Err(Error::not_supported(format!("Mounts: type {other:?}"))),
    }
}

fn members<'a>(
    mount: &'a crate::api::types::Mount,
    name: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    mount
        .rest
        .get(name)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn refuse_rest(mount: &crate::api::types::Mount, handled: &str) -> Result<()> {
    const KNOWN: [&str; 5] = [
        "BindOptions",
        "TmpfsOptions",
        "VolumeOptions",
        "ImageOptions",
        "ClusterOptions",
    ];
    // How eagerly a far-away file system is kept in step means nothing here.
    match mount
        .rest
        .iter()
        .find(|(name, value)| *name != handled && KNOWN.contains(&name.as_str()) && !is_nothing(value))
    {
        Some((name, _)) => Err(Error::invalid(format!(
            "invalid mount config for type {:?}: field {name} must not be specified",
            mount.r#type
        ))),
        None => Ok(()),
    }
}

/// Whether a member asks for nothing.
pub fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_nothing),
    }
}

fn tmpfs(target: &str, options: &str) -> Result<Requested> {
    let mut words: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some(("size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks", _)) => {}
            None if ["exec", "suid", "dev"].contains(&word) => {
                words.retain(|other| *other != format!("no{word}"));
            }
            None if ["ro", "rw", "noexec", "nosuid", "nodev", "noatime", "relatime"].contains(&word) => {}
            _ => return Err(Error::invalid(format!("invalid tmpfs option {word:?}"))),
        }
        if !words.iter().any(|other| other == word) {
            words.push(word.to_owned());
        }
    }
    Ok(Requested {
        source: "tmpfs".to_owned(),
        target: clean_target(target)?,
        kind: Kind::Tmpfs,
        options: words,
        mode: options.to_owned(),
        create_source: false,
    })
}

fn clean_target(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let mut clean = String::new();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => {
                clean.push('/');
                clean.push_str(&name.to_string_lossy());
            }
            Component::RootDir | Component::CurDir => {}
            _ => {
                return Err(Error::invalid(format!(
                    "invalid mount path: '{target}' contains '..'"
                )));
            }
        }
    }
    if clean.is_empty() {
        return Err(Error::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(clean)
}

/// The `mounts` of the OCI spec: the default ones, the generated files in `files`, and the requested ones, which take
/// the place of a default one on the same target.
pub fn oci_mounts(host: &HostConfig, requested: &[Requested], files: &Path) -> Vec<Value> {
    let mut mounts = defaults(host);
    for name in ["resolv.conf", "hostname", "hosts"] {
        let source = files.join(name).to_string_lossy().into_owned();
        mounts.push(mount(
            &format!("/etc/{name}"),
            "bind",
            &source,
            &["rbind", "rprivate"],
        ));
    }
    mounts.retain(|default| {
        !requested
            .iter()
            .any(|wanted| default["destination"] == wanted.target.as_str())
    });
    for wanted in requested {
        let kind = match wanted.kind {
            Kind::Bind => "bind",
            Kind::Tmpfs => "tmpfs",
        };
        let options: Vec<&str> = wanted.options.iter().map(String::as_str).collect();
        mounts.push(mount(&wanted.target, kind, &wanted.source, &options));
    }
    mounts
}

fn defaults(host: &HostConfig) -> Vec<Value> {
    let access = if host.privileged { "rw" } else { "ro" };
    let shm = format!(
        "size={}",
        if host.shm_size == 0 {
            DEFAULT_SHM
        } else {
            host.shm_size
        }
    );
    let plain = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &plain),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/sys", "sysfs", "sysfs", &[&plain[..], &[access]].concat()),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[&[access], &plain[..]].concat(),
        ),
    ];
    if host.ipc_mode == "host" {
        mounts.push(mount(
            "/dev/mqueue",
            "bind",
            "/dev/mqueue",
            &["rbind", "rprivate"],
        ));
        mounts.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"]));
    } else {
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &plain));
        if host.ipc_mode != "none" {
            mounts.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &[&plain[..], &["mode=1777", &shm]].concat(),
            ));
        }
    }
    mounts
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// The requested mounts as an inspection shows them.
pub fn mount_points(requested: &[Requested]) -> Vec<MountPoint> {
    let show = |mount: &Requested| {
        let bind = mount.kind == Kind::Bind;
        MountPoint {
            r#type: if bind { "bind" } else { "tmpfs" }.to_owned(),
            source: if bind { mount.source.clone() } else { String::new() },
            destination: mount.target.clone(),
            mode: mount.mode.clone(),
            rw: !mount.options.iter().any(|option| option == "ro"),
            propagation: if bind {
                mount.options.get(1).cloned().unwrap_or_default()
            } else {
                String::new()
            },
        }
    };
    requested.iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> Result<Requested> {
        parse_bind(text)
    }

    #[test]
    fn binds_are_read() {
        let read = bind("/a:/b/./c/:ro,rslave").unwrap();
        assert_eq!((read.source.as_str(), read.target.as_str()), ("/a", "/b/c"));
        assert_eq!(read.options, ["rbind", "rslave", "ro"]);
        assert_eq!(bind("/a:/b").unwrap().options, ["rbind", "rprivate", "rw"]);
    }

    #[test]
    fn what_is_wrong_or_not_there_is_refused() {
        for text in [
            "name:/b",
            "/a",
            "/a:b",
            "/a:/",
            "/a:/b/../c",
            "/a:/b:rx",
            "/a:/b:ro:x",
            ":/b",
            "/a:/b:nocopy",
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
        let host = HostConfig {
            binds: vec!["/a:/x".to_owned(), "/b:/x/".to_owned()],
            ..Default::default()
        };
        assert!(requested(&host).is_err());
    }

    #[test]
    fn parents_come_first_and_defaults_give_way() {
        let host = HostConfig {
            binds: vec![
                "/1:/data/deep".to_owned(),
                "/2:/data".to_owned(),
                "/3:/dev/shm".to_owned(),
            ],
            ..Default::default()
        };
        let wanted = requested(&host).unwrap();
        let targets: Vec<&str> = wanted.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/data", "/data/deep", "/dev/shm"]);
        let mounts = oci_mounts(&host, &wanted, Path::new("/files"));
        let shm: Vec<_> = mounts
            .iter()
            .filter(|mount| mount["destination"] == "/dev/shm")
            .collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0]["source"], "/3");
    }

    #[test]
    fn tmpfs_options_are_checked() {
        assert_eq!(
            tmpfs("/t", "exec,size=1m").unwrap().options,
            ["nosuid", "nodev", "exec", "size=1m"]
        );
        assert!(tmpfs("/t", "bind").is_err());
        assert!(tmpfs("/t", "context=x").is_err());
    }
}
