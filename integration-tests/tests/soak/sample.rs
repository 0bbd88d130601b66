//! All that could grow, counted at one moment.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use integration_tests::{Scratch, leftovers};

use crate::memory;

/// What a daemon and its long-lived shims hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Memory of the daemon, in KiB of proportional set size.
    daemon: u64,
    /// Of all long-lived shims together.
    shims: u64,
    /// Descriptors of the daemon.
    daemon_fds: usize,
    /// Of all long-lived shims together.
    shim_fds: usize,
    mounts: usize,
    cgroups: usize,
    processes: usize,
    zombies: usize,
    files: u64,
    /// Disk space, in KiB.
    disk: u64,
}

impl Sample {
    /// What the columns are.
    pub(crate) const HEAD: &str = "               wharfd PSS  shims PSS  wharfd fds  shim fds  mounts  cgroups  processes  zombies   files   disk";

    /// Counts when what ended has been tidied away: shims leave after they have answered.
    pub(crate) async fn settled(scratch: &Scratch, daemon: i32, shims: &[i32]) -> Sample {
        let mut last = Sample::now(scratch, daemon, shims);
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = Sample::now(scratch, daemon, shims);
            let still = |sample: &Sample| {
                let Sample {
                    mounts,
                    cgroups,
                    processes,
                    zombies,
                    files,
                    ..
                } = *sample;
                (mounts, cgroups, processes, zombies, files, sample.daemon_fds)
            };
            if still(&now) == still(&last) && now.zombies == 0 {
                return now;
            }
            last = now;
        }
        last
    }

    fn now(scratch: &Scratch, daemon: i32, shims: &[i32]) -> Sample {
        let (mut processes, mut zombies) = (0, 0);
        for (pid, state) in descendants(daemon) {
            processes += 1;
            if state == 'Z' {
                zombies += 1;
                eprintln!("process {pid} is a zombie");
            }
        }
        let groups = leftovers::cgroups_named(scratch.unique());
        let (mut files, mut disk) = (0, 0);
        count(&scratch.join("wharfd"), &mut files, &mut disk);
        Sample {
            daemon: memory::pss(daemon).expect("the daemon runs"),
            shims: shims
                .iter()
                .map(|shim| memory::pss(*shim).expect("the shim runs"))
                .sum(),
            daemon_fds: descriptors(daemon),
            shim_fds: shims.iter().map(|shim| descriptors(*shim)).sum(),
            mounts: leftovers::mounts_below(scratch.path()).len(),
            cgroups: groups.iter().map(|group| below(group)).sum(),
            processes,
            zombies,
            files,
            disk: disk / 2,
        }
    }

    /// Fails when this holds more than `first` did. Counts are equal; memory and the store's file may breathe.
    pub(crate) fn assert_no_more_than(&self, first: &Sample) {
        let what = format!("first: {first:?}\nlast: {self:?}");
        assert_eq!(self.zombies, 0, "{what}");
        assert_eq!(
            (self.mounts, self.cgroups, self.processes, self.shim_fds),
            (first.mounts, first.cgroups, first.processes, first.shim_fds),
            "{what}"
        );
        assert!(self.daemon_fds <= first.daemon_fds + 4, "{what}");
        assert!(self.files <= first.files + 4, "{what}");
        assert!(self.daemon <= first.daemon + first.daemon / 5 + 2048, "{what}");
        assert!(self.shims <= first.shims + first.shims / 10 + 256, "{what}");
        assert!(self.disk <= first.disk + 8 * 1024, "{what}");
    }
}

impl Sample {
    /// Fails when the memory has grown since `middle` by more than what it breathes.
    pub(crate) fn assert_memory_is_flat_since(&self, middle: &Sample) {
        let what = format!("middle: {middle:?}\nlast: {self:?}");
        assert!(self.daemon <= middle.daemon + middle.daemon / 20 + 1024, "{what}");
        assert!(self.shims <= middle.shims + middle.shims / 20 + 128, "{what}");
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>10} KiB {:>6} KiB {:>11} {:>9} {:>7} {:>8} {:>10} {:>8} {:>7} {:>6} KiB",
            self.daemon,
            self.shims,
            self.daemon_fds,
            self.shim_fds,
            self.mounts,
            self.cgroups,
            self.processes,
            self.zombies,
            self.files,
            self.disk
        )
    }
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> i32 {
    stat(pid as i32).expect("the process runs").1
}

/// Whether there is such a process, ended or not.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// State and parent.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// The processes below `ancestor`, and their states.
fn descendants(ancestor: i32) -> Vec<(i32, char)> {
    let all: Vec<(i32, char, i32)> = fs::read_dir("/proc")
        .expect("list the processes")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat(pid).map(|(state, parent)| (pid, state, parent)))
        .collect();
    let mut found: Vec<(i32, char)> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for (pid, state, _) in all.iter().filter(|(_, _, of)| *of == parent) {
            found.push((*pid, *state));
            parents.push(*pid);
        }
    }
    found
}

fn descriptors(pid: i32) -> usize {
    let directory = fs::read_dir(format!("/proc/{pid}/fd"));
    directory.expect("the process runs").count()
}

/// The control groups at and below `group`.
fn below(group: &Path) -> usize {
    let Ok(entries) = fs::read_dir(group) else {
        return 0;
    };
    let children = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + children.map(|child| below(&child.path())).sum::<usize>()
}

/// Adds up files and blocks of 512 bytes at and below `directory`, but not what is mounted there.
fn count(directory: &Path, files: &mut u64, blocks: &mut u64) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let device = fs::metadata(directory).map(|metadata| metadata.dev());
    for entry in entries.flatten() {
        // What has gone meanwhile is not there.
        let Ok(metadata) = entry.metadata() else { continue };
        *files += 1;
        *blocks += metadata.blocks();
        if metadata.is_dir() && device.as_ref().is_ok_and(|device| *device == metadata.dev()) {
            count(&entry.path(), files, blocks);
        }
    }
}
