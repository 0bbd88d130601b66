//! Proportional set sizes.

use std::fs;

use super::Result;

/// Of one process, in KiB.
pub(crate) fn pss(pid: i32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .ok_or("no Pss in smaps_rollup")?;
    Ok(line
        .split_whitespace()
        .next()
        .ok_or("no size in smaps_rollup")?
        .parse()?)
}

/// The mean of the shims of the containers `pids`, each the parent of the container's process; in KiB.
pub(crate) fn shims(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let parent = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))
            .ok_or("no parent")?;
        sum += pss(parent.trim().parse()?)?;
    }
    Ok(sum / pids.len().max(1) as u64)
}
