//! The JSON of `events`, with runc's names: what is zero or empty there is left out where runc leaves it out.

use std::collections::BTreeMap;

use serde::Serialize;
use wharf_runtime::cgroup::{
    CpuStats, CpusetStats, HugetlbStats, IoEntry, IoStats, MemoryStats, MemoryUse, Pressure, PressureShares,
    Stats,
};
use wharf_runtime::intel_rdt;

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

impl<'a> Event<'a> {
    pub(super) fn oom(id: &'a str) -> Self {
        Self {
            kind: "oom",
            id,
            data: None,
        }
    }

    pub(super) fn stats(id: &'a str, stats: &'a Stats, shares: &'a intel_rdt::Stats) -> Self {
        let hugetlb = stats
            .hugetlb
            .iter()
            .map(|(size, stats)| (size.as_str(), Hugetlb::from(stats)));
        Self {
            kind: "stats",
            id,
            data: Some(Data {
                cpu: Cpu::from(&stats.cpu),
                cpuset: Cpuset::from(&stats.cpuset),
                memory: Memory::from(&stats.memory),
                pids: Pids {
                    current: stats.pids.current,
                    limit: stats.pids.limit,
                },
                blkio: Blkio::from(&stats.io),
                hugetlb: hugetlb.collect(),
                intel_rdt: shares,
                network_interfaces: None,
            }),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    cpu: Cpu<'a>,
    cpuset: Cpuset<'a>,
    memory: Memory<'a>,
    pids: Pids,
    blkio: Blkio<'a>,
    hugetlb: BTreeMap<&'a str, Hugetlb>,
    intel_rdt: &'a intel_rdt::Stats,
    /// runc makes no interfaces any more, and says so with `null`.
    network_interfaces: Option<()>,
}

#[derive(Debug, Serialize)]
struct Cpu<'a> {
    #[serde(skip_serializing_if = "is_default")]
    usage: CpuUsage<'a>,
    #[serde(skip_serializing_if = "is_default")]
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct CpuUsage<'a> {
    #[serde(skip_serializing_if = "is_default")]
    total: u64,
    #[serde(skip_serializing_if = "is_default")]
    percpu: &'a [u64],
    #[serde(skip_serializing_if = "is_default")]
    percpu_kernel: &'a [u64],
    #[serde(skip_serializing_if = "is_default")]
    percpu_user: &'a [u64],
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    throttled_time: u64,
}

impl<'a> From<&'a CpuStats> for Cpu<'a> {
    fn from(stats: &'a CpuStats) -> Self {
        Self {
            usage: CpuUsage {
                total: stats.usage,
                percpu: &stats.per_cpu,
                percpu_kernel: &stats.per_cpu_system,
                percpu_user: &stats.per_cpu_user,
                kernel: stats.system,
                user: stats.user,
            },
            throttling: Throttling {
                periods: stats.periods,
                throttled_periods: stats.throttled_periods,
                throttled_time: stats.throttled_time,
            },
            psi: stats.pressure.map(Psi::from),
        }
    }
}

#[derive(Debug, Serialize)]
struct Psi {
    #[serde(skip_serializing_if = "is_default")]
    some: Shares,
    #[serde(skip_serializing_if = "is_default")]
    full: Shares,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Shares {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

impl From<Pressure> for Psi {
    fn from(pressure: Pressure) -> Self {
        let shares = |shares: PressureShares| Shares {
            avg10: shares.avg10,
            avg60: shares.avg60,
            avg300: shares.avg300,
            total: shares.total,
        };
        Self {
            some: shares(pressure.some),
            full: shares(pressure.full),
        }
    }
}

#[derive(Debug, Serialize)]
struct Cpuset<'a> {
    #[serde(skip_serializing_if = "is_default")]
    cpus: &'a [u16],
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "is_default")]
    mems: &'a [u16],
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

impl<'a> From<&'a CpusetStats> for Cpuset<'a> {
    fn from(stats: &'a CpusetStats) -> Self {
        Self {
            cpus: &stats.cpus,
            cpu_exclusive: stats.cpu_exclusive,
            mems: &stats.mems,
            mem_hardwall: stats.mem_hardwall,
            mem_exclusive: stats.mem_exclusive,
            memory_migrate: stats.memory_migrate,
            memory_spread_page: stats.memory_spread_page,
            memory_spread_slab: stats.memory_spread_slab,
            memory_pressure: stats.memory_pressure,
            sched_load_balance: stats.sched_load_balance,
            sched_relax_domain_level: stats.sched_relax_domain_level,
        }
    }
}

#[derive(Debug, Serialize)]
struct Memory<'a> {
    #[serde(skip_serializing_if = "is_default")]
    cache: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: MemoryEntry,
    #[serde(skip_serializing_if = "is_default")]
    swap: MemoryEntry,
    #[serde(skip_serializing_if = "is_default")]
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    failcnt: u64,
}

impl From<MemoryUse> for MemoryEntry {
    fn from(stats: MemoryUse) -> Self {
        Self {
            limit: stats.limit,
            usage: stats.usage,
            max: stats.max_usage,
            failcnt: stats.failures,
        }
    }
}

impl<'a> From<&'a MemoryStats> for Memory<'a> {
    fn from(stats: &'a MemoryStats) -> Self {
        Self {
            cache: stats.cache,
            usage: stats.memory.into(),
            swap: stats.with_swap.into(),
            kernel: stats.kernel.into(),
            kernel_tcp: stats.kernel_tcp.into(),
            raw: &stats.stat,
            psi: stats.pressure.map(Psi::from),
        }
    }
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    current: u64,
    #[serde(skip_serializing_if = "is_default")]
    limit: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct BlkioEntry<'a> {
    #[serde(skip_serializing_if = "is_default")]
    major: u64,
    #[serde(skip_serializing_if = "is_default")]
    minor: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    op: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    value: u64,
}

impl<'a> From<&'a IoStats> for Blkio<'a> {
    fn from(stats: &'a IoStats) -> Self {
        let entries = |entries: &'a [IoEntry]| {
            let entry = |entry: &'a IoEntry| BlkioEntry {
                major: entry.major,
                minor: entry.minor,
                op: &entry.operation,
                value: entry.value,
            };
            entries.iter().map(entry).collect()
        };
        Self {
            io_service_bytes_recursive: entries(&stats.service_bytes),
            io_serviced_recursive: entries(&stats.serviced),
            io_queue_recursive: entries(&stats.queued),
            io_service_time_recursive: entries(&stats.service_time),
            io_wait_time_recursive: entries(&stats.wait_time),
            io_merged_recursive: entries(&stats.merged),
            io_time_recursive: entries(&stats.time),
            sectors_recursive: entries(&stats.sectors),
            psi: stats.pressure.map(Psi::from),
        }
    }
}

#[derive(Debug, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    failcnt: u64,
}

impl From<&HugetlbStats> for Hugetlb {
    fn from(stats: &HugetlbStats) -> Self {
        Self {
            usage: stats.usage,
            max: stats.max_usage,
            failcnt: stats.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_as_readers_expect_and_leave_out_what_is_empty() {
        let line = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        assert_eq!(line(&Event::oom("box")), r#"{"type":"oom","id":"box"}"#);
        let stats = Stats::default();
        assert_eq!(
            line(&Event::stats("box", &stats, &intel_rdt::Stats::default())),
            r#"{"type":"stats","id":"box","data":{"cpu":{},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"memory":{},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}}"#
        );
        let mut stats = Stats::default();
        stats.cpu.usage = 5;
        stats.memory.memory.usage = 7;
        stats.memory.pressure = Some(Pressure::default());
        stats.io.serviced = vec![IoEntry {
            major: 8,
            minor: 0,
            operation: "Read".to_owned(),
            value: 3,
        }];
        let text = line(&Event::stats("box", &stats, &intel_rdt::Stats::default()));
        for part in [
            r#""cpu":{"usage":{"total":5,"kernel":0,"user":0}}"#,
            r#""memory":{"usage":{"limit":0,"usage":7,"failcnt":0},"psi":{}}"#,
            r#""blkio":{"ioServicedRecursive":[{"major":8,"op":"Read","value":3}]}"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
