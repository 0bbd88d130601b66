//! Which devices a container may open or make.
//!
//! The OCI rules are applied one after the other to a model of the kernel's v1 device list: a default, and
//! exceptions from it. What comes out is written to `devices.allow`/`devices.deny` (v1) or compiled to eBPF
//! (v2), so that both layouts decide alike ([cgroup-v1/devices.rst]).
//!
//! Refused here: taking a part out of an exception with wildcards. v1 ignores such a rule silently, and a
//! rule that seems to protect but does not is worse than an error.
//!
//! [cgroup-v1/devices.rst]: https://docs.kernel.org/admin-guide/cgroup-v1/devices.html

use std::collections::BTreeMap;
use std::fmt;

use super::Error;
use super::write::Write;
use crate::spec::oci::{LinuxDeviceCgroup, LinuxDeviceType};

/// `r`, `w` and `m` as bits, in the values of `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Access(u8);

impl Access {
    pub const MKNOD: Self = Self(1);
    pub const ALL: Self = Self(7);

    fn parse(letters: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in letters.chars() {
            bits |= match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => return None,
            };
        }
        (bits != 0).then_some(Self(bits))
    }

    pub fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(2, "r"), (4, "w"), (1, "m")] {
            if self.0 & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// The devices that an exception is about. Ordered by numbers, so that the same rules give the same writes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Device {
    /// Nothing stands for every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// A block device, or a character device.
    pub block: bool,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.block { "b " } else { "c " })?;
        match self.major {
            Some(major) => write!(f, "{major}:")?,
            None => f.write_str("*:")?,
        }
        match self.minor {
            Some(minor) => write!(f, "{minor}"),
            None => f.write_str("*"),
        }
    }
}

/// The outcome of a list of rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DeviceRules {
    /// What happens to a device without an exception.
    pub allow_by_default: bool,
    /// What is decided the other way.
    pub exceptions: BTreeMap<Device, Access>,
}

/// What every container gets on top of its own rules: making any node, and using the harmless ones.
///
/// The list is that of runc: programs rely on it although the OCI specification asks for less.
const ALWAYS: [(Option<u32>, Option<u32>, bool, Access); 11] = [
    (None, None, false, Access::MKNOD),
    (None, None, true, Access::MKNOD),
    (Some(1), Some(3), false, Access::ALL),    // /dev/null
    (Some(1), Some(8), false, Access::ALL),    // /dev/random
    (Some(1), Some(7), false, Access::ALL),    // /dev/full
    (Some(5), Some(0), false, Access::ALL),    // /dev/tty
    (Some(1), Some(5), false, Access::ALL),    // /dev/zero
    (Some(1), Some(9), false, Access::ALL),    // /dev/urandom
    (Some(136), None, false, Access::ALL),     // /dev/pts/*
    (Some(5), Some(2), false, Access::ALL),    // /dev/ptmx
    (Some(10), Some(200), false, Access::ALL), // /dev/net/tun
];

impl DeviceRules {
    /// Applies the rules of `linux.resources.devices` in their order, then [`ALWAYS`].
    pub fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Self, Error> {
        let mut outcome = Self {
            allow_by_default: false,
            exceptions: BTreeMap::new(),
        };
        for (index, rule) in rules.iter().enumerate() {
            let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
            let letters = rule.access.as_str();
            if letters.is_empty() {
                return Err(Error::field(field("access"), "must not be empty"));
            }
            let access = Access::parse(letters)
                .ok_or_else(|| Error::field(field("access"), format!("unknown access {letters:?}")))?;
            let block = match rule.typ.unwrap_or(LinuxDeviceType::A) {
                LinuxDeviceType::A => {
                    // As for the kernel, `a` is everything, whatever numbers stand beside it.
                    outcome = Self {
                        allow_by_default: rule.allow,
                        exceptions: BTreeMap::new(),
                    };
                    continue;
                }
                LinuxDeviceType::B => true,
                LinuxDeviceType::C => false,
                other => {
                    let problem = format!("invalid cgroup device type {:?}", other.as_str());
                    return Err(Error::field(field("type"), problem));
                }
            };
            let device = Device {
                major: number(rule.major, &field("major"))?,
                minor: number(rule.minor, &field("minor"))?,
                block,
            };
            outcome
                .apply(device, access, rule.allow)
                .map_err(|problem| Error::field(format!("linux.resources.devices[{index}]"), problem))?;
        }
        for (major, minor, block, access) in ALWAYS {
            outcome
                .apply(Device { major, minor, block }, access, true)
                .map_err(|problem| Error::field("linux.resources.devices", problem))?;
        }
        Ok(outcome)
    }

    fn apply(&mut self, device: Device, access: Access, allow: bool) -> Result<(), String> {
        if allow != self.allow_by_default {
            let entry = self.exceptions.entry(device).or_insert(Access(0));
            entry.0 |= access.0;
            return Ok(());
        }
        let wider = [
            Device {
                major: None,
                ..device
            },
            Device {
                minor: None,
                ..device
            },
            Device {
                major: None,
                minor: None,
                ..device
            },
        ];
        for wide in wider.into_iter().filter(|wide| *wide != device) {
            if let Some(held) = self.exceptions.get(&wide).filter(|held| held.0 & access.0 != 0) {
                return Err(format!(
                    "cannot take {device} {access} out of the wider rule {wide} {held}"
                ));
            }
        }
        if let Some(entry) = self.exceptions.get_mut(&device) {
            entry.0 &= !access.0;
            if entry.0 == 0 {
                self.exceptions.remove(&device);
            }
        }
        Ok(())
    }

    /// The writes that bring a new v1 group to this outcome.
    ///
    /// A new group has its parent's list. The first write empties it, which disturbs nobody: the group has no
    /// processes yet.
    pub fn v1_writes(&self) -> Vec<Write> {
        let (default, exception) = if self.allow_by_default {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let mut writes = vec![Write::new(default, "a *:* rwm")];
        writes.extend(
            self.exceptions
                .iter()
                .map(|(device, access)| Write::new(exception, format!("{device} {access}"))),
        );
        writes
    }
}

/// A device number; missing and `-1` stand for every number.
fn number(value: Option<i64>, field: &str) -> Result<Option<u32>, Error> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| Error::field(field, format!("{value} is not a device number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, typ: LinuxDeviceType, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        LinuxDeviceCgroup {
            allow,
            typ: Some(typ),
            major: (major >= 0).then_some(major),
            minor: (minor >= 0).then_some(minor),
            access: access.to_owned(),
        }
    }

    fn lines(rules: &[LinuxDeviceCgroup]) -> Vec<String> {
        DeviceRules::compile(rules)
            .unwrap()
            .v1_writes()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn without_rules_everything_but_the_usual_devices_is_denied() {
        assert_eq!(
            lines(&[]),
            [
                "devices.deny = a *:* rwm",
                "devices.allow = c *:* m",
                "devices.allow = b *:* m",
                "devices.allow = c 1:3 rwm",
                "devices.allow = c 1:5 rwm",
                "devices.allow = c 1:7 rwm",
                "devices.allow = c 1:8 rwm",
                "devices.allow = c 1:9 rwm",
                "devices.allow = c 5:0 rwm",
                "devices.allow = c 5:2 rwm",
                "devices.allow = c 10:200 rwm",
                "devices.allow = c 136:* rwm",
            ]
        );
    }

    #[test]
    fn rules_apply_in_their_order() {
        use LinuxDeviceType::{A, B, C};
        let denied_then_allowed = lines(&[rule(false, A, -1, -1, "rwm"), rule(true, B, 8, 0, "r")]);
        assert!(denied_then_allowed.contains(&"devices.allow = b 8:0 r".to_owned()));
        let allowed_then_denied = lines(&[rule(true, B, 8, 0, "r"), rule(false, A, -1, -1, "rwm")]);
        assert!(!allowed_then_denied.iter().any(|line| line.contains("8:0")));
        let widened = lines(&[rule(true, C, 4, 1, "r"), rule(true, C, 4, 1, "w")]);
        assert!(widened.contains(&"devices.allow = c 4:1 rw".to_owned()));
        let narrowed = lines(&[rule(true, C, 4, 1, "rwm"), rule(false, C, 4, 1, "w")]);
        assert!(narrowed.contains(&"devices.allow = c 4:1 rm".to_owned()));
    }

    #[test]
    fn a_privileged_container_gets_all_with_its_exceptions() {
        use LinuxDeviceType::{A, B};
        assert_eq!(
            lines(&[rule(true, A, -1, -1, "rwm")]),
            ["devices.allow = a *:* rwm"]
        );
        assert_eq!(
            lines(&[rule(true, A, -1, -1, "rwm"), rule(false, B, 8, -1, "w")]),
            ["devices.allow = a *:* rwm", "devices.deny = b 8:* w"]
        );
    }

    #[test]
    fn rules_that_would_not_hold_are_refused() {
        use LinuxDeviceType::{C, P};
        let refused = |rules: &[LinuxDeviceCgroup]| DeviceRules::compile(rules).unwrap_err().to_string();
        assert_eq!(
            refused(&[rule(true, C, 4, -1, "rw"), rule(false, C, 4, 1, "r")]),
            "linux.resources.devices[1]: cannot take c 4:1 r out of the wider rule c 4:* rw"
        );
        assert_eq!(
            refused(&[rule(true, C, 4, 1, "")]),
            "linux.resources.devices[0].access: must not be empty"
        );
        assert_eq!(
            refused(&[rule(true, C, 4, 1, "rx")]),
            "linux.resources.devices[0].access: unknown access \"rx\""
        );
        assert_eq!(
            refused(&[rule(true, P, 4, 1, "r")]),
            "linux.resources.devices[0].type: invalid cgroup device type \"p\""
        );
        let mut huge = rule(true, C, 4, 1, "r");
        huge.major = Some(1 << 40);
        assert_eq!(
            refused(&[huge]),
            "linux.resources.devices[0].major: 1099511627776 is not a device number"
        );
    }
}
