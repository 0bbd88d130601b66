//! `linux.resources`: the limits of control groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::word::optional;
use super::{LinuxDeviceType, is_default};

/// Limits of a container's control groups. This is also what `update` takes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxResources {
    /// Which devices may be used, in this order.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<LinuxDeviceCgroup>,
    /// Memory.
    #[serde(skip_serializing_if = "is_default")]
    pub memory: Option<LinuxMemory>,
    /// Processors.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu: Option<LinuxCpu>,
    /// Processes.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: Option<LinuxPids>,
    /// Block devices.
    #[serde(rename = "blockIO", skip_serializing_if = "is_default")]
    pub block_io: Option<LinuxBlockIo>,
    /// Huge pages, by size.
    #[serde(skip_serializing_if = "is_default")]
    pub hugepage_limits: Vec<LinuxHugepageLimit>,
    /// The marks of network traffic.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<LinuxNetwork>,
    /// RDMA, by device.
    #[serde(skip_serializing_if = "is_default")]
    pub rdma: BTreeMap<String, LinuxRdma>,
    /// Values by file of a v2 group.
    #[serde(skip_serializing_if = "is_default")]
    pub unified: BTreeMap<String, String>,
}

/// A rule about devices.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxDeviceCgroup {
    /// Allowed, or denied.
    pub allow: bool,
    /// Which kind of devices; every one without.
    #[serde(
        rename = "type",
        deserialize_with = "optional",
        skip_serializing_if = "is_default"
    )]
    pub typ: Option<LinuxDeviceType>,
    /// The major number; every one without.
    #[serde(skip_serializing_if = "is_default")]
    pub major: Option<i64>,
    /// The minor number likewise.
    #[serde(skip_serializing_if = "is_default")]
    pub minor: Option<i64>,
    /// `r`, `w` and `m`.
    #[serde(skip_serializing_if = "is_default")]
    pub access: String,
}

/// Limits of memory, in bytes; -1 is none.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxMemory {
    /// The hard limit.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: Option<i64>,
    /// The soft limit.
    #[serde(skip_serializing_if = "is_default")]
    pub reservation: Option<i64>,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: Option<i64>,
    /// Memory of the kernel; obsolete.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: Option<i64>,
    /// Memory of TCP; obsolete.
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub kernel_tcp: Option<i64>,
    /// How eagerly the kernel swaps, 0 to 100.
    #[serde(skip_serializing_if = "is_default")]
    pub swappiness: Option<u64>,
    /// Let processes wait instead of killing one.
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "is_default")]
    pub disable_oom_killer: Option<bool>,
    /// Account below this group too.
    #[serde(skip_serializing_if = "is_default")]
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below what is in use, on an update.
    #[serde(skip_serializing_if = "is_default")]
    pub check_before_update: Option<bool>,
}

/// Shares and limits of processors; times in microseconds.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxCpu {
    /// The relative weight, 2 to 262144.
    #[serde(skip_serializing_if = "is_default")]
    pub shares: Option<u64>,
    /// Time in a period.
    #[serde(skip_serializing_if = "is_default")]
    pub quota: Option<i64>,
    /// Unused time that may be spent on top.
    #[serde(skip_serializing_if = "is_default")]
    pub burst: Option<u64>,
    /// The period.
    #[serde(skip_serializing_if = "is_default")]
    pub period: Option<u64>,
    /// Time of realtime processes in a period.
    #[serde(skip_serializing_if = "is_default")]
    pub realtime_runtime: Option<i64>,
    /// The period for those.
    #[serde(skip_serializing_if = "is_default")]
    pub realtime_period: Option<u64>,
    /// The processors to use, as a list (`0-3,7`).
    #[serde(skip_serializing_if = "is_default")]
    pub cpus: String,
    /// The memory nodes to use, as a list.
    #[serde(skip_serializing_if = "is_default")]
    pub mems: String,
    /// 1 for as little as `SCHED_IDLE` gets.
    #[serde(skip_serializing_if = "is_default")]
    pub idle: Option<i64>,
}

/// The limit of processes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxPids {
    /// How many; negative for any number.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: Option<i64>,
}

/// Weights and limits of block devices.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxBlockIo {
    /// The relative weight, 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Option<u16>,
    /// The weight against groups below.
    #[serde(skip_serializing_if = "is_default")]
    pub leaf_weight: Option<u16>,
    /// Weights by device.
    #[serde(skip_serializing_if = "is_default")]
    pub weight_device: Vec<LinuxWeightDevice>,
    /// Bytes read a second, by device.
    #[serde(skip_serializing_if = "is_default")]
    pub throttle_read_bps_device: Vec<LinuxThrottleDevice>,
    /// Bytes written a second, by device.
    #[serde(skip_serializing_if = "is_default")]
    pub throttle_write_bps_device: Vec<LinuxThrottleDevice>,
    /// Reads a second, by device.
    #[serde(rename = "throttleReadIOPSDevice", skip_serializing_if = "is_default")]
    pub throttle_read_iops_device: Vec<LinuxThrottleDevice>,
    /// Writes a second, by device.
    #[serde(rename = "throttleWriteIOPSDevice", skip_serializing_if = "is_default")]
    pub throttle_write_iops_device: Vec<LinuxThrottleDevice>,
}

/// The weights of a device.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxWeightDevice {
    /// The device's major number.
    pub major: i64,
    /// Its minor number.
    pub minor: i64,
    /// The relative weight, 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Option<u16>,
    /// The weight against groups below.
    #[serde(skip_serializing_if = "is_default")]
    pub leaf_weight: Option<u16>,
}

/// The limit of a device.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxThrottleDevice {
    /// The device's major number.
    pub major: i64,
    /// Its minor number.
    pub minor: i64,
    /// How many a second.
    pub rate: u64,
}

/// The limit of huge pages of one size.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxHugepageLimit {
    /// The size, as the kernel writes it (`2MB`).
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// The marks of network traffic.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxNetwork {
    /// The class of packets.
    #[serde(rename = "classID", skip_serializing_if = "is_default")]
    pub class_id: Option<u32>,
    /// Priorities by interface.
    #[serde(skip_serializing_if = "is_default")]
    pub priorities: Vec<LinuxInterfacePriority>,
}

/// The priority of an interface's traffic.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxInterfacePriority {
    /// The interface.
    pub name: String,
    /// Its priority.
    pub priority: u32,
}

/// The limits of an RDMA device.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxRdma {
    /// How many handles may be open.
    #[serde(skip_serializing_if = "is_default")]
    pub hca_handles: Option<u32>,
    /// How many objects may exist.
    #[serde(skip_serializing_if = "is_default")]
    pub hca_objects: Option<u32>,
}
