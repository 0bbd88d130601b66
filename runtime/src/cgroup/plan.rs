//! From OCI resources to directories and writes.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Cgroup, Error, Layout};

/// What is to be made: directories, and the values written into their files, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CgroupPlan {}

impl CgroupPlan {
    /// Plans the group of container `id`.
    ///
    /// `cgroups_path` is `linux.cgroupsPath`: an absolute path is below the hierarchies' roots, a relative one
    /// below this process's own groups, and without one the group is named `id`, relative.
    ///
    /// # Errors
    ///
    /// A limit is out of its range or asks for a controller that the host does not have.
    pub fn compile(
        layout: &Layout,
        cgroups_path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
    ) -> Result<Self, Error> {
        let (_, _, _, _) = (layout, cgroups_path, id, resources);
        Err(Error::Unsupported("cgroup planning".into()))
    }

    /// Makes the directories and writes the limits. What was made is removed again when a step fails.
    ///
    /// # Errors
    ///
    /// The step that failed.
    pub fn create(&self) -> Result<Cgroup, Error> {
        Err(Error::Unsupported("cgroup creation".into()))
    }
}
