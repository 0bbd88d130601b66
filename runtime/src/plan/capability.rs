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

#[cfg(test)]
mod tests {
    use super::*;

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
