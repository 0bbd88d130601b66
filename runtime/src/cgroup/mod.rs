//! Control groups: where a container's group is, what is written into it, and what is read from it.
//!
//! Three layouts of the host are served: `v1` (one hierarchy a controller), `hybrid` (v1 controllers beside a
//! v2 hierarchy without controllers) and `v2`. [`Layout::detect`] finds which; [`CgroupPlan::compile`] turns
//! the OCI resources into directories and writes without touching the host; [`CgroupPlan::create`] performs
//! them and answers a [`Cgroup`].
//!
//! Refused here: limits on a controller that the host does not have. The systemd driver is not here.

mod error;
mod group;
mod layout;
mod plan;
mod stats;

pub use error::Error;
pub use group::{Cgroup, OomWatch};
pub use layout::{Layout, Version};
pub use plan::CgroupPlan;
pub use stats::Stats;
