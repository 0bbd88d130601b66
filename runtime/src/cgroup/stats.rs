//! What a group uses, as numbers.
//!
//! Both layouts answer in one shape, with v1's units: nanoseconds and bytes. What a host does not count is zero
//! or empty, and a limit that is not set is [`u64::MAX`].

use std::collections::BTreeMap;

use super::group::GroupDirectory;
use super::pressure::{self, Pressure};
use super::processors::{self, CpusetStats};
use super::{Cgroup, Error};

/// `USER_HZ`, in which `cpuacct.stat` counts, is 100 on every architecture served.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// A snapshot of a group's use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Which processors and memory nodes; v1 only.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub io: IoStats,
    /// Huge pages, by page size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuStats {
    /// All of it.
    pub usage: u64,
    /// In the programs themselves.
    pub user: u64,
    /// In the kernel on their behalf.
    pub system: u64,
    /// By processor; v1 only.
    pub per_cpu: Vec<u64>,
    /// The same in the kernel.
    pub per_cpu_system: Vec<u64>,
    /// The same in the programs.
    pub per_cpu_user: Vec<u64>,
    /// Waiting for a processor; v2 only.
    pub pressure: Option<Pressure>,
    /// How many periods of the quota have begun.
    pub periods: u64,
    /// In how many the quota was used up.
    pub throttled_periods: u64,
    /// How long it was waited for the next period.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryStats {
    /// Memory alone.
    pub memory: MemoryUse,
    /// Memory and swap together, as v1 counts.
    pub with_swap: MemoryUse,
    /// Swap alone, as v2 counts; on v1 calculated.
    pub swap: MemoryUse,
    /// The kernel's own memory for the group; v1 only.
    pub kernel: MemoryUse,
    /// TCP's buffers; v1 only.
    pub kernel_tcp: MemoryUse,
    /// The page cache.
    pub cache: u64,
    /// Waiting for memory; v2 only.
    pub pressure: Option<Pressure>,
    /// The fields of `memory.stat`, by the kernel's names.
    pub stat: BTreeMap<String, u64>,
    /// How often the OOM killer killed in the group.
    pub oom_kills: u64,
}

/// One counter of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MemoryUse {
    /// Now.
    pub usage: u64,
    /// At most so far.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The limit.
    pub limit: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// At most; zero for no limit.
    pub limit: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IoStats {
    /// Bytes moved.
    pub service_bytes: Vec<IoEntry>,
    /// Operations done.
    pub serviced: Vec<IoEntry>,
    /// Operations that wait; this and what follows is v1's, where the kernel counts it.
    pub queued: Vec<IoEntry>,
    /// Time that devices worked, in nanoseconds.
    pub service_time: Vec<IoEntry>,
    /// Time that operations waited, in nanoseconds.
    pub wait_time: Vec<IoEntry>,
    /// Operations that were done together with others.
    pub merged: Vec<IoEntry>,
    /// Time that the devices were the group's, in milliseconds.
    pub time: Vec<IoEntry>,
    /// Sectors moved.
    pub sectors: Vec<IoEntry>,
    /// Waiting for devices; v2 only.
    pub pressure: Option<Pressure>,
}

/// A counter of one block device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IoEntry {
    /// The device's numbers.
    pub major: u64,
    /// See `major`.
    pub minor: u64,
    /// `Read`, `Write`, and on v1 also `Sync`, `Async`, `Discard`, `Total`.
    pub operation: String,
    /// The count.
    pub value: u64,
}

/// Huge pages, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HugetlbStats {
    /// Now.
    pub usage: u64,
    /// At most so far; v1 only.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

impl Cgroup {
    /// What the group uses.
    ///
    /// # Errors
    ///
    /// A file cannot be read or understood. Controllers that are missing leave their numbers zero.
    pub fn stats(&self) -> Result<Stats, Error> {
        if self.is_v2() {
            return self.primary().and_then(v2);
        }
        let mut stats = Stats::default();
        if let Some(group) = self.directory("cpuacct") {
            cpuacct_v1(group, &mut stats.cpu)?;
        }
        if let Some(group) = self.directory("cpu") {
            let counts = fields(group, "cpu.stat")?;
            stats.cpu.periods = get(&counts, "nr_periods");
            stats.cpu.throttled_periods = get(&counts, "nr_throttled");
            stats.cpu.throttled_time = get(&counts, "throttled_time");
        }
        if let Some(group) = self.directory("memory") {
            memory_v1(group, &mut stats.memory)?;
        }
        if let Some(group) = self.directory("pids") {
            stats.pids = pids(group)?;
        }
        if let Some(group) = self.directory("blkio") {
            for (list, name) in [
                (&mut stats.io.service_bytes, "io_service_bytes_recursive"),
                (&mut stats.io.serviced, "io_serviced_recursive"),
                (&mut stats.io.queued, "io_queued_recursive"),
                (&mut stats.io.service_time, "io_service_time_recursive"),
                (&mut stats.io.wait_time, "io_wait_time_recursive"),
                (&mut stats.io.merged, "io_merged_recursive"),
                (&mut stats.io.time, "time_recursive"),
                (&mut stats.io.sectors, "sectors_recursive"),
            ] {
                *list = blkio_v1(group, name)?;
            }
        }
        if let Some(group) = self.directory("hugetlb") {
            stats.hugetlb = hugetlb(group, "usage_in_bytes", "max_usage_in_bytes", "failcnt")?;
        }
        if let Some(group) = self.directory("cpuset") {
            stats.cpuset = processors::read(group)?;
        }
        Ok(stats)
    }
}

fn v2(group: &GroupDirectory) -> Result<Stats, Error> {
    let cpu = fields(group, "cpu.stat")?;
    let nanoseconds = |name| get(&cpu, name).saturating_mul(1000);
    let cpu = CpuStats {
        usage: nanoseconds("usage_usec"),
        user: nanoseconds("user_usec"),
        system: nanoseconds("system_usec"),
        pressure: pressure::read(group, "cpu.pressure")?,
        periods: get(&cpu, "nr_periods"),
        throttled_periods: get(&cpu, "nr_throttled"),
        throttled_time: nanoseconds("throttled_usec"),
        ..CpuStats::default()
    };
    let counter = |name: &str| -> Result<MemoryUse, Error> {
        let value = |suffix| number(group, &format!("{name}.{suffix}"));
        Ok(MemoryUse {
            usage: value("current")?.unwrap_or(0),
            max_usage: value("peak")?.unwrap_or(0),
            failures: 0,
            limit: value("max")?.unwrap_or(0),
        })
    };
    let (mut memory, swap) = (counter("memory")?, counter("memory.swap")?);
    let events = fields(group, "memory.events")?;
    memory.failures = get(&events, "max");
    let with_swap = MemoryUse {
        usage: memory.usage.saturating_add(swap.usage),
        limit: memory.limit.saturating_add(swap.limit),
        ..MemoryUse::default()
    };
    let stat = fields(group, "memory.stat")?;
    let memory = MemoryStats {
        memory,
        with_swap,
        swap,
        cache: get(&stat, "file"),
        stat,
        oom_kills: get(&events, "oom_kill"),
        pressure: pressure::read(group, "memory.pressure")?,
        ..MemoryStats::default()
    };
    let mut pids = pids(group)?;
    if group.read_if_present("pids.current")?.is_none() {
        let procs = group.read_if_present("cgroup.procs")?.unwrap_or_default();
        pids.current = procs.lines().count() as u64;
    }
    let mut io = io_v2(&group.read_if_present("io.stat")?.unwrap_or_default());
    io.pressure = pressure::read(group, "io.pressure")?;
    let hugetlb = hugetlb(group, "current", "", "events")?;
    Ok(Stats {
        cpu,
        memory,
        pids,
        io,
        hugetlb,
        ..Stats::default()
    })
}

fn cpuacct_v1(group: &GroupDirectory, cpu: &mut CpuStats) -> Result<(), Error> {
    cpu.usage = number(group, "cpuacct.usage")?.unwrap_or(0);
    let per_cpu = group.read_if_present("cpuacct.usage_percpu")?.unwrap_or_default();
    for time in per_cpu.split_ascii_whitespace() {
        cpu.per_cpu
            .push(parse(time).ok_or_else(|| malformed(group, "cpuacct.usage_percpu", time))?);
    }
    // A title, then `CPU USER SYSTEM` a line.
    let all = group.read_if_present("cpuacct.usage_all")?.unwrap_or_default();
    for line in all.lines().skip(1) {
        let mut words = line.split(' ').skip(1).map(parse);
        let (Some(Some(user)), Some(Some(system))) = (words.next(), words.next()) else {
            return Err(malformed(group, "cpuacct.usage_all", line));
        };
        cpu.per_cpu_user.push(user);
        cpu.per_cpu_system.push(system);
    }
    let ticks = fields(group, "cpuacct.stat")?;
    cpu.user = get(&ticks, "user").saturating_mul(NANOSECONDS_PER_TICK);
    cpu.system = get(&ticks, "system").saturating_mul(NANOSECONDS_PER_TICK);
    Ok(())
}

fn memory_v1(group: &GroupDirectory, memory: &mut MemoryStats) -> Result<(), Error> {
    let counter = |name: &str| -> Result<MemoryUse, Error> {
        let value = |suffix| Ok(number(group, &format!("{name}.{suffix}"))?.unwrap_or(0));
        Ok(MemoryUse {
            usage: value("usage_in_bytes")?,
            max_usage: value("max_usage_in_bytes")?,
            failures: value("failcnt")?,
            limit: value("limit_in_bytes")?,
        })
    };
    memory.memory = counter("memory")?;
    memory.with_swap = counter("memory.memsw")?;
    memory.kernel = counter("memory.kmem")?;
    memory.kernel_tcp = counter("memory.kmem.tcp")?;
    memory.swap.usage = memory.with_swap.usage.saturating_sub(memory.memory.usage);
    memory.swap.failures = memory.with_swap.failures.saturating_sub(memory.memory.failures);
    memory.stat = fields(group, "memory.stat")?;
    memory.cache = get(&memory.stat, "cache");
    memory.oom_kills = get(&fields(group, "memory.oom_control")?, "oom_kill");
    Ok(())
}

fn pids(group: &GroupDirectory) -> Result<PidsStats, Error> {
    let limit = number(group, "pids.max")?.filter(|limit| *limit != u64::MAX);
    Ok(PidsStats {
        current: number(group, "pids.current")?.unwrap_or(0),
        limit: limit.unwrap_or(0),
    })
}

/// The BFQ scheduler's counters where it runs, else those of the throttling layer.
fn blkio_v1(group: &GroupDirectory, name: &str) -> Result<Vec<IoEntry>, Error> {
    for layer in ["bfq", "throttle"] {
        let file = format!("blkio.{layer}.{name}");
        let Some(text) = group.read_if_present(&file)? else {
            continue;
        };
        let mut entries = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with("Total")) {
            entries.push(blkio_line(line).ok_or_else(|| malformed(group, &file, line))?);
        }
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// `8:0 Read 4096`, or without an operation where the kernel does not tell them apart.
fn blkio_line(line: &str) -> Option<IoEntry> {
    let mut words = line.split(' ');
    let (major, minor) = words.next()?.split_once(':')?;
    let (second, third) = (words.next()?, words.next());
    let (operation, value) = third.map_or(("", second), |value| (second, value));
    Some(IoEntry {
        major: parse(major)?,
        minor: parse(minor)?,
        operation: operation.to_owned(),
        value: parse(value)?,
    })
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`; unknown counters are left out.
fn io_v2(text: &str) -> IoStats {
    let mut stats = IoStats::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Some(major), Some(minor))) = device.map(|(major, minor)| (parse(major), parse(minor)))
        else {
            continue;
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let Some(value) = parse(value) else { continue };
            let (list, operation) = match name {
                "rbytes" => (&mut stats.service_bytes, "Read"),
                "wbytes" => (&mut stats.service_bytes, "Write"),
                "rios" => (&mut stats.serviced, "Read"),
                "wios" => (&mut stats.serviced, "Write"),
                _ => continue,
            };
            list.push(IoEntry {
                major,
                minor,
                operation: operation.to_owned(),
                value,
            });
        }
    }
    stats
}

fn hugetlb(
    group: &GroupDirectory,
    usage: &str,
    max_usage: &str,
    failures: &str,
) -> Result<BTreeMap<String, HugetlbStats>, Error> {
    let mut pages = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(&group.path) else {
        return Ok(pages);
    };
    let marker = format!(".{usage}");
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|name| name.strip_suffix(marker.as_str()));
        let Some(size) = size.filter(|size| !size.contains('.')) else {
            continue;
        };
        let value = |suffix| Ok::<_, Error>(number(group, &format!("hugetlb.{size}.{suffix}"))?.unwrap_or(0));
        let mut stats = HugetlbStats {
            usage: value(usage)?,
            ..HugetlbStats::default()
        };
        if failures == "events" {
            stats.failures = get(&fields(group, &format!("hugetlb.{size}.events"))?, "max");
        } else {
            stats.max_usage = value(max_usage)?;
            stats.failures = value(failures)?;
        }
        pages.insert(size.to_owned(), stats);
    }
    Ok(pages)
}

/// A file of lines `name number`; a file that is not there has none.
fn fields(group: &GroupDirectory, file: &str) -> Result<BTreeMap<String, u64>, Error> {
    let Some(text) = group.read_if_present(file)? else {
        return Ok(BTreeMap::new());
    };
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').ok_or_else(|| malformed(group, file, line))?;
            let value = parse(value).ok_or_else(|| malformed(group, file, line))?;
            Ok((name.to_owned(), value))
        })
        .collect()
}

fn get(fields: &BTreeMap<String, u64>, name: &str) -> u64 {
    fields.get(name).copied().unwrap_or(0)
}

/// A file with one number; nothing for a file that is not there.
fn number(group: &GroupDirectory, file: &str) -> Result<Option<u64>, Error> {
    let Some(text) = group.read_if_present(file)? else {
        return Ok(None);
    };
    parse(text.trim())
        .map(Some)
        .ok_or_else(|| malformed(group, file, text.trim()))
}

/// A number; `max` is no limit. Counters that the kernel lets run below zero for a moment are zero.
fn parse(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        negative if negative.starts_with('-') => negative.parse::<i64>().ok().map(|_| 0),
        text => text.parse().ok(),
    }
}

fn malformed(group: &GroupDirectory, file: &str, found: &str) -> Error {
    Error::Malformed {
        file: group.path.join(file),
        problem: format!("cannot read {found:?}"),
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
