//! What the host can do, looked up once when the daemon starts.

use std::path::Path;

/// What the spec depends on beside image and request.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether the unified cgroup hierarchy manages the resources.
    pub cgroup_v2: bool,
    /// Whether swap can be limited.
    pub swap_limit: bool,
    /// The capabilities the daemon can give: its own bounding set.
    pub capabilities: u64,
    /// Per-CPU sensor directories that must be hidden.
    pub thermal_paths: Vec<String>,
}

impl Facts {
    /// Looks at `/proc` and `/sys`. Blocks shortly.
    pub fn of_host() -> Self {
        let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let swap_limit = if cgroup_v2 {
            // The root has no swap files; any child tells.
            std::fs::read_dir("/sys/fs/cgroup").is_ok_and(|entries| {
                entries
                    .flatten()
                    .any(|entry| entry.path().join("memory.swap.max").exists())
            })
        } else {
            Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
        };
        Self {
            cgroup_v2,
            swap_limit,
            capabilities: bounding_set(),
            thermal_paths: thermal_paths(),
        }
    }
}

// Without the line, which no kernel leaves out, nothing can be given.
fn bounding_set() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}

fn thermal_paths() -> Vec<String> {
    let cpus = std::fs::read_dir("/sys/devices/system/cpu");
    let mut paths: Vec<String> = cpus
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    paths.sort();
    paths
}
