//! The families of a container in cgroups of version 1.

use wharf_proto::io::containerd::cgroups::v1;

use super::{containers::Families, ones};

impl Families {
    /// Adds what is known of a container in cgroups of version 1.
    pub fn take_v1(&mut self, container: usize, stats: &v1::Metrics) {
        if let Some(memory) = &stats.memory {
            self.take_v1_memory(container, memory);
        }
        if let Some(pids) = &stats.pids {
            ones! { self, container,
                "pids_limit", "The limit of processes and threads", pids.limit;
                "pids_current", "The processes and threads", pids.current;
            }
        }
        if let Some(usage) = stats.cpu.as_ref().and_then(|cpu| cpu.usage.as_ref()) {
            ones! { self, container,
                "cpu_total_nanoseconds", "The processor time used", usage.total;
                "cpu_kernel_nanoseconds", "The processor time used in the kernel", usage.kernel;
                "cpu_user_nanoseconds", "The processor time used outside of the kernel", usage.user;
            }
            let per_cpu = usage.per_cpu.iter().enumerate();
            let per_cpu = per_cpu.map(|(cpu, time)| (vec![("cpu", cpu.to_string())], *time as f64));
            let help = "The processor time used, by processor";
            self.add(
                container,
                "container_per_cpu_nanoseconds",
                help,
                per_cpu.collect(),
            );
        }
        if let Some(throttling) = stats.cpu.as_ref().and_then(|cpu| cpu.throttling.as_ref()) {
            ones! { self, container,
                "cpu_throttle_periods_total", "The periods with a limit that passed", throttling.periods;
                "cpu_throttled_periods_total", "The periods in which the limit was hit", throttling.throttled_periods;
                "cpu_throttled_time_nanoseconds", "The time that was waited for the next period", throttling.throttled_time;
            }
        }
        let huge = |value: fn(&v1::HugetlbStat) -> u64| {
            let pages = stats.hugetlb.iter();
            pages
                .map(|page| (vec![("page", page.pagesize.clone())], value(page) as f64))
                .collect()
        };
        for (name, help, values) in [
            (
                "container_hugetlb_usage_bytes",
                "The huge pages in use",
                huge(|page| page.usage),
            ),
            (
                "container_hugetlb_failcnt_total",
                "How often the limit was hit",
                huge(|page| page.failcnt),
            ),
            (
                "container_hugetlb_max_bytes",
                "The most huge pages used so far",
                huge(|page| page.max),
            ),
        ] {
            self.add(container, name, help, values);
        }
        if let Some(blkio) = &stats.blkio {
            self.take_v1_blkio(container, blkio);
        }
        if let Some(oom) = &stats.memory_oom_control {
            ones! { self, container, "memory_oom_total", "How many processes were killed for want of memory", oom.oom_kill; }
        }
    }

    fn take_v1_blkio(&mut self, container: usize, blkio: &v1::BlkIoStat) {
        for (name, help, entries) in [
            (
                "container_blkio_io_merged_recursive_total",
                "Requests merged",
                &blkio.io_merged_recursive,
            ),
            (
                "container_blkio_io_queued_recursive_total",
                "Requests queued",
                &blkio.io_queued_recursive,
            ),
            (
                "container_blkio_io_service_bytes_recursive_bytes",
                "Bytes transferred",
                &blkio.io_service_bytes_recursive,
            ),
            (
                "container_blkio_io_service_time_recursive_total",
                "Time from dispatch to completion",
                &blkio.io_service_time_recursive,
            ),
            (
                "container_blkio_io_serviced_recursive_total",
                "Requests served",
                &blkio.io_serviced_recursive,
            ),
            (
                "container_blkio_io_time_recursive_total",
                "Time the device was used",
                &blkio.io_time_recursive,
            ),
            (
                "container_blkio_sectors_recursive_total",
                "Sectors transferred",
                &blkio.sectors_recursive,
            ),
        ] {
            let values = entries.iter().map(|entry| {
                let labels = vec![
                    ("op", entry.op.clone()),
                    ("device", entry.device.clone()),
                    ("major", entry.major.to_string()),
                    ("minor", entry.minor.to_string()),
                ];
                (labels, entry.value as f64)
            });
            self.add(container, name, help, values.collect());
        }
    }

    fn take_v1_memory(&mut self, container: usize, memory: &v1::MemoryStat) {
        ones! { self, container,
            "memory_cache_bytes", "memory.stat: cache", memory.cache;
            "memory_rss_bytes", "memory.stat: rss", memory.rss;
            "memory_rss_huge_bytes", "memory.stat: rss_huge", memory.rss_huge;
            "memory_mapped_file_bytes", "memory.stat: mapped_file", memory.mapped_file;
            "memory_dirty_bytes", "memory.stat: dirty", memory.dirty;
            "memory_writeback_bytes", "memory.stat: writeback", memory.writeback;
            "memory_pgpgin_bytes", "memory.stat: pgpgin", memory.pg_pg_in;
            "memory_pgpgout_bytes", "memory.stat: pgpgout", memory.pg_pg_out;
            "memory_pgfault_bytes", "memory.stat: pgfault", memory.pg_fault;
            "memory_pgmajfault_bytes", "memory.stat: pgmajfault", memory.pg_maj_fault;
            "memory_inactive_anon_bytes", "memory.stat: inactive_anon", memory.inactive_anon;
            "memory_active_anon_bytes", "memory.stat: active_anon", memory.active_anon;
            "memory_inactive_file_bytes", "memory.stat: inactive_file", memory.inactive_file;
            "memory_active_file_bytes", "memory.stat: active_file", memory.active_file;
            "memory_unevictable_bytes", "memory.stat: unevictable", memory.unevictable;
            "memory_hierarchical_memory_limit_bytes", "memory.stat: hierarchical_memory_limit", memory.hierarchical_memory_limit;
            "memory_hierarchical_memsw_limit_bytes", "memory.stat: hierarchical_memsw_limit", memory.hierarchical_swap_limit;
            "memory_total_cache_bytes", "memory.stat: total_cache", memory.total_cache;
            "memory_total_rss_bytes", "memory.stat: total_rss", memory.total_rss;
            "memory_total_rss_huge_bytes", "memory.stat: total_rss_huge", memory.total_rss_huge;
            "memory_total_mapped_file_bytes", "memory.stat: total_mapped_file", memory.total_mapped_file;
            "memory_total_dirty_bytes", "memory.stat: total_dirty", memory.total_dirty;
            "memory_total_writeback_bytes", "memory.stat: total_writeback", memory.total_writeback;
            "memory_total_pgpgin_bytes", "memory.stat: total_pgpgin", memory.total_pg_pg_in;
            "memory_total_pgpgout_bytes", "memory.stat: total_pgpgout", memory.total_pg_pg_out;
            "memory_total_pgfault_bytes", "memory.stat: total_pgfault", memory.total_pg_fault;
            "memory_total_pgmajfault_bytes", "memory.stat: total_pgmajfault", memory.total_pg_maj_fault;
            "memory_total_inactive_anon_bytes", "memory.stat: total_inactive_anon", memory.total_inactive_anon;
            "memory_total_active_anon_bytes", "memory.stat: total_active_anon", memory.total_active_anon;
            "memory_total_inactive_file_bytes", "memory.stat: total_inactive_file", memory.total_inactive_file;
            "memory_total_active_file_bytes", "memory.stat: total_active_file", memory.total_active_file;
            "memory_total_unevictable_bytes", "memory.stat: total_unevictable", memory.total_unevictable;
        }
        if let Some(entry) = &memory.usage {
            ones! { self, container,
                "memory_usage_failcnt_total", "How often the limit of memory was hit", entry.failcnt;
                "memory_usage_limit_bytes", "The limit of memory", entry.limit;
                "memory_usage_max_bytes", "The most memory used so far", entry.max;
                "memory_usage_usage_bytes", "The memory in use", entry.usage;
            }
        }
        if let Some(entry) = &memory.swap {
            ones! { self, container,
                "memory_swap_failcnt_total", "How often the limit of memory and swap was hit", entry.failcnt;
                "memory_swap_limit_bytes", "The limit of memory and swap", entry.limit;
                "memory_swap_max_bytes", "The most memory and swap used so far", entry.max;
                "memory_swap_usage_bytes", "The memory and swap in use", entry.usage;
            }
        }
        if let Some(entry) = &memory.kernel {
            ones! { self, container,
                "memory_kernel_failcnt_total", "How often the limit of kernel memory was hit", entry.failcnt;
                "memory_kernel_limit_bytes", "The limit of kernel memory", entry.limit;
                "memory_kernel_max_bytes", "The most kernel memory used so far", entry.max;
                "memory_kernel_usage_bytes", "The kernel memory in use", entry.usage;
            }
        }
        if let Some(entry) = &memory.kernel_tcp {
            ones! { self, container,
                "memory_kerneltcp_failcnt_total", "How often the limit of TCP buffers was hit", entry.failcnt;
                "memory_kerneltcp_limit_bytes", "The limit of TCP buffers", entry.limit;
                "memory_kerneltcp_max_bytes", "The most TCP buffers used so far", entry.max;
                "memory_kerneltcp_usage_bytes", "The TCP buffers in use", entry.usage;
            }
        }
    }
}
