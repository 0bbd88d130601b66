//! The processes behind a task, looked at in `/proc` and killed behind everybody's back.

use std::fs;
use std::path::Path;

pub(crate) fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the task's process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .expect("PPid");
    line.trim().parse().expect("a pid")
}

pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill -9");
}

/// Whether a process has not ended yet.
pub(crate) fn running(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) else {
        return false;
    };
    // A process that nobody reaps has ended all the same.
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.starts_with('Z')
}
