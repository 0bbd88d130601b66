//! What a test must not leave behind: mounts, cgroups and processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The mount points at and below `directory`, in the order in which they were made.
///
/// # Panics
///
/// `/proc/self/mountinfo` cannot be read.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|point| point.starts_with(directory))
        .collect()
}

/// The cgroup directories, in every hierarchy, whose path contains `name`.
pub fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), name, 6, &mut found);
    found
}

/// Ends the processes of the cgroups whose path contains `name`, and removes those cgroups.
///
/// For tests that failed half-way: what they left would stay on the machine for good.
pub fn remove_cgroups_named(name: &str) {
    let mut found = cgroups_named(name);
    let mut inner: Vec<PathBuf> = found.iter().flat_map(|top| cgroups_below(top)).collect();
    found.append(&mut inner);
    // The deepest first: a cgroup with children cannot be removed.
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for group in &found {
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in processes
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter_map(rustix::process::Pid::from_raw)
        {
            // One that has ended meanwhile is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    for group in found.iter().filter(|group| is_plain(group)) {
        if let Err(error) = fs::remove_dir_all(group)
            && group.exists()
        {
            eprintln!("cannot remove {}: {error}", group.display());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    for group in &found {
        while fs::remove_dir(group).is_err() && group.exists() {
            if Instant::now() > deadline {
                eprintln!("cannot remove {}", group.display());
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether a directory where cgroups are is none: Podman makes plain directories and files on the tmpfs at
/// `/sys/fs/cgroup` for the hierarchies that the machine lacks.
fn is_plain(directory: &Path) -> bool {
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::statfs(directory).is_ok_and(|found| found.f_type == TMPFS)
}

/// The plain directories beside the cgroup hierarchies; when dropped, those are removed that came in between.
#[derive(Debug)]
pub struct PlainHierarchies {
    before: Vec<PathBuf>,
}

impl PlainHierarchies {
    /// Notes what is there already, and stays.
    pub fn watch() -> PlainHierarchies {
        PlainHierarchies {
            before: plain_hierarchies(),
        }
    }
}

impl Drop for PlainHierarchies {
    fn drop(&mut self) {
        for directory in plain_hierarchies() {
            if !self.before.contains(&directory)
                && let Err(error) = fs::remove_dir_all(&directory)
            {
                eprintln!("cannot remove {}: {error}", directory.display());
            }
        }
    }
}

fn plain_hierarchies() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/sys/fs/cgroup") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| is_plain(path))
        .collect()
}

fn cgroups_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let children = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    children
        .flat_map(|child| [vec![child.path()], cgroups_below(&child.path())].concat())
        .collect()
}

/// Ends the shims that serve something below `home`.
///
/// For tests that failed half-way: a shim waits for a daemon for ever.
pub fn end_shims_of(home: &Path) {
    for (pid, line) in processes_with(&home.display().to_string()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid)
            && line.contains("containerd-shim")
        {
            // One that has ended meanwhile is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The pids of live processes with `text` in their command line, this process excepted.
pub fn processes_with(text: &str) -> Vec<(i32, String)> {
    let own = std::process::id() as i32;
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(text).then_some((pid, line))
        })
        .collect()
}

fn collect(directory: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(name) {
            found.push(entry.path());
        } else if depth > 0 {
            collect(&entry.path(), name, depth - 1, found);
        }
    }
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}
