//! The daemon itself: the `process_…` families of Prometheus' client libraries, and what it was built as.

use std::{fs, io};

use super::text::{Kind, Page};

/// Adds the families to `page`. Blocks on `/proc` only; what cannot be read there is left out.
pub fn write(page: &mut Page, version: &str, revision: &str) {
    let name = "containerd_build_info_total";
    page.family(name, Kind::Counter, "What is running");
    page.sample(name, &[("version", version), ("revision", revision)], 1.0);
    match read() {
        Ok(samples) => {
            for (name, kind, help, value) in samples {
                page.family(name, kind, help);
                page.sample(name, &[], value);
            }
        }
        Err(error) => tracing::warn!(%error, "metrics of the process"),
    }
}

type Sample = (&'static str, Kind, &'static str, f64);

fn read() -> io::Result<Vec<Sample>> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page_size = rustix::param::page_size() as f64;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let boot = fs::read_to_string("/proc/stat")?;
    let used = usage(&stat, &boot, ticks, page_size)
        .ok_or_else(|| io::Error::other("/proc/self/stat is not as expected"))?;
    let open = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Ok(vec![
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "Processor time used",
            used.cpu_seconds,
        ),
        (
            "process_open_fds",
            Kind::Gauge,
            "Open file descriptors",
            open as f64,
        ),
        (
            "process_max_fds",
            Kind::Gauge,
            "The limit of open file descriptors",
            limit.current.map_or(f64::INFINITY, |limit| limit as f64),
        ),
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Resident memory",
            used.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            Kind::Gauge,
            "Virtual memory",
            used.virtual_bytes,
        ),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process started, in seconds since 1970",
            used.started,
        ),
    ])
}

struct Usage {
    cpu_seconds: f64,
    started: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

/// Reads `proc_pid_stat(5)` and the time of the boot in `proc_stat(5)`.
fn usage(stat: &str, boot: &str, ticks: f64, page_size: f64) -> Option<Usage> {
    // The name may have spaces and parentheses in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(Usage {
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        started: boot.trim().parse::<f64>().ok()? + field(22)? / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 1000 4096 3 0";
        let usage = usage(stat, "cpu 1\nbtime 100\n", 100.0, 4096.0).unwrap();
        assert_eq!((usage.cpu_seconds, usage.started), (3.0, 110.0));
        assert_eq!((usage.virtual_bytes, usage.resident_bytes), (4096.0, 12288.0));
    }

    #[test]
    fn this_process_can_be_read() {
        let samples = read().unwrap();
        assert!(samples.iter().all(|(_, _, _, value)| *value >= 0.0));
        assert_eq!(samples.len(), 6);
    }
}
