//! Capabilities by name: Docker's default set, and what `CapAdd` and `CapDrop` make of it.

use crate::error::{Error, Result};

/// What a container has when nothing is asked for.
pub const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability by its number in the kernel's interface.
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The capabilities of a container, in the kernel's order, of those in `available` (the bits the daemon itself can
/// give). `privileged` means all of them.
///
/// # Errors
///
/// A name is not a capability; or one that was asked for by name is not available here.
pub fn resolve(
    privileged: bool,
    add: &[String],
    drop: &[String],
    available: u64,
) -> Result<Vec<&'static str>> {
    let bit = |name: &str| {
        ALL.iter()
            .position(|other| *other == name)
            .map_or(0, |number| 1u64 << number)
    };
    let set = |names: &[String]| {
        names.iter().try_fold(0, |bits, name| {
            let parsed = parse(name)?;
            Ok::<u64, Error>(bits | if parsed == "ALL" { u64::MAX } else { bit(parsed) })
        })
    };
    let all = (1u64 << ALL.len()) - 1;
    let (added, dropped) = (set(add)?, set(drop)?);
    for name in add {
        let parsed = parse(name)?;
        if parsed != "ALL" && bit(parsed) & available == 0 {
            return Err(Error::invalid(format!(
                "CapAdd: {parsed} is not available on this host"
            )));
        }
    }
    let base = DEFAULT.iter().fold(0, |bits, name| bits | bit(name));
    let result = if privileged {
        all
    } else if added == u64::MAX {
        all & !if dropped == u64::MAX { 0 } else { dropped }
    } else if dropped == u64::MAX {
        added
    } else {
        (base & !dropped) | added
    };
    let held = |number: &usize| result & available & (1 << number) != 0;
    Ok((0..ALL.len()).filter(held).map(|number| ALL[number]).collect())
}

fn parse(name: &str) -> Result<&'static str> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok("ALL");
    }
    let full = if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    };
    ALL.iter()
        .find(|known| **known == full)
        .copied()
        .ok_or_else(|| Error::invalid(format!("invalid capability: {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn resolved(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        resolve(false, &names(add), &names(drop), u64::MAX).unwrap()
    }

    #[test]
    fn sets_combine_as_in_docker() {
        let mut default = resolved(&[], &[]);
        default.sort_unstable();
        assert_eq!(default, DEFAULT);
        assert!(resolved(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN"));
        assert!(!resolved(&[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN"));
        assert_eq!(resolved(&["CHOWN"], &["ALL"]), ["CAP_CHOWN"]);
        assert_eq!(resolved(&["ALL"], &["SYS_ADMIN"]).len(), ALL.len() - 1);
        assert_eq!(resolved(&[], &["ALL"]), Vec::<&str>::new());
    }

    #[test]
    fn unknown_and_unavailable_names_are_refused() {
        assert!(resolve(false, &names(&["FLY"]), &[], u64::MAX).is_err());
        assert!(resolve(false, &names(&["SYS_ADMIN"]), &[], 1).is_err());
        assert_eq!(resolve(true, &[], &[], 1).unwrap(), ["CAP_CHOWN"]);
    }
}
