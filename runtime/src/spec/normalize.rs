//! What the runtimes in use forgive, forgiven.
//!
//! Names that only newer kernels know must not stop a container, so unknown capabilities are left out with a
//! warning; so are the limits that kernels no longer have. An unknown value of any other enumeration was an error
//! before: leaving it out would change what the container is.

use std::collections::BTreeSet;

use super::oci;
use crate::features::CAPABILITIES;

/// Rewrites a whole configuration; answers what was left out, one sentence each. An empty system call filter is one that
/// `comes_later`, or none.
pub(super) fn spec(spec: &mut oci::Spec, comes_later: bool) -> Vec<String> {
    let mut warnings = spec.process.as_mut().map(process).unwrap_or_default();
    let Some(linux) = &mut spec.linux else {
        return warnings;
    };
    let memory = linux
        .resources
        .as_mut()
        .and_then(|resources| resources.memory.as_mut());
    if let Some(memory) = memory
        && memory.kernel.take().is_some() | memory.kernel_tcp.take().is_some()
    {
        warnings.push("Kernel memory settings are ignored and will be removed".to_owned());
    }
    // Neither an action nor a call: the profile of somebody who wants none.
    linux
        .seccomp
        .take_if(|profile| !comes_later && profile.default_action.is_none() && profile.syscalls.is_empty());
    warnings
}

/// Whether this runtime knows a capability of that name (`CAP_…`).
#[must_use]
pub fn is_capability(name: &str) -> bool {
    CAPABILITIES.contains(&name)
}

/// Rewrites a process; answers likewise.
pub(super) fn process(process: &mut oci::Process) -> Vec<String> {
    let mut unknown = BTreeSet::new();
    for set in process
        .capabilities
        .iter_mut()
        .flat_map(oci::LinuxCapabilities::sets_mut)
    {
        unknown.extend(set.extract_if(.., |name| !is_capability(name)));
    }
    if unknown.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = unknown.into_iter().collect();
    vec![format!(
        "ignoring unknown or unavailable capabilities: [{}]",
        names.join(" ")
    )]
}
