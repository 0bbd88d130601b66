//! `probe identity`: who and what this process is.

use std::collections::BTreeMap;
use std::{env, fs, io};

use serde_json::{Value, json};

/// The process's ids, capabilities, flags, namespaces, open descriptors, environment and mounts.
pub(crate) fn report() -> io::Result<Value> {
    let status = fs::read_to_string("/proc/self/status")?;
    let status: BTreeMap<&str, &str> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let wanted = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Umask",
    ];
    let status: BTreeMap<&str, &str> = wanted
        .into_iter()
        .filter_map(|key| status.get(key).map(|value| (key, *value)))
        .collect();
    let mut namespaces = BTreeMap::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}"))?;
        namespaces.insert(name, link.to_string_lossy().into_owned());
    }
    let mut descriptors = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().into_owned();
        // The directory that is being read is a descriptor too, gone by the time its link is read.
        if let Ok(target) = fs::read_link(entry.path()) {
            let target = target.to_string_lossy().into_owned();
            if !target.ends_with(&format!("/proc/{}/fd", std::process::id())) {
                descriptors.insert(number, target);
            }
        }
    }
    let environment: BTreeMap<String, String> = env::vars().collect();
    let mounts: Vec<String> = fs::read_to_string("/proc/self/mountinfo")?
        .lines()
        .map(mount_line)
        .collect();
    Ok(json!({
        "status": status,
        "namespaces": namespaces,
        "descriptors": descriptors,
        "environment": environment,
        "cwd": env::current_dir()?.to_string_lossy(),
        "mounts": mounts,
    }))
}

/// A line of mountinfo without the ids that differ from run to run: mount point, options, type, source.
fn mount_line(line: &str) -> String {
    let (left, right) = line.split_once(" - ").unwrap_or((line, ""));
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let field = |list: &[&str], index: usize| list.get(index).copied().unwrap_or_default().to_string();
    format!(
        "{} {} {} {}",
        field(&left, 4),
        field(&left, 5),
        field(&right, 0),
        field(&right, 1)
    )
}
