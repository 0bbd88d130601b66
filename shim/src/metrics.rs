//! A control group's numbers in containerd's two forms.
//!
//! `io.containerd.cgroups.v2.Metrics` for a group of the unified hierarchy, `io.containerd.cgroups.v1.Metrics` otherwise; also
//! on hosts with both, where the controllers are in v1. Not told: pressure (PSI), rdma and network counters.

use std::collections::BTreeMap;

use prost_types::Any;
use wharf_proto::any::pack;
use wharf_proto::io::containerd::cgroups::{v1, v2};
use wharf_runtime::cgroup::{Cgroup, IoEntry, MemoryUse, Stats};

/// The numbers of `stats` in the form of the group's hierarchy.
pub fn metrics(stats: &Stats, cgroup: &Cgroup) -> Any {
    let is_unified = !cgroup.paths().is_empty() && cgroup.paths().keys().all(String::is_empty);
    if is_unified {
        pack(&unified(stats))
    } else {
        pack(&legacy(stats))
    }
}

fn entry(memory: &MemoryUse) -> Option<v1::MemoryEntry> {
    Some(v1::MemoryEntry {
        limit: memory.limit,
        usage: memory.usage,
        max: memory.max_usage,
        failcnt: memory.failures,
    })
}

fn devices(entries: &[IoEntry]) -> Vec<v1::BlkIoEntry> {
    entries
        .iter()
        .map(|entry| v1::BlkIoEntry {
            op: entry.operation.clone(),
            device: String::new(),
            major: entry.major,
            minor: entry.minor,
            value: entry.value,
        })
        .collect()
}

fn legacy(stats: &Stats) -> v1::Metrics {
    let field = |name: &str| stats.memory.stat.get(name).copied().unwrap_or(0);
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v1::HugetlbStat {
                usage: pages.usage,
                max: pages.max_usage,
                failcnt: pages.failures,
                pagesize: size.clone(),
            })
            .collect(),
        pids: Some(v1::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
        }),
        cpu: Some(v1::CpuStat {
            usage: Some(v1::CpuUsage {
                total: stats.cpu.usage,
                kernel: stats.cpu.system,
                user: stats.cpu.user,
                per_cpu: stats.cpu.per_cpu.clone(),
            }),
            throttling: Some(v1::Throttle {
                periods: stats.cpu.periods,
                throttled_periods: stats.cpu.throttled_periods,
                throttled_time: stats.cpu.throttled_time,
            }),
        }),
        memory: Some(v1::MemoryStat {
            cache: field("cache"),
            rss: field("rss"),
            rss_huge: field("rss_huge"),
            mapped_file: field("mapped_file"),
            dirty: field("dirty"),
            writeback: field("writeback"),
            pg_pg_in: field("pgpgin"),
            pg_pg_out: field("pgpgout"),
            pg_fault: field("pgfault"),
            pg_maj_fault: field("pgmajfault"),
            inactive_anon: field("inactive_anon"),
            active_anon: field("active_anon"),
            inactive_file: field("inactive_file"),
            active_file: field("active_file"),
            unevictable: field("unevictable"),
            hierarchical_memory_limit: field("hierarchical_memory_limit"),
            hierarchical_swap_limit: field("hierarchical_memsw_limit"),
            total_cache: field("total_cache"),
            total_rss: field("total_rss"),
            total_rss_huge: field("total_rss_huge"),
            total_mapped_file: field("total_mapped_file"),
            total_dirty: field("total_dirty"),
            total_writeback: field("total_writeback"),
            total_pg_pg_in: field("total_pgpgin"),
            total_pg_pg_out: field("total_pgpgout"),
            total_pg_fault: field("total_pgfault"),
            total_pg_maj_fault: field("total_pgmajfault"),
            total_inactive_anon: field("total_inactive_anon"),
            total_active_anon: field("total_active_anon"),
            total_inactive_file: field("total_inactive_file"),
            total_active_file: field("total_active_file"),
            total_unevictable: field("total_unevictable"),
            usage: entry(&stats.memory.memory),
            swap: entry(&stats.memory.with_swap),
            kernel: entry(&stats.memory.kernel),
            kernel_tcp: entry(&stats.memory.kernel_tcp),
        }),
        blkio: Some(v1::BlkIoStat {
            io_service_bytes_recursive: devices(&stats.io.service_bytes),
            io_serviced_recursive: devices(&stats.io.serviced),
            ..v1::BlkIoStat::default()
        }),
        memory_oom_control: Some(v1::MemoryOomControl {
            oom_kill: stats.memory.oom_kills,
            ..v1::MemoryOomControl::default()
        }),
        ..v1::Metrics::default()
    }
}

/// One device's four counters; the runtime tells each by itself.
fn per_device(stats: &Stats) -> Vec<v2::IoEntry> {
    let mut devices: BTreeMap<(u64, u64), v2::IoEntry> = BTreeMap::new();
    let counters = [(&stats.io.service_bytes, false), (&stats.io.serviced, true)];
    for (entry, is_count) in counters
        .iter()
        .flat_map(|(list, is_count)| list.iter().map(move |entry| (entry, *is_count)))
    {
        let device = devices.entry((entry.major, entry.minor)).or_insert(v2::IoEntry {
            major: entry.major,
            minor: entry.minor,
            ..v2::IoEntry::default()
        });
        match (entry.operation.as_str(), is_count) {
            ("Read", false) => device.rbytes = entry.value,
            ("Write", false) => device.wbytes = entry.value,
            ("Read", true) => device.rios = entry.value,
            ("Write", true) => device.wios = entry.value,
            _ => {}
        }
    }
    devices.into_values().collect()
}

fn unified(stats: &Stats) -> v2::Metrics {
    let field = |name: &str| stats.memory.stat.get(name).copied().unwrap_or(0);
    let memory = &stats.memory;
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
        }),
        cpu: Some(v2::CpuStat {
            usage_usec: stats.cpu.usage / 1000,
            user_usec: stats.cpu.user / 1000,
            system_usec: stats.cpu.system / 1000,
            nr_periods: stats.cpu.periods,
            nr_throttled: stats.cpu.throttled_periods,
            throttled_usec: stats.cpu.throttled_time / 1000,
            ..v2::CpuStat::default()
        }),
        memory: Some(v2::MemoryStat {
            anon: field("anon"),
            file: field("file"),
            kernel_stack: field("kernel_stack"),
            slab: field("slab"),
            sock: field("sock"),
            shmem: field("shmem"),
            file_mapped: field("file_mapped"),
            file_dirty: field("file_dirty"),
            file_writeback: field("file_writeback"),
            anon_thp: field("anon_thp"),
            inactive_anon: field("inactive_anon"),
            active_anon: field("active_anon"),
            inactive_file: field("inactive_file"),
            active_file: field("active_file"),
            unevictable: field("unevictable"),
            slab_reclaimable: field("slab_reclaimable"),
            slab_unreclaimable: field("slab_unreclaimable"),
            pgfault: field("pgfault"),
            pgmajfault: field("pgmajfault"),
            workingset_refault: field("workingset_refault"),
            workingset_activate: field("workingset_activate"),
            workingset_nodereclaim: field("workingset_nodereclaim"),
            pgrefill: field("pgrefill"),
            pgscan: field("pgscan"),
            pgsteal: field("pgsteal"),
            pgactivate: field("pgactivate"),
            pgdeactivate: field("pgdeactivate"),
            pglazyfree: field("pglazyfree"),
            pglazyfreed: field("pglazyfreed"),
            thp_fault_alloc: field("thp_fault_alloc"),
            thp_collapse_alloc: field("thp_collapse_alloc"),
            usage: memory.memory.usage,
            usage_limit: memory.memory.limit,
            swap_usage: memory.swap.usage,
            swap_limit: memory.swap.limit,
            max_usage: memory.memory.max_usage,
            swap_max_usage: memory.swap.max_usage,
            psi: None,
        }),
        io: Some(v2::IoStat {
            usage: per_device(stats),
            psi: None,
        }),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v2::HugeTlbStat {
                current: pages.usage,
                max: pages.max_usage,
                pagesize: size.clone(),
                failcnt: pages.failures,
            })
            .collect(),
        memory_events: Some(v2::MemoryEvents {
            max: memory.memory.failures,
            oom_kill: memory.oom_kills,
            ..v2::MemoryEvents::default()
        }),
        ..v2::Metrics::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use wharf_proto::any::unpack;

    fn cgroup(keys: &[&str]) -> Cgroup {
        let path = |key: &&str| ((*key).to_owned(), PathBuf::from("/sys/fs/cgroup/x").join(key));
        Cgroup::from_paths(keys.iter().map(path).collect()).unwrap()
    }

    #[test]
    fn the_form_is_that_of_the_hierarchy() {
        let mut stats = Stats::default();
        stats.cpu.usage = 5_000;
        stats.memory.memory.usage = 77;
        stats.io.service_bytes = ["Read", "Write"]
            .map(|operation| IoEntry {
                major: 8,
                minor: 1,
                operation: operation.to_owned(),
                value: 3,
            })
            .to_vec();
        let new: v2::Metrics = unpack(&metrics(&stats, &cgroup(&[""]))).unwrap().unwrap();
        assert_eq!(new.cpu.unwrap().usage_usec, 5);
        assert_eq!(new.memory.unwrap().usage, 77);
        let io = new.io.unwrap().usage;
        assert_eq!((io.len(), io[0].rbytes, io[0].wbytes), (1, 3, 3));
        // A host with both hierarchies has its controllers in v1.
        let old: v1::Metrics = unpack(&metrics(&stats, &cgroup(&["", "memory"])))
            .unwrap()
            .unwrap();
        assert_eq!(old.cpu.unwrap().usage.unwrap().total, 5_000);
        assert_eq!(old.memory.unwrap().usage.unwrap().usage, 77);
        assert_eq!(old.blkio.unwrap().io_service_bytes_recursive.len(), 2);
    }
}
