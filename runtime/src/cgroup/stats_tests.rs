//! Counters read from directories that look like groups.

use std::fs;
use std::path::Path;

use super::*;

/// A directory with files stands in for a group: reading needs no more.
fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn stats(keys: &[&str], path: &Path) -> Result<Stats, Error> {
    let paths = keys
        .iter()
        .map(|key| ((*key).to_owned(), path.to_owned()))
        .collect();
    Cgroup::from_paths(paths).unwrap().stats()
}

#[test]
fn v2_is_answered_in_the_units_of_v1() {
    let directory = group(&[
        (
            "cpu.stat",
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nnr_throttled 1\nthrottled_usec 7\n",
        ),
        ("memory.current", "1000\n"),
        ("memory.max", "max\n"),
        ("memory.swap.current", "10\n"),
        ("memory.swap.max", "50\n"),
        ("memory.stat", "anon 1\nfile 2\n"),
        ("memory.events", "low 0\nmax 4\noom 2\noom_kill 1\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        (
            "io.stat",
            "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\nloop\n",
        ),
        ("hugetlb.2MB.current", "0\n"),
        ("hugetlb.2MB.events", "max 6\n"),
    ]);
    let stats = stats(&[""], directory.path()).unwrap();
    assert_eq!(
        (stats.cpu.usage, stats.cpu.user, stats.cpu.throttled_time),
        (5000, 3000, 7000)
    );
    assert_eq!(
        (stats.memory.memory.usage, stats.memory.memory.limit),
        (1000, u64::MAX)
    );
    assert_eq!(
        (stats.memory.with_swap.usage, stats.memory.with_swap.limit),
        (1010, u64::MAX)
    );
    assert_eq!((stats.memory.oom_kills, stats.memory.memory.failures), (1, 4));
    assert_eq!(stats.pids, PidsStats { current: 3, limit: 0 });
    assert_eq!(stats.io.service_bytes[1].value, 8192);
    assert_eq!(stats.io.serviced[0].operation, "Read");
    assert_eq!(stats.hugetlb["2MB"].failures, 6);
}

#[test]
fn v1_counters_come_from_their_controllers() {
    let directory = group(&[
        ("cpuacct.usage", "77\n"),
        ("cpuacct.usage_percpu", "70 7 \n"),
        ("cpuacct.stat", "user 2\nsystem 1\n"),
        ("cpu.stat", "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n"),
        ("memory.usage_in_bytes", "100\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.memsw.usage_in_bytes", "130\n"),
        ("memory.stat", "cache 5\n"),
        (
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        ),
        ("pids.current", "1\n"),
        ("pids.max", "20\n"),
        (
            "blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
        ),
    ]);
    let stats = stats(&["cpu", "cpuacct", "memory", "pids", "blkio"], directory.path()).unwrap();
    assert_eq!((stats.cpu.usage, stats.cpu.user), (77, 20_000_000));
    assert_eq!(stats.cpu.per_cpu, [70, 7]);
    assert_eq!(stats.memory.swap.usage, 30);
    assert_eq!(stats.memory.oom_kills, 2);
    assert_eq!(
        stats.pids,
        PidsStats {
            current: 1,
            limit: 20
        }
    );
    assert_eq!(stats.io.service_bytes.len(), 2);
}

#[test]
fn what_cannot_be_read_is_named_and_what_is_gone_is_zero() {
    let directory = group(&[("pids.current", "many\n")]);
    let error = stats(&["pids"], directory.path()).unwrap_err().to_string();
    assert!(error.ends_with("/pids.current: cannot read \"many\""), "{error}");
    assert_eq!(
        stats(&["pids", "memory"], Path::new("/nonexistent/group")).unwrap(),
        Stats::default()
    );
}
