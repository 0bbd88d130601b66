//! System call filters: an OCI profile becomes a classic BPF program ([seccomp(2)]).
//!
//! The compiler is ours because a container start waits for it: the profile in common use takes libseccomp
//! milliseconds, and this a fraction of one. Numbers with the same outcome are merged into ranges, a binary search finds the
//! range, and what the rules of a call ask twice is asked once. What the program decides is what libseccomp's would, but for
//! i386's multiplexed calls: see `rules`.
//!
//! Most profiles are looked into when the process is being made that the filter is for: see `later`. The filter of one that was
//! met before is kept (`cache`).
//!
//! A rule may leave calls to a listener (`SCMP_ACT_NOTIFY`), a process of the host's that gets the filter's descriptor over
//! `listenerPath`. Refused is what would keep the descriptor from getting there: notices about `write`, or about every call.
//!
//! # Invariants
//!
//! - A call of an architecture that the profile does not name ends the thread.
//! - What cannot be decided by the visible arguments is never granted by a rule about them.
//!
//! [seccomp(2)]: https://man7.org/linux/man-pages/man2/seccomp.2.html

mod arch;
mod assemble;
pub(crate) mod cache;
mod error;
mod handed;
pub(crate) mod later;
mod notify;
mod precedence;
mod rules;
mod shorten;
mod syscalls;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use notify::Agent;

use crate::spec::oci::{LinuxSeccomp, LinuxSeccompFlag};
use crate::trace::{is_heard, trace};
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

    /// Whether loading it answers a descriptor that somebody must listen on.
    #[must_use]
    pub fn has_listener(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }
}

/// What a filter is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Machine {
    /// Kernels that run x86_64, i386 and x32 programs.
    X86_64,
    /// Kernels that run aarch64 and arm programs.
    Aarch64,
}

/// Compiles a profile for this host.
///
/// # Errors
///
/// The profile is contradictory or too large.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    compile_native(profile, Arch::NATIVE)
}

/// As [`compile`], for a host that need not be this one.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_for(profile: &LinuxSeccomp, machine: Machine) -> Result<Program, Error> {
    let native = match machine {
        Machine::X86_64 => Arch::X86_64,
        Machine::Aarch64 => Arch::Aarch64,
    };
    compile_native(profile, native)
}

/// The names in a profile that are no system calls of any architecture; rules about them are skipped.
fn unknown_names(profile: &LinuxSeccomp) -> Vec<&str> {
    let calls = profile.syscalls.iter();
    calls
        .flat_map(|call| &call.names)
        .map(String::as_str)
        .filter(|name| syscalls::numbers(name).is_none())
        .collect()
}

/// Tells what a profile became, with runc's words; of one that is looked into later nothing yet.
pub(crate) fn tell(profile: Option<&LinuxSeccomp>, program: Option<&Program>) {
    let (Some(profile), Some(program), true) = (profile, program, is_heard()) else {
        return;
    };
    if program.is_awaited() {
        return;
    }
    for name in unknown_names(profile) {
        trace!("unknown seccomp syscall {name:?} ignored");
    }
    trace!("seccomp filter flags: {}", program.flags());
}

fn compile_native(profile: &LinuxSeccomp, native: Arch) -> Result<Program, Error> {
    let rules = Rules::of(profile, native)?;
    let mut flags = flags(profile.flags.as_deref(), rules.notifies)?;
    if rules.notifies {
        flags |= NEW_LISTENER;
        match profile.listener_path.as_os_str().len() {
            0 => return Err(Error::field("listenerPath", "seccomp listenerPath is not set")),
            MAX_SOCKET_PATH.. => {
                let problem = format!("is longer than {MAX_SOCKET_PATH} bytes, as no socket's path is");
                return Err(Error::field("listenerPath", problem));
            }
            _ => {}
        }
    }
    Ok(Program {
        instructions: assemble::program(&rules)?,
        flags,
    })
}

/// The longest path in a `struct sockaddr_un`, with its final zero.
const MAX_SOCKET_PATH: usize = 108;

const NEW_LISTENER: u32 = 1 << 3;

/// Without any mention of flags, containers keep the speed of their programs: `SPEC_ALLOW`, as with runc.
fn flags(flags: Option<&[LinuxSeccompFlag]>, notifies: bool) -> Result<u32, Error> {
    const LOG: u32 = 1 << 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    let Some(flags) = flags else { return Ok(SPEC_ALLOW) };
    flags.iter().try_fold(0, |bits, flag| match flag {
        // The process that loads the filter has one thread.
        LinuxSeccompFlag::Tsync => Ok(bits),
        LinuxSeccompFlag::Log => Ok(bits | LOG),
        LinuxSeccompFlag::SpecAllow => Ok(bits | SPEC_ALLOW),
        LinuxSeccompFlag::WaitKillableRecv if notifies => Ok(bits | WAIT_KILLABLE_RECV),
        LinuxSeccompFlag::WaitKillableRecv => {
            let problem = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without SCMP_ACT_NOTIFY";
            Err(Error::field("flags", problem))
        }
    })
}
