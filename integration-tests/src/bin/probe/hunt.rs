//! `probe hunt SECRET`: looks for a way to a file of the host through whatever other processes show of themselves, until one is
//! found or the probe is killed.
//!
//! The ways are those of `/proc/PID`: the root, the working directory, and each descriptor, from which `..` may lead on.

use std::fs;
use std::io::{self, Write as _};

use serde_json::{Value, json};

/// Enough to come from anywhere to the root.
const UP: &str = "/../../../../../../../../../../..";

/// Prints `ready`, then hunts. The first way that is found is the answer.
pub(crate) fn report(secret: &str) -> io::Result<Value> {
    println!("ready");
    io::stdout().flush()?;
    let own = std::process::id();
    loop {
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if pid == own || pid == 1 {
                continue;
            }
            if let Some(way) = way_to(pid, secret) {
                return Ok(json!({"reached": way}));
            }
        }
    }
}

fn way_to(pid: u32, secret: &str) -> Option<String> {
    let reaches = |way: &String| fs::symlink_metadata(way).is_ok();
    let direct = [
        format!("/proc/{pid}/root{secret}"),
        format!("/proc/{pid}/cwd{UP}{secret}"),
    ];
    if let Some(way) = direct.into_iter().find(reaches) {
        return Some(way);
    }
    // Not by reading the directory: it would be one more call before the process is gone.
    (3..40)
        .map(|number| format!("/proc/{pid}/fd/{number}{UP}{secret}"))
        .find(reaches)
}
