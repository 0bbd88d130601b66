//! A control group's numbers in containerd's two forms.

use prost_types::Any;
use wharf_runtime::cgroup::{Cgroup, Stats};

use crate::status::{Code, Refusal};

/// The numbers of `stats` as `io.containerd.cgroups.v1.Metrics` or `v2.Metrics`, by the group's hierarchy.
///
/// # Errors
///
/// The runtime has no numbers yet.
pub fn metrics(_stats: &Stats, _cgroup: &Cgroup) -> Result<Any, Refusal> {
    Err(Refusal::new(Code::Unimplemented, "Stats is not supported yet"))
}
