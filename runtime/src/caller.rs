//! What this process may do, found out: for the plan, which is pure.

use crate::Error;
use crate::cgroup::Layout;
use crate::plan::{Caller, ProcessPlan};
use crate::sys::process::hard_limit;
use crate::user_namespace::allows_setgroups;

impl Caller {
    /// This process.
    pub(crate) fn detect(layout: &Layout) -> Result<Self, Error> {
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            // The host's own user namespace always does.
            may_set_groups: layout.in_initial_user_namespace() || allows_setgroups("self")?,
        })
    }
}

/// The hard limits that are above this process's: in a user namespace nobody may raise them.
pub(crate) fn limits_to_raise(process: &ProcessPlan) -> Result<Vec<(u32, u64)>, Error> {
    let mut raise = Vec::new();
    for (resource, _, hard) in &process.rlimits {
        let own = hard_limit(*resource).map_err(|errno| Error::io("read a resource limit", errno))?;
        if *hard > own {
            raise.push((*resource, *hard));
        }
    }
    Ok(raise)
}
