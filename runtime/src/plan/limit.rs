//! Resource limits, priorities and the execution domain.

use super::Error;
use crate::spec::oci::{self, PosixRlimitType as R};
use crate::sys::process::Scheduling;

/// Number, soft and hard limit of each entry.
pub(super) fn rlimits(limits: &[oci::PosixRlimit]) -> Result<Vec<(u32, u64, u64)>, Error> {
    let mut compiled: Vec<(u32, u64, u64)> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let number = resource(limit.typ);
        if compiled.iter().any(|(known, ..)| *known == number) {
            return Err(Error::field(field, format!("a second {}", limit.typ)));
        }
        if limit.soft > limit.hard {
            return Err(Error::field(field, "the soft limit is above the hard limit"));
        }
        compiled.push((number, limit.soft, limit.hard));
    }
    Ok(compiled)
}

fn resource(kind: R) -> u32 {
    match kind {
        R::Cpu => libc::RLIMIT_CPU,
        R::Fsize => libc::RLIMIT_FSIZE,
        R::Data => libc::RLIMIT_DATA,
        R::Stack => libc::RLIMIT_STACK,
        R::Core => libc::RLIMIT_CORE,
        R::Rss => libc::RLIMIT_RSS,
        R::Nproc => libc::RLIMIT_NPROC,
        R::Nofile => libc::RLIMIT_NOFILE,
        R::Memlock => libc::RLIMIT_MEMLOCK,
        R::As => libc::RLIMIT_AS,
        R::Locks => libc::RLIMIT_LOCKS,
        R::Sigpending => libc::RLIMIT_SIGPENDING,
        R::Msgqueue => libc::RLIMIT_MSGQUEUE,
        R::Nice => libc::RLIMIT_NICE,
        R::Rtprio => libc::RLIMIT_RTPRIO,
        R::Rttime => libc::RLIMIT_RTTIME,
    }
}

/// Class and level as `ioprio_set(2)` packs them.
pub(super) fn io_priority(priority: &oci::LinuxIoPriority) -> Result<u32, Error> {
    const CLASS_SHIFT: u32 = 13;
    let class = match priority.class {
        oci::IoPriorityClass::Rt => 1,
        oci::IoPriorityClass::Be => 2,
        oci::IoPriorityClass::Idle => 3,
    };
    match u32::try_from(priority.priority) {
        Ok(level @ 0..=7) => Ok(class << CLASS_SHIFT | level),
        _ => Err(Error::field(
            "process.ioPriority.priority",
            "must be between 0 and 7",
        )),
    }
}

/// The arguments of `sched_setattr(2)`.
pub(super) fn scheduling(scheduler: &oci::Scheduler) -> Result<Scheduling, Error> {
    use oci::{LinuxSchedulerFlag as F, LinuxSchedulerPolicy as P};
    let mut compiled = Scheduling::default();
    compiled.policy = match scheduler.policy {
        P::Other => 0,
        P::Fifo => 1,
        P::Rr => 2,
        P::Batch => 3,
        P::Iso => return Err(Error::Unsupported("scheduling policy SCHED_ISO".into())),
        P::Idle => 5,
        P::Deadline => 6,
    };
    compiled.nice = scheduler.nice;
    compiled.runtime = scheduler.runtime;
    compiled.deadline = scheduler.deadline;
    compiled.period = scheduler.period;
    compiled.priority = u32::try_from(scheduler.priority)
        .map_err(|_| Error::field("process.scheduler.priority", "must not be negative"))?;
    for flag in &scheduler.flags {
        compiled.flags |= match flag {
            F::ResetOnFork => 0x01,
            F::Reclaim => 0x02,
            F::DlOverrun => 0x04,
            F::KeepPolicy => 0x08,
            F::KeepParams => 0x10,
            F::UtilClampMin | F::UtilClampMax => {
                return Err(Error::Unsupported(
                    "utilization clamping (process.scheduler.flags)".into(),
                ));
            }
        };
    }
    Ok(compiled)
}

/// The argument of `personality(2)`.
pub(super) fn personality(personality: &oci::LinuxPersonality) -> Result<u32, Error> {
    if !personality.flags.is_empty() {
        return Err(Error::field("linux.personality.flags", "no flag is defined"));
    }
    Ok(match personality.domain {
        oci::LinuxPersonalityDomain::Linux => 0,
        oci::LinuxPersonalityDomain::Linux32 => 8,
    })
}
