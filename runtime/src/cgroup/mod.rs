//! Control groups: where a container's group is, what is written into it, and what is read from it.
//!
//! Three layouts of the host are served: `v1` (one hierarchy a controller), `hybrid` (v1 controllers beside a
//! v2 hierarchy without controllers) and `v2`. [`Layout::detect`] finds which; [`CgroupPlan::compile`] turns
//! the OCI resources into directories and writes without touching the host; [`CgroupPlan::create`] performs
//! them and answers a [`Cgroup`].
//!
//! With [`CgroupPlan::compile_unit`] systemd makes the group: it is a transient unit then.
//!
//! Refused here: limits on a controller that the host does not have.
//!
//! # Invariants
//!
//! - A limit that was asked for is in force, or there is an error that names it.
//! - Only groups that were made for a container are written to; a group with processes is not taken over.
//! - What [`CgroupPlan::create`] made is gone again when it fails.

mod create;
mod delegate;
mod device_filter;
mod devices;
mod entrance;
mod error;
mod file;
mod freeze;
mod group;
mod layout;
mod oom;
mod plan;
mod population;
mod pressure;
mod processors;
mod stats;
mod systemd;
mod threads;
mod v1;
mod v2;
mod write;

pub use entrance::Entrance;
pub use error::Error;
pub use group::Cgroup;
pub(crate) use layout::unescape;
pub use layout::{Hierarchy, Layout, Version};
pub use oom::OomWatch;
pub use plan::{CgroupPlan, Wanted};
pub use population::PopulationWatch;
pub use pressure::{Pressure, PressureShares};
pub use processors::CpusetStats;
pub use stats::{CpuStats, HugetlbStats, IoEntry, IoStats, MemoryStats, MemoryUse, PidsStats, Stats};
pub use systemd::{Manager, Unit};
