//! OCI resources as properties of a unit ([systemd.resource-control(5)]).
//!
//! systemd writes them into the group's files itself; whatever it has no property for, or rounds, is written again by this
//! crate. What is told here is told so that the unit says what is in force, and so that systemd does not undo it when it
//! writes the files once more.
//!
//! [systemd.resource-control(5)]: https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html

use super::value::Value;
use crate::cgroup::devices::{Device, DeviceRules};
use crate::cgroup::{Error, v2};
use crate::spec::oci::{LinuxCpu, LinuxPids, LinuxResources};

/// A property of a unit: its name and value.
pub(super) type Property = (String, Value);

/// The kernel's period of CPU quotas, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// Which release of systemd brought what.
const CPU_QUOTA_PERIOD: u32 = 242;
const ALLOWED_CPUS: u32 = 244;
const DEVICES_BY_NUMBER: u32 = 240;
const CPU_IDLE: u32 = 252;
const OOM_POLICY: u32 = 253;

/// What is told, and what had to be left out (a sentence each).
#[derive(Debug, Default)]
pub(super) struct Properties {
    pub list: Vec<Property>,
    pub warnings: Vec<String>,
    version: u32,
}

impl Properties {
    pub fn new(version: u32) -> Self {
        Self {
            version,
            ..Self::default()
        }
    }

    pub fn add(&mut self, name: impl Into<String>, value: Value) {
        self.list.push((name.into(), value));
    }

    fn add_number(&mut self, name: &str, value: u64) {
        self.add(name, Value::Uint64(value));
    }

    /// The limits, for the controllers of v1. A quota is rounded in `resources` as systemd rounds it.
    pub fn limits_v1(&mut self, resources: &mut LinuxResources) -> Result<(), Error> {
        if let Some(limit) = resources
            .memory
            .as_ref()
            .and_then(|memory| memory.limit)
            .filter(|limit| *limit != 0)
        {
            self.add_number("MemoryLimit", limit.cast_unsigned());
        }
        if let Some(cpu) = &mut resources.cpu {
            if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
                self.add_number("CPUShares", shares);
            }
            self.cpu_quota_of(cpu);
        }
        let weight = resources.block_io.as_ref().and_then(|io| io.weight);
        if let Some(weight) = weight.filter(|weight| *weight != 0) {
            self.add_number("BlockIOWeight", weight.into());
        }
        self.pids(resources.pids);
        self.cpuset(resources)
    }

    /// The limits, for v2. A quota is rounded in `resources` as systemd rounds it.
    pub fn limits_v2(&mut self, resources: &mut LinuxResources) -> Result<(), Error> {
        if let Some(memory) = &resources.memory {
            let limit = memory.limit.unwrap_or(0);
            if limit != 0 {
                self.add_number("MemoryMax", limit.cast_unsigned());
            }
            if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
                self.add_number("MemoryLow", reservation.cast_unsigned());
            }
            if let Some(swap) = v2::swap_limit(memory.swap.unwrap_or(0), limit)? {
                self.add_number("MemorySwapMax", swap.parse().unwrap_or(u64::MAX));
            }
        }
        let made_idle = self.makes_idle(resources);
        if let Some(cpu) = &mut resources.cpu {
            let weight = v2::weight_from_shares(cpu.shares.unwrap_or(0));
            let idle = cpu.idle == Some(1) && self.version >= CPU_IDLE;
            if idle {
                self.add_number("CPUWeight", 0);
                if weight != 0 {
                    self.warn("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight");
                }
            } else if weight != 0 && !made_idle {
                self.add_number("CPUWeight", weight);
            }
            // The kernel takes no weight from a group that gets only what is left.
            if idle || made_idle {
                cpu.shares = None;
            }
            self.cpu_quota_of(cpu);
        }
        self.pids(resources.pids);
        self.cpuset(resources)?;
        self.unified(resources)?;
        if made_idle {
            resources.unified.remove("cpu.weight");
        }
        Ok(())
    }

    /// Whether the unified values ask for only the CPU time that is left.
    fn makes_idle(&self, resources: &LinuxResources) -> bool {
        let asked = resources.unified.get("cpu.idle").map(|value| value.trim());
        asked == Some("1") && self.version >= CPU_IDLE
    }

    fn warn(&mut self, warning: &str) {
        self.warnings.push(warning.to_owned());
    }

    fn cpu_quota_of(&mut self, cpu: &mut LinuxCpu) {
        if let Some(rounded) = self.cpu_quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0)) {
            cpu.quota = Some(rounded);
        }
    }

    /// Answers the quota that is in force, where that is another one: systemd counts in hundredths of a processor, and
    /// rounds up.
    fn cpu_quota(&mut self, quota: i64, period: u64) -> Option<i64> {
        const HUNDREDTH: u64 = 10_000;
        if period != 0 && self.version >= CPU_QUOTA_PERIOD {
            self.add_number("CPUQuotaPeriodUSec", period);
        }
        if quota == 0 && period == 0 {
            return None;
        }
        let Ok(quota @ 1..) = u64::try_from(quota) else {
            self.add_number("CPUQuotaPerSecUSec", u64::MAX);
            return None;
        };
        let period = if period == 0 { DEFAULT_PERIOD } else { period };
        let second = u128::from(quota) * 1_000_000 / u128::from(period);
        let second = u64::try_from(second).unwrap_or(u64::MAX / HUNDREDTH * HUNDREDTH);
        let rounded = second.div_ceil(HUNDREDTH) * HUNDREDTH;
        self.add_number("CPUQuotaPerSecUSec", rounded);
        let in_force = i64::try_from(u128::from(rounded) * u128::from(period) / 1_000_000).ok();
        in_force.filter(|_| rounded != second)
    }

    fn pids(&mut self, pids: Option<LinuxPids>) {
        match pids.and_then(|pids| pids.limit) {
            None => {}
            Some(0) => self.add_number("TasksMax", 1),
            Some(limit) => self.add_number("TasksMax", u64::try_from(limit).unwrap_or(u64::MAX)),
        }
    }

    fn cpuset(&mut self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(cpu) = resources.cpu.as_ref().filter(|_| self.version >= ALLOWED_CPUS) else {
            return Ok(());
        };
        for (name, field, list) in [
            ("AllowedCPUs", "cpus", &cpu.cpus),
            ("AllowedMemoryNodes", "mems", &cpu.mems),
        ] {
            if !list.is_empty() {
                let bits = bits(list).map_err(|problem| {
                    Error::field(
                        format!("linux.resources.cpu.{field}"),
                        format!("{list:?}: {problem}"),
                    )
                })?;
                self.add(name, Value::bytes(&bits));
            }
        }
        Ok(())
    }

    /// The files of v2 that a property stands for; the others are written after the unit is there.
    fn unified(&mut self, resources: &LinuxResources) -> Result<(), Error> {
        let unified = &resources.unified;
        let is_idle = self.makes_idle(resources);
        for (file, value) in unified {
            let value = value.trim();
            let bad = |problem: String| {
                Error::field(
                    "linux.resources.unified",
                    format!("unified resource {file:?} value {value:?}: {problem}"),
                )
            };
            let number = || match value {
                "max" => Ok(u64::MAX),
                value => value.parse::<u64>().map_err(|error| bad(error.to_string())),
            };
            match file.as_str() {
                "cpu.idle" if is_idle => self.add_number("CPUWeight", 0),
                "cpu.weight" if is_idle => {
                    self.warn("unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight");
                }
                "cpu.weight" => self.add_number("CPUWeight", number()?),
                "cpu.max" => {
                    let mut words = value.split_ascii_whitespace();
                    let (Some(quota), period, None) = (words.next(), words.next(), words.next()) else {
                        return Err(bad("not of the form QUOTA [PERIOD]".to_owned()));
                    };
                    let quota = match quota {
                        "max" => 0,
                        quota => quota
                            .parse()
                            .map_err(|error: std::num::ParseIntError| bad(error.to_string()))?,
                    };
                    let period = period.map_or(Ok(DEFAULT_PERIOD), str::parse);
                    let period = period.map_err(|error| bad(error.to_string()))?;
                    self.cpu_quota(quota, period);
                }
                "cpuset.cpus" | "cpuset.mems" if self.version >= ALLOWED_CPUS => {
                    let bits = bits(value).map_err(bad)?;
                    let name = if file.ends_with("cpus") {
                        "AllowedCPUs"
                    } else {
                        "AllowedMemoryNodes"
                    };
                    self.add(name, Value::bytes(&bits));
                }
                "memory.high" => self.add_number("MemoryHigh", number()?),
                "memory.low" => self.add_number("MemoryLow", number()?),
                "memory.min" => self.add_number("MemoryMin", number()?),
                "memory.max" => self.add_number("MemoryMax", number()?),
                "memory.swap.max" => self.add_number("MemorySwapMax", number()?),
                "pids.max" => self.add_number("TasksMax", number()?.max(1)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether one process of the unit is killed when memory runs out, or all: systemd wants to know at the start.
    pub fn oom_policy(&mut self, resources: &LinuxResources) {
        let policy = match resources
            .unified
            .get("memory.oom.group")
            .map(|value| value.trim())
        {
            Some("0") => "continue",
            Some("1") => "kill",
            _ => return,
        };
        if self.version >= OOM_POLICY {
            self.add("OOMPolicy", Value::text(policy));
        }
    }

    /// The device rules. systemd knows lists of what is allowed only.
    ///
    /// What it cannot express is left to our own program on v2, beside which systemd then has none. On v1 systemd shares the one list
    /// of the kernel with us: there it is told less than is allowed, because it must never open more when it writes
    /// the list again.
    pub fn devices(&mut self, rules: &DeviceRules, is_v2: bool) {
        let entry =
            |(path, access): (String, String)| Value::Struct(vec![Value::Text(path), Value::Text(access)]);
        let list = |entries: Vec<Value>| Value::Array("(ss)".to_owned(), entries);
        let mut policy = "strict";
        let mut entries = Vec::new();
        if rules.allow_by_default {
            if is_v2 || rules.exceptions.is_empty() {
                policy = "auto";
            } else {
                self.warn(
                    "systemd doesn't support blacklist device rules -- applying temporary deny-all rule",
                );
            }
        } else {
            for (device, access) in &rules.exceptions {
                match self.device(device) {
                    Some(path) => entries.push((path, access.to_string())),
                    None if is_v2 => policy = "auto",
                    None => self.warn(&format!(
                        "systemd doesn't support the device rule {device} -- temporarily ignoring it"
                    )),
                }
            }
        }
        // An empty list takes away whatever is there.
        self.add("DeviceAllow", list(Vec::new()));
        self.add("DevicePolicy", Value::text(policy));
        if policy == "strict" && !entries.is_empty() {
            self.add("DeviceAllow", list(entries.into_iter().map(entry).collect()));
        }
    }

    /// How systemd calls these devices.
    fn device(&self, device: &Device) -> Option<String> {
        if self.version < DEVICES_BY_NUMBER {
            return None;
        }
        let kind = if device.block { "block" } else { "char" };
        match (device.major, device.minor) {
            (None, None) => Some(format!("{kind}-*")),
            (Some(major), None) => Some(format!("{kind}-{major}")),
            (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
            (None, Some(_)) => None,
        }
    }
}

/// A list of numbers (`0-2,7`) as bits, the lowest first.
fn bits(list: &str) -> Result<Vec<u8>, String> {
    /// Far above what a kernel can be built for.
    const MOST: usize = 1 << 16;
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|error| format!("{range:?}: {error}"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= MOST {
            return Err(format!("invalid range: {range}"));
        }
        if bits.len() <= last / 8 {
            bits.resize(last / 8 + 1, 0u8);
        }
        (first..=last).for_each(|index| bits[index / 8] |= 1 << (index % 8));
    }
    if bits.is_empty() {
        return Err("empty value".to_owned());
    }
    Ok(bits)
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
