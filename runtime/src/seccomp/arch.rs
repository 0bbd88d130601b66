//! The architectures that a filter can meet on this host, and how their system calls are told apart.

use crate::spec::oci::Arch as OciArch;

/// An x32 program marks its numbers with this bit; the kernel reports it as x86_64 otherwise.
pub(super) const X32_BIT: u32 = 1 << 30;

/// An instruction set interface with numbers of its own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Arch {
    /// What this program was built for.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::X86_64
    };

    /// The architecture of the profile, if a kernel of `native` can run its programs.
    ///
    /// Others are left out of the filter: the kernel never asks about a call of theirs.
    pub fn runnable(arch: OciArch, native: Self) -> Option<Self> {
        let arch = match arch {
            OciArch::Native => native,
            OciArch::X86_64 => Self::X86_64,
            OciArch::X86 => Self::X86,
            OciArch::X32 => Self::X32,
            OciArch::Aarch64 => Self::Aarch64,
            OciArch::Arm => Self::Arm,
            _ => return None,
        };
        (arch.family() == native.family()).then_some(arch)
    }

    fn family(self) -> u8 {
        match self {
            Self::X86_64 | Self::X86 | Self::X32 => 0,
            Self::Aarch64 | Self::Arm => 1,
        }
    }

    /// `AUDIT_ARCH_*`, as `seccomp_data.arch` reports it. x32 has that of x86_64.
    pub fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The column in the table of numbers.
    pub fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }

    /// Whether pointers have only 32 bits; the upper halves of arguments are then not compared.
    pub fn has_32_bit_pointers(self) -> bool {
        matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }

    /// The bits that are in every number.
    pub fn marker(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }
}

/// The old i386 calls that carry several operations: the number, and the operation that `name` has there.
///
/// `socketcall(2)` (numbers from `linux/net.h`) and `ipc(2)` (from `linux/ipc.h`).
pub(super) fn multiplexed(name: &str) -> Option<(u32, u64)> {
    // The longest of them.
    if name.len() > "getsockname".len() {
        return None;
    }
    let index = MULTIPLEXED.binary_search_by(|row| row.0.cmp(name)).ok()?;
    Some((MULTIPLEXED[index].1, MULTIPLEXED[index].2))
}

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// Sorted by name.
const MULTIPLEXED: &[(&str, u32, u64)] = &[
    ("accept", SOCKETCALL, 5),
    ("accept4", SOCKETCALL, 18),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("getpeername", SOCKETCALL, 7),
    ("getsockname", SOCKETCALL, 6),
    ("getsockopt", SOCKETCALL, 15),
    ("listen", SOCKETCALL, 4),
    ("msgctl", IPC, 14),
    ("msgget", IPC, 13),
    ("msgrcv", IPC, 12),
    ("msgsnd", IPC, 11),
    ("recv", SOCKETCALL, 10),
    ("recvfrom", SOCKETCALL, 12),
    ("recvmmsg", SOCKETCALL, 19),
    ("recvmsg", SOCKETCALL, 17),
    ("semctl", IPC, 3),
    ("semget", IPC, 2),
    ("semop", IPC, 1),
    ("semtimedop", IPC, 4),
    ("send", SOCKETCALL, 9),
    ("sendmmsg", SOCKETCALL, 20),
    ("sendmsg", SOCKETCALL, 16),
    ("sendto", SOCKETCALL, 11),
    ("setsockopt", SOCKETCALL, 14),
    ("shmat", IPC, 21),
    ("shmctl", IPC, 24),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shutdown", SOCKETCALL, 13),
    ("socket", SOCKETCALL, 1),
    ("socketpair", SOCKETCALL, 8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_are_found_by_their_names() {
        assert!(MULTIPLEXED.is_sorted_by(|a, b| a.0 < b.0));
        for (name, number, operation) in MULTIPLEXED {
            assert_eq!(multiplexed(name), Some((*number, *operation)));
        }
        assert_eq!(multiplexed("socket"), Some((SOCKETCALL, 1)));
        assert_eq!(multiplexed("shmget"), Some((IPC, 23)));
        assert_eq!(multiplexed("open"), None);
    }
}
