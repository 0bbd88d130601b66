//! What resctrl says about a container's group, in the form that `events` prints.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::{Error, Group, Resctrl};

/// The shares and counters of a container.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// How the L3 cache can be divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// The cache's line of the group that all processes are in by default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The cache's line of the container's group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// How the memory bandwidth can be divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    /// The bandwidth's line of the group that all processes are in by default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The bandwidth's line of the container's group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the container's group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Memory traffic, one entry for each domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<Traffic>>,
    /// Cache occupancy, one entry for each domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<Occupancy>>,
}

/// `info/L3`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CacheInfo {
    /// All bits of the cache, hexadecimal.
    pub cbm_mask: String,
    /// The least number of bits a group may have.
    pub min_cbm_bits: u64,
    /// How many groups there can be.
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct BandwidthInfo {
    /// The steps of the bandwidth, per cent.
    pub bandwidth_gran: u64,
    /// Whether the delay is linear.
    pub delay_linear: u64,
    /// The least a group may have, per cent.
    pub min_bandwidth: u64,
    /// How many groups there can be.
    pub num_closids: u64,
}

/// The memory traffic of one domain, bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Traffic {
    /// To all memory.
    pub mbm_total_bytes: u64,
    /// To the memory of the same node.
    pub mbm_local_bytes: u64,
}

/// The cache occupancy of one domain, bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Occupancy {
    /// What the group's processes have in the cache.
    pub llc_occupancy: u64,
}

impl Resctrl {
    /// Reads the shares and counters of a container's group.
    ///
    /// # Errors
    ///
    /// A file cannot be read or understood.
    pub fn stats(&self, group: &Group) -> Result<Stats, Error> {
        let everybody = read(&self.root().join("schemata"))?;
        let own = read(&group.path().join("schemata"))?;
        let mut stats = Stats {
            schemata: own.lines().map(|line| line.trim().to_owned()).collect(),
            ..Stats::default()
        };
        if self.has_cache() {
            let info = self.root().join("info/L3");
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: read(&info.join("cbm_mask"))?,
                min_cbm_bits: number(&info.join("min_cbm_bits"))?,
                num_closids: number(&info.join("num_closids"))?,
            });
            stats.l3_cache_schema_root = line(&everybody, "L3");
            stats.l3_cache_schema = line(&own, "L3");
        }
        if self.has_bandwidth() {
            let info = self.root().join("info/MB");
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&info.join("bandwidth_gran"))?,
                delay_linear: number(&info.join("delay_linear"))?,
                min_bandwidth: number(&info.join("min_bandwidth"))?,
                num_closids: number(&info.join("num_closids"))?,
            });
            stats.mem_bw_schema_root = line(&everybody, "MB");
            stats.mem_bw_schema = line(&own, "MB");
        }
        self.count(group, &mut stats)?;
        Ok(stats)
    }

    fn count(&self, group: &Group, stats: &mut Stats) -> Result<(), Error> {
        let events = self.events()?;
        let counts = |event: &str| events.iter().any(|known| known == event);
        let traffic = counts("mbm_total_bytes") || counts("mbm_local_bytes");
        let occupancy = counts("llc_occupancy");
        if !traffic && !occupancy {
            return Ok(());
        }
        let data = group.counters().join("mon_data");
        let failed = |error| Error::io("read", &data, error);
        let mut domains = Vec::new();
        for entry in fs::read_dir(&data).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            domains.extend(path.is_dir().then_some(path));
        }
        domains.sort();
        let value = |domain: &Path, event: &str| match counts(event) {
            true => number(&domain.join(event)),
            false => Ok(0),
        };
        let (mut all_traffic, mut all_occupancy) = (Vec::new(), Vec::new());
        for domain in &domains {
            all_traffic.push(Traffic {
                mbm_total_bytes: value(domain, "mbm_total_bytes")?,
                mbm_local_bytes: value(domain, "mbm_local_bytes")?,
            });
            all_occupancy.push(Occupancy {
                llc_occupancy: value(domain, "llc_occupancy")?,
            });
        }
        stats.mbm_stats = traffic.then_some(all_traffic);
        stats.cmt_stats = occupancy.then_some(all_occupancy);
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
    Ok(text.trim().to_owned())
}

fn number(path: &Path) -> Result<u64, Error> {
    let text = read(path)?;
    text.parse().map_err(|_| Error::Malformed {
        path: path.to_owned(),
        problem: format!("{text:?} is no number"),
    })
}

/// The last line about `resource`, without blanks around it.
fn line(schemata: &str, resource: &str) -> String {
    let about = |line: &&str| line.contains(resource);
    let line = schemata.lines().rfind(about);
    line.unwrap_or_default().trim().to_owned()
}
