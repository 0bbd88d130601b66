//! Which processors and memory nodes a v1 group may use, and how ([cpusets]).
//!
//! [cpusets]: https://docs.kernel.org/admin-guide/cgroup-v1/cpusets.html

use super::Error;
use super::group::GroupDirectory;

/// The files of the v1 cpuset controller, by their names there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CpusetStats {
    /// The processors.
    pub cpus: Vec<u16>,
    /// The memory nodes.
    pub mems: Vec<u16>,
    /// See the kernel's documentation, as for the others.
    pub cpu_exclusive: u64,
    /// `mem_hardwall`.
    pub mem_hardwall: u64,
    /// `mem_exclusive`.
    pub mem_exclusive: u64,
    /// `memory_migrate`.
    pub memory_migrate: u64,
    /// `memory_spread_page`.
    pub memory_spread_page: u64,
    /// `memory_spread_slab`.
    pub memory_spread_slab: u64,
    /// `memory_pressure`.
    pub memory_pressure: u64,
    /// `sched_load_balance`.
    pub sched_load_balance: u64,
    /// `sched_relax_domain_level`; -1 for the system's default.
    pub sched_relax_domain_level: i64,
}

pub(super) fn read(group: &GroupDirectory) -> Result<CpusetStats, Error> {
    let text = |name: &str| {
        Ok::<_, Error>(
            group
                .read_if_present(&format!("cpuset.{name}"))?
                .unwrap_or_default(),
        )
    };
    let malformed = |name: &str, found: &str| Error::Malformed {
        file: group.path.join(format!("cpuset.{name}")),
        problem: format!("cannot read {:?}", found.trim()),
    };
    let number = |name: &str| {
        let text = text(name)?;
        match text.trim() {
            "" => Ok(0),
            number => number.parse::<i64>().map_err(|_| malformed(name, number)),
        }
    };
    let count = |name: &str| Ok::<_, Error>(u64::try_from(number(name)?).unwrap_or(0));
    let numbers = |name: &str| {
        let text = text(name)?;
        list(text.trim()).ok_or_else(|| malformed(name, &text))
    };
    Ok(CpusetStats {
        cpus: numbers("cpus")?,
        mems: numbers("mems")?,
        cpu_exclusive: count("cpu_exclusive")?,
        mem_hardwall: count("mem_hardwall")?,
        mem_exclusive: count("mem_exclusive")?,
        memory_migrate: count("memory_migrate")?,
        memory_spread_page: count("memory_spread_page")?,
        memory_spread_slab: count("memory_spread_slab")?,
        memory_pressure: count("memory_pressure")?,
        sched_load_balance: count("sched_load_balance")?,
        sched_relax_domain_level: number("sched_relax_domain_level")?,
    })
}

/// The numbers of a list such as `0-2,7`.
fn list(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_spelled_out() {
        assert_eq!(list("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(list(""), Some(vec![]));
        assert_eq!(list("a"), None);
    }
}
