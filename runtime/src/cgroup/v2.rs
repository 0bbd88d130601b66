//! OCI resources as writes into the files of a v2 group ([cgroup-v2]).
//!
//! The OCI specification speaks of v1, so some values are converted; the formulas are those of runc, because
//! two runtimes on one host should weigh containers alike.
//!
//! Refused here: realtime limits, which v2 does not have.
//!
//! [cgroup-v2]: https://docs.kernel.org/admin-guide/cgroup-v2.html

use super::Error;
use super::v1::{cpuset, hugepages, pids_limit, rdma, throttles};
use super::write::{Policy, Write};
use crate::spec::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// What a group is to be told, and what had to be left out (a sentence each).
pub(super) fn writes(resources: &LinuxResources) -> Result<(Vec<Write>, Vec<String>), Error> {
    let (mut writes, mut warnings) = (Vec::new(), Vec::new());
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        writes.push(Write::new("pids.max", pids_limit(limit)));
    }
    if let Some(limits) = &resources.memory {
        memory(limits, &mut writes, &mut warnings)?;
    }
    if let Some(limits) = &resources.block_io {
        io(limits, &mut writes, &mut warnings);
    }
    if let Some(limits) = &resources.cpu {
        cpu(limits, &mut writes)?;
        cpuset(limits, &mut writes);
    }
    for (size, limit) in hugepages(resources)? {
        writes.push(Write::new(format!("hugetlb.{size}.max"), limit));
        writes.push(Write::new(format!("hugetlb.{size}.rsvd.max"), limit).policy(Policy::IfPresent));
    }
    writes.extend(rdma(resources)?);
    if let Some(network) = &resources.network {
        let asked = network.class_id.is_some_and(|class| class != 0) || !network.priorities.is_empty();
        if asked {
            return Err(Error::field(
                "linux.resources.network",
                "cgroup v2 has no network controllers",
            ));
        }
    }
    unified(resources, &mut writes)?;
    Ok((writes, warnings))
}

/// The CPU weight for v1 shares: a curve through the two ranges' ends and their defaults (1024 is 100).
pub(super) fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// `memory.swap.max` for v1's memory-plus-swap; `None` leaves it alone.
pub(super) fn swap_limit(with_swap: i64, limit: i64) -> Result<Option<String>, Error> {
    let field = |problem: &str| Err(Error::field("linux.resources.memory.swap", problem));
    match (with_swap, limit) {
        (0, -1) | (-1, _) => Ok(Some("max".to_owned())),
        (0, _) => Ok(None),
        (..-1, _) => field("must be -1 or a number of bytes"),
        (_, -1) => Ok(Some(with_swap.to_string())),
        (_, 0) => field("unable to set swap limit without memory limit"),
        (_, ..-1) => field("the memory limit is negative"),
        _ if with_swap < limit => field("memory+swap limit should be >= memory limit"),
        _ => Ok(Some((with_swap - limit).to_string())),
    }
}

fn bytes(value: i64) -> String {
    if value == -1 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let limit = memory.limit.unwrap_or(0);
    if let Some(swap) = swap_limit(memory.swap.unwrap_or(0), limit)? {
        // A kernel without swap accounting needs no telling that there is no swap, or any amount of it.
        let policy = if swap == "max" || swap == "0" {
            Policy::IfPresent
        } else {
            Policy::Required
        };
        writes.push(Write::new("memory.swap.max", swap).policy(policy));
    }
    if limit != 0 {
        writes.push(Write::new("memory.max", bytes(limit)));
    }
    if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
        writes.push(Write::new("memory.low", bytes(reservation)));
    }
    if memory.swappiness.is_some() {
        warnings.push("memory swappiness is ignored: cgroup v2 has none".to_owned());
    }
    if memory.disable_oom_killer == Some(true) {
        warnings.push("disabling the OOM killer is ignored: cgroup v2 cannot".to_owned());
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<(), Error> {
    if cpu.realtime_runtime.is_some_and(|value| value != 0)
        || cpu.realtime_period.is_some_and(|value| value != 0)
    {
        return Err(Error::field(
            "linux.resources.cpu",
            "cgroup v2 has no realtime limits",
        ));
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares.filter(|value| *value != 0) {
        writes.push(Write::new("cpu.weight", weight_from_shares(shares)));
    }
    let quota = cpu.quota.filter(|value| *value != 0);
    let period = cpu.period.filter(|value| *value != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota
            .filter(|value| *value > 0)
            .map_or("max".to_owned(), |value| value.to_string());
        // A burst that is larger than the new quota has to go first.
        let policy = if cpu.burst.is_some() {
            Policy::AfterNext
        } else {
            Policy::Required
        };
        let value = format!("{quota} {}", period.unwrap_or(100_000));
        writes.push(Write::new("cpu.max", value).policy(policy));
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.max.burst", burst));
    }
    Ok(())
}

/// `io.weight` (1 to 10000) for v1's blkio weight (10 to 1000).
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

fn io(io: &LinuxBlockIo, writes: &mut Vec<Write>, warnings: &mut Vec<String>) {
    let weight = |at: &str, value: u16| {
        let without_bfq = Write::new("io.weight", format!("{at}{}", io_weight(value)));
        Write::new("io.bfq.weight", format!("{at}{value}")).policy(Policy::Else(Box::new(without_bfq)))
    };
    writes.extend(
        io.weight
            .filter(|value| *value != 0)
            .map(|value| weight("", value)),
    );
    let mut leaves = io.leaf_weight.is_some_and(|value| value != 0);
    for device in &io.weight_device {
        let at = format!("{}:{} ", device.major, device.minor);
        writes.extend(
            device
                .weight
                .filter(|value| *value != 0)
                .map(|value| weight(&at, value)),
        );
        leaves |= device.leaf_weight.is_some_and(|value| value != 0);
    }
    if leaves {
        warnings.push("block IO leaf weights are ignored: cgroup v2 has none".to_owned());
    }
    for (name, devices) in throttles(io) {
        for device in devices {
            let line = format!("{}:{} {}={}", device.major, device.minor, name.v2, device.rate);
            writes.push(Write::new("io.max", line));
        }
    }
}

fn unified(resources: &LinuxResources, writes: &mut Vec<Write>) -> Result<(), Error> {
    for (file, value) in &resources.unified {
        let problem = if file.contains('/') {
            format!("unified resource {file:?} must be a file name (no slashes)")
        } else if !file.contains('.') || file.starts_with('.') {
            format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER")
        } else {
            // Files like io.max take one device a write.
            let lines = value.split('\n').filter(|line| !line.is_empty());
            writes.extend(lines.map(|line| Write::new(file, line)));
            continue;
        };
        return Err(Error::field("linux.resources.unified", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_by_the_quadratic_curve() {
        let cases = [
            (0, 0),
            (1, 1),
            (2, 1),
            (3, 2),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
        ];
        for (shares, weight) in cases {
            assert_eq!(weight_from_shares(shares), weight, "shares {shares}");
        }
    }

    #[test]
    fn swap_is_what_is_left_above_memory() {
        let of = |with_swap, limit| swap_limit(with_swap, limit).unwrap();
        assert_eq!(of(0, 0), None);
        assert_eq!(of(0, 100), None);
        assert_eq!(of(0, -1).as_deref(), Some("max"));
        assert_eq!(of(-1, 100).as_deref(), Some("max"));
        assert_eq!(of(300, 100).as_deref(), Some("200"));
        assert_eq!(of(100, 100).as_deref(), Some("0"));
        assert_eq!(of(300, -1).as_deref(), Some("300"));
        for (with_swap, limit) in [(300, 0), (50, 100), (300, -2), (-2, 100)] {
            assert!(swap_limit(with_swap, limit).is_err(), "{with_swap} {limit}");
        }
    }

    #[test]
    fn block_weights_are_stretched_to_the_wider_range() {
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    }
}
