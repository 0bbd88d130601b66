//! `update`: other limits for a container.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use wharf_runtime::spec::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use wharf_runtime::spec::{MAX_CONFIG_BYTES, parse_resources};
use wharf_runtime::{Error, Status};

use super::Environment;

#[derive(Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(super) struct Arguments {
    /// A file with an OCI resources object, or - for standard input: what it does not name is unchanged, and of the other
    /// flags only those about Intel RDT count
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Relative weight for block devices, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<String>,
    /// Period of the CPU quota in microseconds; 0 for the system's default
    #[arg(long, value_name = "N")]
    cpu_period: Option<String>,
    /// CPU time in microseconds a period
    #[arg(long, value_name = "N")]
    cpu_quota: Option<String>,
    /// Unused CPU time in microseconds that may be spent on top
    #[arg(long, value_name = "N")]
    cpu_burst: Option<String>,
    /// CPU shares: the weight against other containers
    #[arg(long, value_name = "N")]
    cpu_share: Option<String>,
    /// Period of the realtime limit in microseconds; 0 for the system's default
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<String>,
    /// Realtime CPU time in microseconds a period
    #[arg(long, value_name = "N")]
    cpu_rt_runtime: Option<String>,
    /// The CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Obsolete: the kernel has no such limit any more
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory: Option<String>,
    /// Obsolete likewise
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory_tcp: Option<String>,
    /// Memory
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// 1 to give the container only CPU time that nobody else wants
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<String>,
    /// Soft limit of memory
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 for any amount of swap
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<String>,
    /// The most processes; 0 counts as 1, -1 for any number
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,
    /// Intel RDT's schema of L3 caches
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Intel RDT's schema of memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// The container's name
    id: String,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    let changes = match arguments
        .resources
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
    {
        Some(path) => read(path)?,
        None => arguments.resources()?,
    };
    if changes
        .memory
        .as_ref()
        .is_some_and(|memory| memory.kernel.is_some() || memory.kernel_tcp.is_some())
    {
        environment
            .log
            .warning("Kernel memory settings are ignored and will be removed");
    }
    container.update_intel_rdt(
        arguments.l3_cache_schema.as_deref(),
        arguments.mem_bw_schema.as_deref(),
    )?;
    let updated = container.update(&changes);
    for warning in container.take_warnings() {
        environment.log.warning(&warning);
    }
    match updated {
        Err(Error::WrongStatus {
            status: Status::Stopped,
            ..
        }) => bail!("container not running"),
        result => Ok(result?),
    }
}

/// The changes that a file asks for.
fn read(path: &Path) -> anyhow::Result<LinuxResources> {
    let mut bytes = Vec::new();
    let mut take = |source: &mut dyn Read| source.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes);
    let what = if path == Path::new("-") {
        take(&mut std::io::stdin().lock()).context("read standard input")?;
        "standard input".to_owned()
    } else {
        let what = path.display().to_string();
        let mut file = File::open(path).with_context(|| format!("open {what}"))?;
        take(&mut file).with_context(|| format!("read {what}"))?;
        what
    };
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        bail!("{what} is larger than {MAX_CONFIG_BYTES} bytes");
    }
    parse_resources(&bytes).with_context(|| format!("resources in {what}"))
}

impl Arguments {
    /// The changes that the flags ask for. An empty value asks for none.
    fn resources(&self) -> anyhow::Result<LinuxResources> {
        let cpu = LinuxCpu {
            shares: number("cpu-share", self.cpu_share.as_deref())?,
            quota: number("cpu-quota", self.cpu_quota.as_deref())?,
            burst: number("cpu-burst", self.cpu_burst.as_deref())?,
            period: number("cpu-period", self.cpu_period.as_deref())?,
            realtime_runtime: number("cpu-rt-runtime", self.cpu_rt_runtime.as_deref())?,
            realtime_period: number("cpu-rt-period", self.cpu_rt_period.as_deref())?,
            cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            mems: self.cpuset_mems.clone().unwrap_or_default(),
            idle: number("cpu-idle", self.cpu_idle.as_deref())?,
        };
        let memory = LinuxMemory {
            limit: bytes("memory", self.memory.as_deref())?,
            reservation: bytes("memory-reservation", self.memory_reservation.as_deref())?,
            swap: bytes("memory-swap", self.memory_swap.as_deref())?,
            kernel: bytes("kernel-memory", self.kernel_memory.as_deref())?,
            kernel_tcp: bytes("kernel-memory-tcp", self.kernel_memory_tcp.as_deref())?,
            ..LinuxMemory::default()
        };
        let weight: Option<u16> = number("blkio-weight", self.blkio_weight.as_deref())?;
        Ok(LinuxResources {
            cpu: Some(cpu),
            memory: Some(memory),
            pids: Some(LinuxPids {
                limit: self.pids_limit,
            }),
            block_io: Some(LinuxBlockIo {
                weight: weight.filter(|weight| *weight != 0),
                ..LinuxBlockIo::default()
            }),
            ..LinuxResources::default()
        })
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(
    flag: &str,
    text: Option<&str>,
) -> anyhow::Result<Option<T>> {
    text.filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|error| anyhow!("invalid value for {flag}: {text:?}: {error}"))
        })
        .transpose()
}

fn bytes(flag: &str, text: Option<&str>) -> anyhow::Result<Option<i64>> {
    text.filter(|text| !text.is_empty())
        .map(|text| match text {
            "-1" => Ok(-1),
            text => size(text).ok_or_else(|| anyhow!("invalid value for {flag}: invalid size: '{text}'")),
        })
        .transpose()
}

/// `512M`, `1.5g`, `2 GiB`, `100b`, `4096`: powers of 1024.
fn size(text: &str) -> Option<i64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let letter = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let power = match letter {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1024i64.pow(power);
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) if number.contains('.') => Some((number.parse::<f64>().ok()? * factor as f64) as i64),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [
            ("4096", 4096),
            ("0", 0),
            ("32b", 32),
            ("1k", 1024),
            ("1KB", 1024),
            ("1 KiB", 1024),
            ("1.5M", 3 << 19),
            ("2g", 2 << 30),
            ("1Ti", 0),
            ("1p", 1 << 50),
        ] {
            let expected = (bytes != 0 || text == "0").then_some(bytes);
            assert_eq!(size(text), expected, "{text}");
        }
        for bad in ["", "M", "-5", "1x", "1MM", "1.2.3k", "9999999999p", "ib"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(bytes("memory", Some("-1")).unwrap(), Some(-1));
        assert_eq!(bytes("memory", Some("")).unwrap(), None);
    }

    #[test]
    fn bad_values_name_their_flag() {
        let error = number::<u64>("cpu-share", Some("-1")).unwrap_err().to_string();
        assert!(error.starts_with("invalid value for cpu-share: "), "{error}");
        let error = bytes("memory", Some("lots")).unwrap_err().to_string();
        assert_eq!(error, "invalid value for memory: invalid size: 'lots'");
    }
}
