//! The families of a container in a cgroup of version 2.

use wharf_proto::io::containerd::cgroups::v2;

use super::{containers::Families, ones};

impl Families {
    /// Adds what is known of a container in a cgroup of version 2.
    pub fn take_v2(&mut self, container: usize, stats: &v2::Metrics) {
        if let Some(pids) = &stats.pids {
            ones! { self, container,
                "pids_limit", "The limit of processes and threads", pids.limit;
                "pids_current", "The processes and threads", pids.current;
            }
        }
        if let Some(cpu) = &stats.cpu {
            ones! { self, container,
                "cpu_usage_usec_microseconds", "The processor time used", cpu.usage_usec;
                "cpu_user_usec_microseconds", "The processor time used outside of the kernel", cpu.user_usec;
                "cpu_system_usec_microseconds", "The processor time used in the kernel", cpu.system_usec;
                "cpu_nr_periods_total", "The periods with a limit that passed", cpu.nr_periods;
                "cpu_nr_throttled_total", "The periods in which the limit was hit", cpu.nr_throttled;
                "cpu_throttled_usec_microseconds", "The time that was waited for the next period", cpu.throttled_usec;
            }
        }
        if let Some(io) = &stats.io {
            let values = |value: fn(&v2::IoEntry) -> u64| {
                let entries = io.usage.iter();
                entries
                    .map(|entry| {
                        let labels = vec![
                            ("major", entry.major.to_string()),
                            ("minor", entry.minor.to_string()),
                        ];
                        (labels, value(entry) as f64)
                    })
                    .collect()
            };
            for (name, help, values) in [
                ("container_io_rbytes_bytes", "Bytes read", values(|io| io.rbytes)),
                (
                    "container_io_wbytes_bytes",
                    "Bytes written",
                    values(|io| io.wbytes),
                ),
                (
                    "container_io_rios_total",
                    "Requests to read",
                    values(|io| io.rios),
                ),
                (
                    "container_io_wios_total",
                    "Requests to write",
                    values(|io| io.wios),
                ),
            ] {
                self.add(container, name, help, values);
            }
        }
        if let Some(memory) = &stats.memory {
            ones! { self, container,
                "memory_usage_bytes", "The memory in use", memory.usage;
                "memory_usage_limit_bytes", "The limit of memory", memory.usage_limit;
                "memory_swap_usage_bytes", "The swap in use", memory.swap_usage;
                "memory_swap_limit_bytes", "The limit of swap", memory.swap_limit;
                "memory_file_mapped_bytes", "memory.stat: file_mapped", memory.file_mapped;
                "memory_file_dirty_bytes", "memory.stat: file_dirty", memory.file_dirty;
                "memory_file_writeback_bytes", "memory.stat: file_writeback", memory.file_writeback;
                "memory_pgactivate_bytes", "memory.stat: pgactivate", memory.pgactivate;
                "memory_pgdeactivate_bytes", "memory.stat: pgdeactivate", memory.pgdeactivate;
                "memory_pgfault_bytes", "memory.stat: pgfault", memory.pgfault;
                "memory_pgmajfault_bytes", "memory.stat: pgmajfault", memory.pgmajfault;
                "memory_pglazyfree_bytes", "memory.stat: pglazyfree", memory.pglazyfree;
                "memory_pgrefill_bytes", "memory.stat: pgrefill", memory.pgrefill;
                "memory_pglazyfreed_bytes", "memory.stat: pglazyfreed", memory.pglazyfreed;
                "memory_pgscan_bytes", "memory.stat: pgscan", memory.pgscan;
                "memory_pgsteal_bytes", "memory.stat: pgsteal", memory.pgsteal;
                "memory_inactive_anon_bytes", "memory.stat: inactive_anon", memory.inactive_anon;
                "memory_active_anon_bytes", "memory.stat: active_anon", memory.active_anon;
                "memory_inactive_file_bytes", "memory.stat: inactive_file", memory.inactive_file;
                "memory_active_file_bytes", "memory.stat: active_file", memory.active_file;
                "memory_unevictable_bytes", "memory.stat: unevictable", memory.unevictable;
                "memory_anon_bytes", "memory.stat: anon", memory.anon;
                "memory_file_bytes", "memory.stat: file", memory.file;
                "memory_kernel_stack_bytes", "memory.stat: kernel_stack", memory.kernel_stack;
                "memory_slab_bytes", "memory.stat: slab", memory.slab;
                "memory_sock_bytes", "memory.stat: sock", memory.sock;
                "memory_shmem_bytes", "memory.stat: shmem", memory.shmem;
                "memory_anon_thp_bytes", "memory.stat: anon_thp", memory.anon_thp;
                "memory_slab_reclaimable_bytes", "memory.stat: slab_reclaimable", memory.slab_reclaimable;
                "memory_slab_unreclaimable_bytes", "memory.stat: slab_unreclaimable", memory.slab_unreclaimable;
                "memory_workingset_refault_bytes", "memory.stat: workingset_refault", memory.workingset_refault;
                "memory_workingset_activate_bytes", "memory.stat: workingset_activate", memory.workingset_activate;
                "memory_workingset_nodereclaim_bytes", "memory.stat: workingset_nodereclaim", memory.workingset_nodereclaim;
                "memory_thp_fault_alloc_bytes", "memory.stat: thp_fault_alloc", memory.thp_fault_alloc;
                "memory_thp_collapse_alloc_bytes", "memory.stat: thp_collapse_alloc", memory.thp_collapse_alloc;
            }
        }
        if let Some(events) = &stats.memory_events {
            ones! { self, container,
                "memory_oom_total", "How often the limit was hit and nothing could be reclaimed", events.oom;
            }
        }
    }
}
