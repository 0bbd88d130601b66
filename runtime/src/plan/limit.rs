//! Resource limits, priorities and the execution domain.

use oci_spec::runtime as oci;
use oci_spec::runtime::PosixRlimitType as R;

use super::Error;
use crate::sys::process::Scheduling;

/// Number, soft and hard limit of each entry.
pub(super) fn rlimits(limits: &[oci::PosixRlimit]) -> Result<Vec<(u32, u64, u64)>, Error> {
    let mut compiled: Vec<(u32, u64, u64)> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let number = resource(limit.typ());
        if compiled.iter().any(|(known, ..)| *known == number) {
            return Err(Error::field(field, format!("a second {}", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::field(field, "the soft limit is above the hard limit"));
        }
        compiled.push((number, limit.soft(), limit.hard()));
    }
    Ok(compiled)
}

fn resource(kind: R) -> u32 {
    match kind {
        R::RlimitCpu => libc::RLIMIT_CPU,
        R::RlimitFsize => libc::RLIMIT_FSIZE,
        R::RlimitData => libc::RLIMIT_DATA,
        R::RlimitStack => libc::RLIMIT_STACK,
        R::RlimitCore => libc::RLIMIT_CORE,
        R::RlimitRss => libc::RLIMIT_RSS,
        R::RlimitNproc => libc::RLIMIT_NPROC,
        R::RlimitNofile => libc::RLIMIT_NOFILE,
        R::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        R::RlimitAs => libc::RLIMIT_AS,
        R::RlimitLocks => libc::RLIMIT_LOCKS,
        R::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        R::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        R::RlimitNice => libc::RLIMIT_NICE,
        R::RlimitRtprio => libc::RLIMIT_RTPRIO,
        R::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// Class and level as `ioprio_set(2)` packs them.
pub(super) fn io_priority(priority: &oci::LinuxIOPriority) -> Result<u32, Error> {
    const CLASS_SHIFT: u32 = 13;
    let class = match priority.class() {
        oci::IOPriorityClass::IoprioClassRt => 1,
        oci::IOPriorityClass::IoprioClassBe => 2,
        oci::IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(priority.priority()) {
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
    compiled.policy = match scheduler.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => return Err(Error::Unsupported("scheduling policy SCHED_ISO".into())),
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    compiled.nice = scheduler.nice().unwrap_or(0);
    compiled.runtime = scheduler.runtime().unwrap_or(0);
    compiled.deadline = scheduler.deadline().unwrap_or(0);
    compiled.period = scheduler.period().unwrap_or(0);
    compiled.priority = u32::try_from(scheduler.priority().unwrap_or(0))
        .map_err(|_| Error::field("process.scheduler.priority", "must not be negative"))?;
    for flag in scheduler.flags().iter().flatten() {
        compiled.flags |= match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin | F::SchedFlagUtilClampMax => {
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
    if personality
        .flags()
        .as_ref()
        .is_some_and(|flags| !flags.is_empty())
    {
        return Err(Error::field("linux.personality.flags", "no flag is defined"));
    }
    Ok(match personality.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 8,
    })
}
