//! Capability names to bits.

use oci_spec::runtime as oci;
use oci_spec::runtime::Capability as C;

use crate::sys::credentials::CapabilitySets;

/// The five sets; without any in the configuration all are empty (as runc).
pub(super) fn compile(capabilities: Option<&oci::LinuxCapabilities>) -> CapabilitySets {
    let Some(capabilities) = capabilities else {
        return CapabilitySets::default();
    };
    let bits = |set: &Option<oci::Capabilities>| {
        let numbers = set.iter().flatten().map(|capability| 1u64 << number(*capability));
        numbers.fold(0, |set, bit| set | bit)
    };
    CapabilitySets {
        bounding: bits(capabilities.bounding()),
        effective: bits(capabilities.effective()),
        permitted: bits(capabilities.permitted()),
        inheritable: bits(capabilities.inheritable()),
        // The kernel raises only what is permitted and inheritable. Configurations in use ask for more (`runc spec` does),
        // and get less privilege, not more, by this.
        ambient: bits(capabilities.ambient())
            & bits(capabilities.inheritable())
            & bits(capabilities.permitted()),
    }
}

/// The kernel's number (`linux/capability.h`).
fn number(capability: C) -> u32 {
    match capability {
        C::Chown => 0,
        C::DacOverride => 1,
        C::DacReadSearch => 2,
        C::Fowner => 3,
        C::Fsetid => 4,
        C::Kill => 5,
        C::Setgid => 6,
        C::Setuid => 7,
        C::Setpcap => 8,
        C::LinuxImmutable => 9,
        C::NetBindService => 10,
        C::NetBroadcast => 11,
        C::NetAdmin => 12,
        C::NetRaw => 13,
        C::IpcLock => 14,
        C::IpcOwner => 15,
        C::SysModule => 16,
        C::SysRawio => 17,
        C::SysChroot => 18,
        C::SysPtrace => 19,
        C::SysPacct => 20,
        C::SysAdmin => 21,
        C::SysBoot => 22,
        C::SysNice => 23,
        C::SysResource => 24,
        C::SysTime => 25,
        C::SysTtyConfig => 26,
        C::Mknod => 27,
        C::Lease => 28,
        C::AuditWrite => 29,
        C::AuditControl => 30,
        C::Setfcap => 31,
        C::MacOverride => 32,
        C::MacAdmin => 33,
        C::Syslog => 34,
        C::WakeAlarm => 35,
        C::BlockSuspend => 36,
        C::AuditRead => 37,
        C::Perfmon => 38,
        C::Bpf => 39,
        C::CheckpointRestore => 40,
    }
}
