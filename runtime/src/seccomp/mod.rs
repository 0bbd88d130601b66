//! System call filters: an OCI profile becomes a classic BPF program ([seccomp(2)]).
//!
//! The compiler is ours because a container start waits for it: the profile in common use takes libseccomp
//! milliseconds, and this a fraction of one. Numbers with the same outcome are merged into ranges, and a binary
//! search finds the range. What the program decides is what libseccomp's would: see `rules`.
//!
//! Refused here: `SCMP_ACT_NOTIFY`, because there is nobody to receive the notices yet.
//!
//! # Invariants
//!
//! - A call of an architecture that the profile does not name ends the thread.
//! - What cannot be decided by the visible arguments is never granted by a rule about them.
//!
//! [seccomp(2)]: https://man7.org/linux/man-pages/man2/seccomp.2.html

mod arch;
mod assemble;
mod error;
mod rules;
mod syscalls;

#[cfg(test)]
mod tests;

pub use error::Error;

use crate::spec::oci::{LinuxSeccomp, LinuxSeccompFlag};
use arch::Arch;
use rules::Rules;

/// What the kernel takes at most (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

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

/// Compiles a profile for this host.
///
/// # Errors
///
/// The profile is contradictory, too large, or asks for what is not supported.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    compile_for(profile, Arch::NATIVE)
}

fn compile_for(profile: &LinuxSeccomp, native: Arch) -> Result<Program, Error> {
    let flags = flags(profile.flags.as_deref())?;
    let instructions = assemble::program(&Rules::of(profile, native)?)?;
    Ok(Program { instructions, flags })
}

/// Without any mention of flags, containers keep the speed of their programs: `SPEC_ALLOW`, as with runc.
fn flags(flags: Option<&[LinuxSeccompFlag]>) -> Result<u32, Error> {
    const TSYNC: u32 = 1;
    const LOG: u32 = 1 << 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    let Some(flags) = flags else { return Ok(SPEC_ALLOW) };
    flags.iter().try_fold(0, |bits, flag| match flag {
        LinuxSeccompFlag::Tsync => Ok(bits | TSYNC),
        LinuxSeccompFlag::Log => Ok(bits | LOG),
        LinuxSeccompFlag::SpecAllow => Ok(bits | SPEC_ALLOW),
        LinuxSeccompFlag::WaitKillableRecv => {
            let problem = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without SCMP_ACT_NOTIFY";
            Err(Error::field("flags", problem))
        }
    })
}
