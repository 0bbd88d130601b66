//! Who the process becomes: user, groups, capabilities.

use super::step::{At, Failure, Step};
use crate::plan::ProcessPlan;
use crate::sys::credentials::{self, CapabilitySets};

/// Loading a filter without `no_new_privs` needs it.
const SYS_ADMIN: u64 = 1 << 21;

/// Drops everything but what the plan grants; and what loading the filter needs, when there is one and
/// `no_new_privs` is off. [`finish`] drops that.
pub(super) fn assume(process: &ProcessPlan) -> Result<(), Failure> {
    if process.no_new_privileges {
        credentials::set_no_new_privs().at(Step::NoNewPrivileges)?;
    }
    credentials::limit_bounding(process.capabilities.bounding).at(Step::Bounding)?;
    credentials::set_keep_capabilities(true).at(Step::Capabilities)?;
    if let Some(groups) = &process.groups {
        credentials::set_groups(groups).at(Step::Groups)?;
    }
    credentials::set_gid(process.gid).at(Step::Group)?;
    credentials::set_uid(process.uid).at(Step::User)?;
    credentials::set_keep_capabilities(false).at(Step::Capabilities)?;
    if !keeps_for_filter(process) {
        return reduce(&process.capabilities);
    }
    let kept = CapabilitySets {
        effective: process.capabilities.effective | SYS_ADMIN,
        permitted: process.capabilities.permitted | SYS_ADMIN,
        ..process.capabilities
    };
    credentials::set_capabilities(&kept).at(Step::Capabilities)
}

/// The filter is loaded: drops what was kept for it.
pub(super) fn finish(process: &ProcessPlan) -> Result<(), Failure> {
    match keeps_for_filter(process) {
        true => reduce(&process.capabilities),
        false => Ok(()),
    }
}

fn keeps_for_filter(process: &ProcessPlan) -> bool {
    process.seccomp.is_some() && !process.no_new_privileges
}

fn reduce(sets: &CapabilitySets) -> Result<(), Failure> {
    credentials::set_capabilities(sets).at(Step::Capabilities)?;
    credentials::set_ambient(sets.ambient).at(Step::Ambient)
}
