//! The id mappings of a new user namespace.

use super::{Error, Namespaces};
use crate::spec::oci;

/// The kernel takes this many lines in one map (since 4.15).
const MAX_LINES: usize = 340;

/// The text of the two maps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mappings {
    /// For `/proc/PID/uid_map`.
    pub uid: String,
    /// For `/proc/PID/gid_map`.
    pub gid: String,
}

pub(super) fn compile(linux: &oci::Linux, namespaces: &Namespaces) -> Result<Option<Mappings>, Error> {
    let uid = &linux.uid_mappings;
    let gid = &linux.gid_mappings;
    if !namespaces.makes(libc::CLONE_NEWUSER) {
        // With a joined user namespace the mappings only repeat what it has.
        let given = !uid.is_empty() || !gid.is_empty();
        if given && !namespaces.joins(libc::CLONE_NEWUSER) {
            return Err(Error::field("linux.uidMappings", "need a user namespace"));
        }
        return Ok(None);
    }
    Ok(Some(Mappings {
        uid: map("linux.uidMappings", uid)?,
        gid: map("linux.gidMappings", gid)?,
    }))
}

fn map(field: &str, mappings: &[oci::LinuxIdMapping]) -> Result<String, Error> {
    if mappings.is_empty() {
        return Err(Error::field(field, "are needed for a new user namespace"));
    }
    if mappings.len() > MAX_LINES {
        return Err(Error::field(field, format!("are more than {MAX_LINES}")));
    }
    // The container's root makes the mounts and owns what is made on the way.
    if !mappings
        .iter()
        .any(|mapping| mapping.container_id == 0 && mapping.size > 0)
    {
        return Err(Error::field(field, "must map the container's id 0"));
    }
    Ok(mappings
        .iter()
        .map(|mapping| format!("{} {} {}\n", mapping.container_id, mapping.host_id, mapping.size))
        .collect())
}
