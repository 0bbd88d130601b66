//! `process`: what runs, as whom, with which limits.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;
use super::word::words;

/// A process of a container: its first one, or one that is executed later.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    /// Give it a terminal.
    #[serde(skip_serializing_if = "is_default")]
    pub terminal: bool,
    /// The terminal's size.
    #[serde(skip_serializing_if = "is_default")]
    pub console_size: Option<ConsoleSize>,
    /// The ids it runs with.
    pub user: User,
    /// `argv`, the program first.
    #[serde(skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// The command line, on Windows.
    #[serde(skip_serializing_if = "is_default")]
    pub command_line: String,
    /// The environment, `NAME=value` each.
    #[serde(skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// The five capability sets; all empty without.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Option<LinuxCapabilities>,
    /// Resource limits.
    #[serde(skip_serializing_if = "is_default")]
    pub rlimits: Vec<PosixRlimit>,
    /// Executing a program gives no privileges.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// The AppArmor profile.
    #[serde(skip_serializing_if = "is_default")]
    pub apparmor_profile: String,
    /// For `/proc/PID/oom_score_adj`.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: Option<i64>,
    /// How the kernel schedules it.
    #[serde(skip_serializing_if = "is_default")]
    pub scheduler: Option<Scheduler>,
    /// The SELinux label.
    #[serde(skip_serializing_if = "is_default")]
    pub selinux_label: String,
    /// The priority of its block IO.
    #[serde(skip_serializing_if = "is_default")]
    pub io_priority: Option<LinuxIoPriority>,
    /// The CPUs of processes that are executed later.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "is_default")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsoleSize {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

/// The ids a process runs with, as the container numbers them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Mode bits that new files lack.
    #[serde(skip_serializing_if = "is_default")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "is_default")]
    pub additional_gids: Vec<u32>,
    /// The name, on Windows.
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
}

/// The capability sets, by names (`CAP_…`). Names are not checked here: newer kernels have more of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxCapabilities {
    /// What can be gained at all.
    #[serde(skip_serializing_if = "is_default")]
    pub bounding: Vec<String>,
    /// What the kernel checks.
    #[serde(skip_serializing_if = "is_default")]
    pub effective: Vec<String>,
    /// What executing may hand on.
    #[serde(skip_serializing_if = "is_default")]
    pub inheritable: Vec<String>,
    /// What may be made effective.
    #[serde(skip_serializing_if = "is_default")]
    pub permitted: Vec<String>,
    /// What executing an ordinary program keeps.
    #[serde(skip_serializing_if = "is_default")]
    pub ambient: Vec<String>,
}

impl LinuxCapabilities {
    /// The five sets.
    pub fn sets_mut(&mut self) -> [&mut Vec<String>; 5] {
        [
            &mut self.bounding,
            &mut self.effective,
            &mut self.inheritable,
            &mut self.permitted,
            &mut self.ambient,
        ]
    }
}

/// A resource limit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PosixRlimit {
    /// What is limited.
    #[serde(rename = "type")]
    pub typ: PosixRlimitType,
    /// The most that the process can give itself.
    #[serde(default)]
    pub hard: u64,
    /// What is in force.
    #[serde(default)]
    pub soft: u64,
}

words! {
    /// What a resource limit limits.
    PosixRlimitType, |word| format!("wrong rlimit value: {word}"), {
        Cpu = "RLIMIT_CPU",
        Fsize = "RLIMIT_FSIZE",
        Data = "RLIMIT_DATA",
        Stack = "RLIMIT_STACK",
        Core = "RLIMIT_CORE",
        Rss = "RLIMIT_RSS",
        Nproc = "RLIMIT_NPROC",
        Nofile = "RLIMIT_NOFILE",
        Memlock = "RLIMIT_MEMLOCK",
        As = "RLIMIT_AS",
        Locks = "RLIMIT_LOCKS",
        Sigpending = "RLIMIT_SIGPENDING",
        Msgqueue = "RLIMIT_MSGQUEUE",
        Nice = "RLIMIT_NICE",
        Rtprio = "RLIMIT_RTPRIO",
        Rttime = "RLIMIT_RTTIME",
    }
}

/// How the kernel schedules a process: the arguments of `sched_setattr(2)`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduler {
    /// The policy.
    pub policy: LinuxSchedulerPolicy,
    /// The nice value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nice: i32,
    /// The static priority.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Flags.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flags: Vec<LinuxSchedulerFlag>,
    /// Nanoseconds in a period, for the deadline policy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: u64,
    /// Nanoseconds in which the runtime must be had.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deadline: u64,
    /// The period in nanoseconds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub period: u64,
}

words! {
    /// A scheduling policy (`sched(7)`).
    LinuxSchedulerPolicy, |word| format!("invalid scheduler policy: {word}"), {
        Other = "SCHED_OTHER",
        Fifo = "SCHED_FIFO",
        Rr = "SCHED_RR",
        Batch = "SCHED_BATCH",
        Iso = "SCHED_ISO",
        Idle = "SCHED_IDLE",
        Deadline = "SCHED_DEADLINE",
    }
}

words! {
    /// A flag of `sched_setattr(2)`.
    LinuxSchedulerFlag, |word| format!("invalid scheduler flag: {word}"), {
        ResetOnFork = "SCHED_FLAG_RESET_ON_FORK",
        Reclaim = "SCHED_FLAG_RECLAIM",
        DlOverrun = "SCHED_FLAG_DL_OVERRUN",
        KeepPolicy = "SCHED_FLAG_KEEP_POLICY",
        KeepParams = "SCHED_FLAG_KEEP_PARAMS",
        UtilClampMin = "SCHED_FLAG_UTIL_CLAMP_MIN",
        UtilClampMax = "SCHED_FLAG_UTIL_CLAMP_MAX",
    }
}

/// The priority of block IO.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxIoPriority {
    /// The class.
    pub class: IoPriorityClass,
    /// The level in the class, 0 (first) to 7.
    #[serde(default)]
    pub priority: i64,
}

words! {
    /// A class of block IO (`ioprio_set(2)`).
    IoPriorityClass, |word| format!("invalid ioPriority.class: {word}"), {
        Rt = "IOPRIO_CLASS_RT",
        Be = "IOPRIO_CLASS_BE",
        Idle = "IOPRIO_CLASS_IDLE",
    }
}

/// The CPUs of processes that are executed in the container, as lists (`0-3,7`).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CpuAffinity {
    /// Before the process is in its control group.
    #[serde(skip_serializing_if = "is_default")]
    pub initial: String,
    /// When it is there.
    #[serde(rename = "final", skip_serializing_if = "is_default")]
    pub last: String,
}
