//! Limits: from `HostConfig` to the `resources` of the OCI spec.

use super::facts::Facts;
use crate::api::types::HostConfig;
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

const MIN_MEMORY: i64 = 6 << 20;
const DEFAULT_PERIOD: i64 = 100_000;

/// Checks the limits of a request and writes them as OCI resources, without devices.
///
/// # Errors
///
/// Limits that contradict each other, are out of range, or cannot be enforced on this host.
pub fn resources(host: &HostConfig, facts: &Facts) -> Result<Map<String, Value>> {
    let mut resources = Map::new();
    put(&mut resources, "memory", memory(host, facts)?);
    put(&mut resources, "cpu", cpu(host)?);
    if host.pids_limit > 0 {
        resources.insert("pids".to_owned(), json!({ "limit": host.pids_limit }));
    }
    Ok(resources)
}

fn put(resources: &mut Map<String, Value>, name: &str, members: Map<String, Value>) {
    if !members.is_empty() {
        resources.insert(name.to_owned(), members.into());
    }
}

fn memory(host: &HostConfig, facts: &Facts) -> Result<Map<String, Value>> {
    let mut memory = Map::new();
    if host.memory < 0 || host.memory > 0 && host.memory < MIN_MEMORY {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory > 0 {
        memory.insert("limit".to_owned(), host.memory.into());
    }
    if host.memory_swap != 0 {
        if host.memory == 0 && host.memory_swap > 0 {
            return Err(Error::invalid(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ));
        }
        if host.memory_swap > 0 && host.memory_swap < host.memory {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        if host.memory_swap < -1 {
            return Err(Error::invalid(format!(
                "invalid MemorySwap: {}",
                host.memory_swap
            )));
        }
        if !facts.swap_limit && host.memory_swap > 0 {
            return Err(Error::not_supported(
                "MemorySwap: a swap limit on this host's cgroups",
            ));
        }
        if facts.swap_limit {
            memory.insert("swap".to_owned(), host.memory_swap.into());
        }
    } else if host.memory > 0 && facts.swap_limit {
        memory.insert("swap".to_owned(), host.memory.saturating_mul(2).into());
    }
    if host.memory_reservation != 0 {
        if host.memory_reservation < MIN_MEMORY {
            return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
        }
        if host.memory > 0 && host.memory_reservation > host.memory {
            return Err(Error::invalid(
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ));
        }
        memory.insert("reservation".to_owned(), host.memory_reservation.into());
    }
    Ok(memory)
}

fn cpu(host: &HostConfig) -> Result<Map<String, Value>> {
    let mut cpu = Map::new();
    if host.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    if host.cpu_shares > 0 {
        cpu.insert("shares".to_owned(), host.cpu_shares.into());
    }
    if host.nano_cpus != 0 {
        if host.cpu_quota != 0 || host.cpu_period != 0 {
            return Err(Error::invalid(
                "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set",
            ));
        }
        let online = i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1);
        if host.nano_cpus < 0 || host.nano_cpus > online.saturating_mul(1_000_000_000) {
            return Err(Error::invalid(format!(
                "range of CPUs is from 0.01 to {online}.00, as there are only {online} CPUs available"
            )));
        }
        let quota = host.nano_cpus / (1_000_000_000 / DEFAULT_PERIOD);
        if quota < 1_000 {
            return Err(Error::invalid(
                "CPU cfs quota can not be less than 1ms (i.e. 1000)",
            ));
        }
        cpu.insert("quota".to_owned(), quota.into());
        cpu.insert("period".to_owned(), DEFAULT_PERIOD.into());
    }
    if host.cpu_period != 0 {
        if !(1_000..=1_000_000).contains(&host.cpu_period) {
            return Err(Error::invalid(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ));
        }
        cpu.insert("period".to_owned(), host.cpu_period.into());
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(Error::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    if host.cpu_quota != 0 {
        cpu.insert("quota".to_owned(), host.cpu_quota.into());
    }
    for (name, value) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if !value.is_empty() {
            if !value
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b',' || byte == b'-')
            {
                return Err(Error::invalid(format!(
                    "invalid value for cpuset {name}: {value}"
                )));
            }
            cpu.insert(name.to_owned(), value.clone().into());
        }
    }
    Ok(cpu)
}

/// The `rlimits` of the OCI process.
///
/// # Errors
///
/// A name is not a resource, or the soft limit is over the hard one.
pub fn rlimits(host: &HostConfig) -> Result<Vec<Value>> {
    const KNOWN: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let number = |limit: i64| {
        if limit == -1 {
            u64::MAX
        } else {
            limit.unsigned_abs()
        }
    };
    let mut rlimits = Vec::new();
    for ulimit in &host.ulimits {
        let name = ulimit.name.to_ascii_lowercase();
        if !KNOWN.contains(&name.as_str()) {
            return Err(Error::invalid(format!("invalid ulimit type: {}", ulimit.name)));
        }
        if ulimit.soft < -1 || ulimit.hard < -1 {
            return Err(Error::invalid(format!(
                "ulimit {name}: limits are positive, or -1 for none"
            )));
        }
        let (soft, hard) = (number(ulimit.soft), number(ulimit.hard));
        if soft > hard {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        rlimits.push(json!({ "type": kind, "soft": soft, "hard": hard }));
    }
    Ok(rlimits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(swap_limit: bool) -> Facts {
        Facts {
            cgroup_v2: true,
            swap_limit,
            capabilities: u64::MAX,
            thermal_paths: Vec::new(),
        }
    }

    #[test]
    fn limits_become_oci_resources() {
        let host = HostConfig {
            memory: 64 << 20,
            nano_cpus: 500_000_000,
            pids_limit: 10,
            ..Default::default()
        };
        let made = Value::from(resources(&host, &facts(true)).unwrap());
        let expected = json!({
            "memory": { "limit": 64 << 20, "swap": 128 << 20 },
            "cpu": { "quota": 50_000, "period": 100_000 },
            "pids": { "limit": 10 },
        });
        assert_eq!(made, expected);
        assert_eq!(
            resources(&HostConfig::default(), &facts(true)).unwrap(),
            Map::new()
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for host in [
            HostConfig {
                memory: 1,
                ..Default::default()
            },
            HostConfig {
                memory_swap: 64 << 20,
                ..Default::default()
            },
            HostConfig {
                memory: 64 << 20,
                memory_swap: 32 << 20,
                ..Default::default()
            },
            HostConfig {
                nano_cpus: 1,
                ..Default::default()
            },
            HostConfig {
                nano_cpus: 1_000_000_000,
                cpu_quota: 5_000,
                ..Default::default()
            },
            HostConfig {
                cpu_period: 1,
                ..Default::default()
            },
            HostConfig {
                cpuset_cpus: "0;1".to_owned(),
                ..Default::default()
            },
        ] {
            assert!(resources(&host, &facts(true)).is_err(), "{host:?}");
        }
        let swap = HostConfig {
            memory: 64 << 20,
            memory_swap: 65 << 20,
            ..Default::default()
        };
        assert!(resources(&swap, &facts(false)).is_err());
    }
}
