//! The methods and their cases, one function for each service.

pub(crate) mod content;
pub(crate) mod mounts;
pub(crate) mod other;
pub(crate) mod records;
pub(crate) mod sandboxes;
pub(crate) mod snapshots;
pub(crate) mod tasks;
pub(crate) mod transfer;

use crate::case::Method;

/// All of them.
pub(crate) fn all() -> Vec<Method> {
    [
        content::content(),
        mounts::mounts(),
        records::containers(),
        records::images(),
        records::leases(),
        records::namespaces(),
        snapshots::snapshots(),
        snapshots::diff(),
        other::events(),
        other::introspection(),
        other::probes(),
        sandboxes::store(),
        sandboxes::controller(),
        tasks::tasks(),
        transfer::transfer(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
