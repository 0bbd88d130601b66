//! Capability names to bits.

use crate::features::CAPABILITIES;
use crate::spec::oci;
use crate::sys::credentials::CapabilitySets;

/// The five sets, and what is not granted; without any in the configuration all are empty (as runc).
pub(super) fn compile(capabilities: Option<&oci::LinuxCapabilities>) -> (CapabilitySets, Vec<String>) {
    let Some(capabilities) = capabilities else {
        return Default::default();
    };
    let bits = |set: &[String]| set.iter().fold(0, |bits, name| bits | bit(name));
    // The kernel raises only what is permitted and inheritable. Configurations in use ask for more, and get less
    // privilege, not more, by this.
    let possible = bits(&capabilities.inheritable) & bits(&capabilities.permitted);
    let sets = CapabilitySets {
        bounding: bits(&capabilities.bounding),
        effective: bits(&capabilities.effective),
        permitted: bits(&capabilities.permitted),
        inheritable: bits(&capabilities.inheritable),
        ambient: bits(&capabilities.ambient) & possible,
    };
    let refused = capabilities
        .ambient
        .iter()
        .filter(|name| bit(name) & !possible != 0);
    let warnings = refused
        .map(|name| format!("can't raise ambient capability {name}: operation not permitted"))
        .collect();
    (sets, warnings)
}

/// The kernel's bit (`linux/capability.h`). Names that are not known were left out when the configuration was read.
fn bit(name: &str) -> u64 {
    let number = CAPABILITIES.iter().position(|known| *known == name);
    number.map_or(0, |number| 1 << number)
}

/// Leaves out of every set what the running kernel does not know, as `is_known` says of each number; answers a sentence about it.
pub(super) fn leave_out(sets: &mut CapabilitySets, is_known: impl Fn(u32) -> bool) -> Option<String> {
    let all = sets.bounding | sets.effective | sets.permitted | sets.inheritable | sets.ambient;
    // The kernel's numbers have no gaps, and every kernel that is supported knows those below.
    let unknown: Vec<u32> = (OF_EVERY_KERNEL..u64::BITS)
        .filter(|number| all >> number & 1 != 0 && !is_known(*number))
        .collect();
    let first = *unknown.first()?;
    let known = (1 << first) - 1;
    for set in [
        &mut sets.bounding,
        &mut sets.effective,
        &mut sets.permitted,
        &mut sets.inheritable,
        &mut sets.ambient,
    ] {
        *set &= known;
    }
    let mut names: Vec<&str> = unknown
        .iter()
        .filter_map(|number| CAPABILITIES.get(*number as usize).copied())
        .collect();
    names.sort_unstable();
    Some(format!(
        "ignoring unknown or unavailable capabilities: [{}]",
        names.join(" ")
    ))
}

/// How many capabilities Linux 5.4 has.
const OF_EVERY_KERNEL: u32 = 38;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_know_is_left_out_of_every_set_and_told() {
        let newest = 1 << 40 | 1 << 38 | 1 << 5;
        let asked = CapabilitySets {
            bounding: newest,
            effective: newest,
            permitted: newest,
            inheritable: newest,
            ambient: 1 << 40,
        };
        let mut sets = asked;
        assert_eq!(leave_out(&mut sets, |_| true), None);
        assert_eq!(sets, asked);
        let told = leave_out(&mut sets, |number| number < 40).unwrap();
        assert_eq!(
            told,
            "ignoring unknown or unavailable capabilities: [CAP_CHECKPOINT_RESTORE]"
        );
        assert_eq!((sets.bounding, sets.ambient), (1 << 38 | 1 << 5, 0));
        let told = leave_out(&mut sets, |number| number < 38).unwrap();
        assert_eq!(
            told,
            "ignoring unknown or unavailable capabilities: [CAP_PERFMON]"
        );
        assert_eq!(
            (sets.effective, sets.permitted, sets.inheritable),
            (1 << 5, 1 << 5, 1 << 5)
        );
        let mut usual = CapabilitySets {
            bounding: 1 << 37,
            ..CapabilitySets::default()
        };
        assert_eq!(
            leave_out(&mut usual, |number| panic!("asked about {number}")),
            None
        );
    }

    #[test]
    fn only_what_is_permitted_and_inheritable_is_ambient() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let asked = oci::LinuxCapabilities {
            permitted: names(&["CAP_CHOWN", "CAP_KILL"]),
            inheritable: names(&["CAP_KILL", "CAP_SYSLOG"]),
            ambient: names(&["CAP_CHOWN", "CAP_KILL", "CAP_SYSLOG"]),
            ..oci::LinuxCapabilities::default()
        };
        let (sets, warnings) = compile(Some(&asked));
        assert_eq!(sets.ambient, 1 << 5);
        assert_eq!(
            warnings,
            [
                "can't raise ambient capability CAP_CHOWN: operation not permitted",
                "can't raise ambient capability CAP_SYSLOG: operation not permitted",
            ]
        );
    }
}
