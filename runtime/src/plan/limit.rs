//! Resource limits, priorities and the execution domain.

use super::{Error, members};
use crate::spec::oci::{self, PosixRlimitType as R};
use crate::sys::process::Scheduling;

/// Number, soft and hard limit of each entry.
pub(super) fn rlimits(limits: &[oci::PosixRlimit]) -> Result<Vec<(u32, u64, u64)>, Error> {
    let mut compiled: Vec<(u32, u64, u64)> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let number = resource(limit.typ);
        if compiled.iter().any(|(known, ..)| *known == number) {
            return Err(Error::field(
                field,
                format!("rlimit type {} is there twice", limit.typ),
            ));
        }
        if limit.soft > limit.hard {
            return Err(Error::field(field, "the soft limit is above the hard limit"));
        }
        compiled.push((number, limit.soft, limit.hard));
    }
    Ok(compiled)
}

fn resource(kind: R) -> u32 {
    let number = match kind {
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
    };
    // Signed with some C libraries.
    number as _
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
    check_scheduling(scheduler)?;
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
            F::UtilClampMin => 0x20,
            F::UtilClampMax => 0x40,
        };
    }
    Ok(compiled)
}

/// What the kernel would take and do nothing with (`sched_setattr(2)`).
fn check_scheduling(scheduler: &oci::Scheduler) -> Result<(), Error> {
    use oci::LinuxSchedulerPolicy as P;
    let field = |name: &str, problem: String| Err(Error::field(format!("process.scheduler{name}"), problem));
    let policy = scheduler.policy;
    if matches!(policy, P::Other | P::Batch) && !(-20..=19).contains(&scheduler.nice) {
        return field(".nice", format!("{} is not between -20 and 19", scheduler.nice));
    }
    if scheduler.priority != 0 && !matches!(policy, P::Fifo | P::Rr) {
        return field(".priority", format!("{policy} has none"));
    }
    let periodic = [scheduler.runtime, scheduler.deadline, scheduler.period];
    if policy != P::Deadline && periodic != [0; 3] {
        return field("", format!("{policy} has no runtime, deadline and period"));
    }
    Ok(())
}

/// The arguments of `set_mempolicy(2)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemoryPolicy {
    /// `MPOL_*`, flags included.
    pub mode: u32,
    /// Bit n of word n/64 for node n.
    pub nodes: Vec<u64>,
}

/// The arguments of `set_mempolicy(2)`.
pub(super) fn memory_policy(policy: &oci::LinuxMemoryPolicy) -> Result<MemoryPolicy, Error> {
    use oci::{LinuxMemoryPolicyFlag as F, LinuxMemoryPolicyMode as M};
    let field = |problem: String| Error::field("linux.memoryPolicy", problem);
    let Some(mode) = policy.mode else {
        return Err(field("invalid memory policy mode: none is given".into()));
    };
    let nodes = members::mask(&policy.nodes).map_err(|problem| {
        field(format!(
            "invalid memory policy nodes {:?}: {problem}",
            policy.nodes
        ))
    })?;
    let count = members::count(&nodes);
    match mode {
        M::Default | M::Local if count != 0 => {
            return Err(field(format!(
                "{mode}: this memory policy mode requires 0 nodes but got {count}"
            )));
        }
        M::Bind | M::Interleave | M::PreferredMany | M::WeightedInterleave if count == 0 => {
            return Err(field(format!(
                "{mode}: this memory policy mode requires at least one node but got 0"
            )));
        }
        _ => {}
    }
    let number = match mode {
        M::Default => 0,
        M::Preferred => 1,
        M::Bind => 2,
        M::Interleave => 3,
        M::Local => 4,
        M::PreferredMany => 5,
        M::WeightedInterleave => 6,
    };
    let flags = policy.flags.iter().map(|flag| match flag {
        F::NumaBalancing => 1 << 13,
        F::RelativeNodes => 1 << 14,
        F::StaticNodes => 1 << 15,
    });
    Ok(MemoryPolicy {
        mode: flags.fold(number, |mode, flag| mode | flag),
        nodes,
    })
}

/// On which CPUs a process runs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Affinity {
    /// Before it is in the container's control group; the caller's without. Bit n of word n/64 for CPU n.
    pub initial: Option<Vec<u64>>,
    /// When it is there.
    pub last: Cpus,
}

/// A choice of CPUs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Cpus {
    /// All that the control group allows, also those that it will allow later: not the caller's.
    #[default]
    All,
    /// Those it has.
    Kept,
    /// Bit n of word n/64 for CPU n.
    These(Vec<u64>),
}

/// What `process.execCPUAffinity` asks for.
pub(super) fn affinity(asked: Option<&oci::CpuAffinity>) -> Result<Affinity, Error> {
    let Some(asked) = asked else {
        return Ok(Affinity::default());
    };
    let mask = |name: &str, text: &str| match members::mask(text) {
        Ok(mask) => Ok(Some(mask).filter(|mask| !mask.is_empty())),
        Err(problem) => Err(Error::field(format!("process.execCPUAffinity.{name}"), problem)),
    };
    let initial = mask("initial", &asked.initial)?;
    let last = match (mask("final", &asked.last)?, &initial) {
        (Some(mask), _) => Cpus::These(mask),
        (None, Some(_)) => Cpus::Kept,
        (None, None) => Cpus::All,
    };
    Ok(Affinity { initial, last })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn memory(policy: serde_json::Value) -> Result<MemoryPolicy, String> {
        memory_policy(&serde_json::from_value(policy).map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn memory_policies_are_the_kernels_numbers() {
        let policy = |mode, nodes: &[u64]| {
            Ok(MemoryPolicy {
                mode,
                nodes: nodes.to_vec(),
            })
        };
        assert_eq!(memory(json!({"mode": "MPOL_DEFAULT"})), policy(0, &[]));
        assert_eq!(
            memory(json!({"mode": "MPOL_BIND", "nodes": "0,2", "flags": ["MPOL_F_STATIC_NODES"]})),
            policy(0x8002, &[5])
        );
        for (bad, problem) in [
            (json!({}), "invalid memory policy mode"),
            (json!({"mode": "INTERLEAVE"}), "invalid memory policy mode"),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["x"]}),
                "invalid memory policy flag",
            ),
            (
                json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
                "mode requires 0 nodes but got 8",
            ),
            (
                json!({"mode": "MPOL_BIND"}),
                "requires at least one node but got 0",
            ),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
                "invalid memory policy nodes",
            ),
        ] {
            let said = memory(bad).unwrap_err();
            assert!(said.contains(problem), "{said}");
        }
    }

    #[test]
    fn cpus_are_reset_unless_some_are_asked_for() {
        let of = |initial: &str, last: &str| {
            affinity(Some(&oci::CpuAffinity {
                initial: initial.into(),
                last: last.into(),
            }))
        };
        assert_eq!(affinity(None), Ok(Affinity::default()));
        assert_eq!(of("", ""), Ok(Affinity::default()));
        let initial = of("0-1", "").unwrap();
        assert_eq!((initial.initial, initial.last), (Some(vec![3]), Cpus::Kept));
        let last = of("", "1").unwrap();
        assert_eq!((last.initial, last.last), (None, Cpus::These(vec![2])));
        assert_eq!(
            of("x", "").unwrap_err().to_string(),
            "process.execCPUAffinity.initial: \"x\" is no number"
        );
    }

    #[test]
    fn what_a_policy_does_not_have_is_refused() {
        let of = |scheduler: serde_json::Value| {
            scheduling(&serde_json::from_value(scheduler).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(of(json!({"policy": "SCHED_BATCH", "nice": 19})).unwrap().nice, 19);
        assert!(of(json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3})).is_ok());
        for (bad, field) in [
            (
                json!({"policy": "SCHED_OTHER", "nice": 20}),
                "process.scheduler.nice: ",
            ),
            (
                json!({"policy": "SCHED_OTHER", "priority": 1}),
                "process.scheduler.priority: ",
            ),
            (
                json!({"policy": "SCHED_FIFO", "runtime": 1}),
                "process.scheduler: ",
            ),
        ] {
            let said = of(bad).unwrap_err();
            assert!(said.starts_with(field), "{said}");
        }
    }
}
