//! Capability names to bits.

use crate::features::CAPABILITIES;
use crate::spec::oci;
use crate::sys::credentials::CapabilitySets;

/// The five sets; without any in the configuration all are empty (as runc).
pub(super) fn compile(capabilities: Option<&oci::LinuxCapabilities>) -> CapabilitySets {
    let Some(capabilities) = capabilities else {
        return CapabilitySets::default();
    };
    let bits = |set: &[String]| set.iter().fold(0, |bits, name| bits | bit(name));
    CapabilitySets {
        bounding: bits(&capabilities.bounding),
        effective: bits(&capabilities.effective),
        permitted: bits(&capabilities.permitted),
        inheritable: bits(&capabilities.inheritable),
        // The kernel raises only what is permitted and inheritable. Configurations in use ask for more (`runc spec` does),
        // and get less privilege, not more, by this.
        ambient: bits(&capabilities.ambient)
            & bits(&capabilities.inheritable)
            & bits(&capabilities.permitted),
    }
}

/// The kernel's bit (`linux/capability.h`). Names that are not known were left out when the configuration was read.
fn bit(name: &str) -> u64 {
    let number = CAPABILITIES.iter().position(|known| *known == name);
    number.map_or(0, |number| 1 << number)
}
