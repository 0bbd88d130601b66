//! OCI resources as writes into the files of the v1 controllers ([cgroup-v1]).
//!
//! Kernel memory limits are left out: the kernel obsoleted them in 5.4 and refuses or ignores them since.
//!
//! [cgroup-v1]: https://docs.kernel.org/admin-guide/cgroup-v1/index.html

use super::Error;
use super::write::{Policy, Write};
use crate::spec::is_net_device_name;
use crate::spec::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

/// What one controller is to be told; empty when it was asked for nothing.
pub(super) fn writes(controller: &str, resources: &LinuxResources) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    match controller {
        "memory" => resources
            .memory
            .iter()
            .try_for_each(|it| memory(it, &mut writes))?,
        "cpu" => resources.cpu.iter().try_for_each(|it| cpu(it, &mut writes))?,
        "cpuset" => resources.cpu.iter().for_each(|it| cpuset(it, &mut writes)),
        "pids" => {
            let limit = resources.pids.and_then(|pids| pids.limit);
            writes.extend(limit.map(|limit| Write::new("pids.max", pids_limit(limit))));
        }
        "blkio" => resources.block_io.iter().for_each(|it| blkio(it, &mut writes)),
        "hugetlb" => {
            for (size, limit) in hugepages(resources)? {
                writes.push(Write::new(format!("hugetlb.{size}.limit_in_bytes"), limit));
                let reserved = Write::new(format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit);
                writes.push(reserved.policy(Policy::IfPresent));
            }
        }
        "net_cls" => {
            let class = resources
                .network
                .iter()
                .filter_map(|network| network.class_id)
                .filter(|class| *class != 0);
            writes.extend(class.map(|class| Write::new("net_cls.classid", class)));
        }
        "net_prio" => {
            let priorities = resources.network.iter().flat_map(|network| &network.priorities);
            for (index, it) in priorities.enumerate() {
                if !is_net_device_name(&it.name) {
                    let field = format!("linux.resources.network.priorities[{index}].name");
                    let problem = format!("invalid network device name {:?}", it.name);
                    return Err(Error::field(field, problem));
                }
                writes.push(Write::new(
                    "net_prio.ifpriomap",
                    format!("{} {}", it.name, it.priority),
                ));
            }
        }
        "rdma" => writes.extend(rdma(resources)?),
        _ => {}
    }
    Ok(writes)
}

fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<(), Error> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = memory.limit.filter(|value| *value != 0);
    let with_swap = memory.swap.filter(|value| *value != 0);
    match (limit, with_swap) {
        // The kernel keeps limit <= memsw at every step, so which goes first depends on the values of before.
        (Some(limit), Some(with_swap)) => {
            writes.push(Write::new(LIMIT, limit).policy(Policy::AfterNext));
            writes.push(Write::new(WITH_SWAP, with_swap));
        }
        (Some(-1), None) => {
            writes.push(Write::new(LIMIT, -1).policy(Policy::AfterNext));
            writes.push(Write::new(WITH_SWAP, -1).policy(Policy::IfPresent));
        }
        (limit, with_swap) => {
            writes.extend(limit.map(|limit| Write::new(LIMIT, limit)));
            writes.extend(with_swap.map(|with_swap| Write::new(WITH_SWAP, with_swap)));
        }
    }
    if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
        writes.push(Write::new("memory.soft_limit_in_bytes", reservation));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(Write::new("memory.oom_control", 1));
    }
    match memory.swappiness {
        None | Some(u64::MAX) => {}
        Some(value @ 0..=100) => writes.push(Write::new("memory.swappiness", value)),
        Some(value) => {
            let problem = format!("invalid memory swappiness value: {value} (valid range is 0-100)");
            return Err(Error::field("linux.resources.memory.swappiness", problem));
        }
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<(), Error> {
    // The kernel would clamp shares outside of its range without a word.
    match cpu.shares {
        None | Some(0) => {}
        Some(1) => {
            return Err(Error::field(
                "linux.resources.cpu.shares",
                "the minimum allowed cpu-shares is 2",
            ));
        }
        Some(shares @ 2..=262_144) => writes.push(Write::new("cpu.shares", shares)),
        Some(_) => {
            let problem = "the maximum allowed cpu-shares is 262144";
            return Err(Error::field("linux.resources.cpu.shares", problem));
        }
    }
    let quota = cpu.quota.filter(|value| *value != 0);
    let burst = cpu.burst;
    // Period, quota and burst are checked against one another, and against the parent's quota.
    if let Some(period) = cpu.period.filter(|value| *value != 0) {
        let policy = if quota.is_some() {
            Policy::AfterNext
        } else {
            Policy::Required
        };
        writes.push(Write::new("cpu.cfs_period_us", period).policy(policy));
    }
    if let Some(quota) = quota {
        let policy = if burst.is_some() {
            Policy::AfterNext
        } else {
            Policy::Required
        };
        writes.push(Write::new("cpu.cfs_quota_us", quota).policy(policy));
    }
    if let Some(burst) = burst {
        // Before Linux 5.14 there is no burst, and a burst of zero is what such a kernel does.
        let policy = if burst == 0 {
            Policy::IfPresent
        } else {
            Policy::Required
        };
        writes.push(Write::new("cpu.cfs_burst_us", burst).policy(policy));
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", idle));
    }
    let runtime = cpu.realtime_runtime.filter(|value| *value != 0);
    if let Some(period) = cpu.realtime_period.filter(|value| *value != 0) {
        let policy = if runtime.is_some() {
            Policy::AfterNext
        } else {
            Policy::Required
        };
        writes.push(Write::new("cpu.rt_period_us", period).policy(policy));
    }
    writes.extend(runtime.map(|runtime| Write::new("cpu.rt_runtime_us", runtime)));
    Ok(())
}

pub(super) fn cpuset(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !list.is_empty() {
            writes.push(Write::new(file, list));
        }
    }
}

/// No more than one process for 0 (the kernel's `0` would only forbid forks), no limit below that.
pub(super) fn pids_limit(limit: i64) -> String {
    match limit {
        0 => "1".to_owned(),
        1.. => limit.to_string(),
        _ => "max".to_owned(),
    }
}

fn blkio(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    let weight = |file: &str, with_bfq: &str, value: String| {
        let with_bfq = Write::new(with_bfq, &value);
        Write::new(file, value).policy(Policy::Else(Box::new(with_bfq)))
    };
    if let Some(value) = io.weight.filter(|value| *value != 0) {
        writes.push(weight("blkio.weight", "blkio.bfq.weight", value.to_string()));
    }
    if let Some(value) = io.leaf_weight.filter(|value| *value != 0) {
        writes.push(Write::new("blkio.leaf_weight", value));
    }
    for device in &io.weight_device {
        let at = format!("{}:{}", device.major, device.minor);
        if let Some(value) = device.weight.filter(|value| *value != 0) {
            let value = format!("{at} {value}");
            writes.push(weight("blkio.weight_device", "blkio.bfq.weight_device", value));
        }
        if let Some(value) = device.leaf_weight.filter(|value| *value != 0) {
            writes.push(Write::new("blkio.leaf_weight_device", format!("{at} {value}")));
        }
    }
    for (name, devices) in throttles(io) {
        for device in devices {
            let line = format!("{}:{} {}", device.major, device.minor, device.rate);
            writes.push(Write::new(format!("blkio.throttle.{}", name.v1), line));
        }
    }
}

/// A throttle's name in the two layouts.
pub(super) struct ThrottleName {
    pub v1: &'static str,
    pub v2: &'static str,
}

pub(super) fn throttles(
    io: &LinuxBlockIo,
) -> impl Iterator<Item = (ThrottleName, impl Iterator<Item = &LinuxThrottleDevice>)> {
    [
        ("read_bps_device", "rbps", &io.throttle_read_bps_device),
        ("write_bps_device", "wbps", &io.throttle_write_bps_device),
        ("read_iops_device", "riops", &io.throttle_read_iops_device),
        ("write_iops_device", "wiops", &io.throttle_write_iops_device),
    ]
    .into_iter()
    .map(|(v1, v2, devices)| (ThrottleName { v1, v2 }, devices.iter()))
}

/// Page size name and limit in bytes. The name becomes part of a file name, so it is checked.
pub(super) fn hugepages(resources: &LinuxResources) -> Result<Vec<(&str, u64)>, Error> {
    let mut limits = Vec::new();
    for (index, limit) in resources.hugepage_limits.iter().enumerate() {
        let size = limit.page_size.as_str();
        if size.is_empty() || size.len() > 32 || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let field = format!("linux.resources.hugepageLimits[{index}].pageSize");
            return Err(Error::field(field, format!("bad page size {size:?}")));
        }
        limits.push((size, limit.limit));
    }
    Ok(limits)
}

/// The name becomes a word of a line, so it is checked.
pub(super) fn rdma(resources: &LinuxResources) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::with_capacity(resources.rdma.len());
    for (device, limits) in &resources.rdma {
        let bad = |letter: char| letter == '/' || letter.is_whitespace() || letter.is_control();
        if matches!(device.as_str(), "" | "." | "..") || device.len() > 64 || device.contains(bad) {
            let problem = format!("{device:?} is no name of a device");
            return Err(Error::field("linux.resources.rdma", problem));
        }
        let number = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
        let (handles, objects) = (number(limits.hca_handles), number(limits.hca_objects));
        writes.push(Write::new(
            "rdma.max",
            format!("{device} hca_handle={handles} hca_object={objects}"),
        ));
    }
    Ok(writes)
}
