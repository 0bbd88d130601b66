//! `linux.seccomp`: which system calls the container may make.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;
use super::word::{optional, words};

/// A profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxSeccomp {
    /// What happens to a call that no rule is about. The specification demands it; some write an empty profile without.
    #[serde(deserialize_with = "optional")]
    pub default_action: Option<LinuxSeccompAction>,
    /// The error of the default action.
    #[serde(skip_serializing_if = "is_default")]
    pub default_errno_ret: Option<u32>,
    /// The architectures whose calls are judged, besides the machine's own.
    #[serde(skip_serializing_if = "is_default")]
    pub architectures: Vec<Arch>,
    /// How the filter is loaded; an empty list is not the same as none.
    #[serde(skip_serializing_if = "is_default")]
    pub flags: Option<Vec<LinuxSeccompFlag>>,
    /// The unix socket of who answers notices.
    #[serde(skip_serializing_if = "is_default")]
    pub listener_path: PathBuf,
    /// Free text for them.
    #[serde(skip_serializing_if = "is_default")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(skip_serializing_if = "is_default")]
    pub syscalls: Vec<LinuxSyscall>,
}

/// What tells at a glance that a profile is not the empty one that means none.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::spec) struct Glance {
    #[serde(deserialize_with = "optional")]
    pub(in crate::spec) default_action: Option<LinuxSeccompAction>,
}

/// A rule about some calls.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSyscall {
    /// The calls.
    #[serde(default)]
    pub names: Vec<String>,
    /// What happens to them.
    pub action: LinuxSeccompAction,
    /// The error of the action.
    #[serde(default, skip_serializing_if = "is_default")]
    pub errno_ret: Option<u32>,
    /// Conditions on their arguments, which all must hold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub args: Vec<LinuxSeccompArg>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSeccompArg {
    /// Which argument, from 0.
    #[serde(default)]
    pub index: u64,
    /// What it is compared with, or the mask.
    #[serde(default)]
    pub value: u64,
    /// What is compared with under the mask.
    #[serde(default, skip_serializing_if = "is_default")]
    pub value_two: u64,
    /// The comparison.
    pub op: LinuxSeccompOperator,
}

words! {
    /// What happens to a call.
    LinuxSeccompAction, |word| format!("string {word} is not a valid action for seccomp"), {
        Kill = "SCMP_ACT_KILL",
        KillProcess = "SCMP_ACT_KILL_PROCESS",
        KillThread = "SCMP_ACT_KILL_THREAD",
        Trap = "SCMP_ACT_TRAP",
        Errno = "SCMP_ACT_ERRNO",
        Trace = "SCMP_ACT_TRACE",
        Allow = "SCMP_ACT_ALLOW",
        Log = "SCMP_ACT_LOG",
        Notify = "SCMP_ACT_NOTIFY",
    }
}

words! {
    /// A comparison.
    LinuxSeccompOperator, |word| format!("string {word} is not a valid operator for seccomp"), {
        Ne = "SCMP_CMP_NE",
        Lt = "SCMP_CMP_LT",
        Le = "SCMP_CMP_LE",
        Eq = "SCMP_CMP_EQ",
        Ge = "SCMP_CMP_GE",
        Gt = "SCMP_CMP_GT",
        MaskedEq = "SCMP_CMP_MASKED_EQ",
    }
}

words! {
    /// A flag of `seccomp(2)`.
    LinuxSeccompFlag, |word| format!("unknown seccomp flag {word:?}"), {
        Tsync = "SECCOMP_FILTER_FLAG_TSYNC",
        Log = "SECCOMP_FILTER_FLAG_LOG",
        SpecAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        WaitKillableRecv = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    }
}

words! {
    /// An architecture, as libseccomp names it.
    Arch, |word| format!("string {word} is not a valid arch for seccomp"), {
        Native = "SCMP_ARCH_NATIVE",
        X86 = "SCMP_ARCH_X86",
        X86_64 = "SCMP_ARCH_X86_64",
        X32 = "SCMP_ARCH_X32",
        Arm = "SCMP_ARCH_ARM",
        Aarch64 = "SCMP_ARCH_AARCH64",
        Mips = "SCMP_ARCH_MIPS",
        Mips64 = "SCMP_ARCH_MIPS64",
        Mips64n32 = "SCMP_ARCH_MIPS64N32",
        Mipsel = "SCMP_ARCH_MIPSEL",
        Mipsel64 = "SCMP_ARCH_MIPSEL64",
        Mipsel64n32 = "SCMP_ARCH_MIPSEL64N32",
        Ppc = "SCMP_ARCH_PPC",
        Ppc64 = "SCMP_ARCH_PPC64",
        Ppc64le = "SCMP_ARCH_PPC64LE",
        S390 = "SCMP_ARCH_S390",
        S390x = "SCMP_ARCH_S390X",
        Parisc = "SCMP_ARCH_PARISC",
        Parisc64 = "SCMP_ARCH_PARISC64",
        Riscv64 = "SCMP_ARCH_RISCV64",
        Loongarch64 = "SCMP_ARCH_LOONGARCH64",
        M68k = "SCMP_ARCH_M68K",
        Sh = "SCMP_ARCH_SH",
        Sheb = "SCMP_ARCH_SHEB",
    }
}
