//! Who creates a container, as far as that changes what can be made of it, and what a user without privileges is refused.

use super::mapping::host_id;
use super::{Error, Mappings, Namespaces};
use crate::spec::oci;

/// The ids of the process that creates a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
    /// Its user namespace allows `setgroups(2)`.
    pub may_set_groups: bool,
}

impl Caller {
    /// The host's root.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        may_set_groups: true,
    };

    /// Whether it is root of its user namespace, and has privileges there.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Refuses what a user without privileges cannot have.
    pub(super) fn check(
        &self,
        spec: &oci::Spec,
        linux: &oci::Linux,
        namespaces: &Namespaces,
        mappings: Option<&Mappings>,
    ) -> Result<(), Error> {
        if self.is_root() {
            return Ok(());
        }
        if !namespaces.has(libc::CLONE_NEWUSER) {
            return Err(Error::field(
                "linux.namespaces",
                "rootless container requires user namespaces",
            ));
        }
        if !linux.net_devices.is_empty() {
            return Err(Error::field(
                "linux.netDevices",
                "network devices are not supported for rootless containers",
            ));
        }
        if let Some(process) = &spec.process {
            self.check_groups(&process.user)?;
        }
        match mappings {
            Some(mappings) => check_mounts(spec, mappings),
            None => Ok(()),
        }
    }

    /// Refuses supplementary groups for whoever has no privilege to set them.
    pub(super) fn check_groups(&self, user: &oci::User) -> Result<(), Error> {
        if self.is_root() || user.additional_gids.is_empty() {
            return Ok(());
        }
        Err(Error::field(
            "process.user.additionalGids",
            "cannot set any additional groups in a rootless container",
        ))
    }
}

/// An owner that a mount names must be one that the container has.
fn check_mounts(spec: &oci::Spec, mappings: &Mappings) -> Result<(), Error> {
    for (index, mount) in spec.mounts.iter().enumerate() {
        for option in &mount.options {
            let (kind, ranges, id) = match option.split_once('=') {
                Some(("uid", id)) => ("uid", &mappings.uid, id),
                Some(("gid", id)) => ("gid", &mappings.gid, id),
                _ => continue,
            };
            // What is no number is not ours to judge.
            let Ok(id) = id.parse() else { continue };
            if host_id(ranges, id).is_none() {
                return Err(Error::field(
                    format!("mounts[{index}].options"),
                    format!(
                        "cannot specify {option} mount option for rootless container: user namespaces enabled, but no \
                         mapping found for {kind} {id}"
                    ),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::IdRange;

    const USER: Caller = Caller {
        uid: 1000,
        gid: 1000,
        may_set_groups: true,
    };

    fn with_user() -> Namespaces {
        Namespaces {
            create: libc::CLONE_NEWUSER as u64,
            ..Namespaces::default()
        }
    }

    #[test]
    fn a_user_without_privileges_needs_a_user_namespace() {
        let (spec, linux) = (oci::Spec::default(), oci::Linux::default());
        let without = Namespaces::default();
        assert!(USER.check(&spec, &linux, &without, None).is_err());
        assert!(USER.check(&spec, &linux, &with_user(), None).is_ok());
        assert!(Caller::ROOT.check(&spec, &linux, &without, None).is_ok());
    }

    #[test]
    fn a_user_without_privileges_sets_no_groups_and_moves_no_devices() {
        let user = oci::User {
            additional_gids: vec![1],
            ..oci::User::default()
        };
        assert!(USER.check_groups(&user).is_err());
        assert!(Caller::ROOT.check_groups(&user).is_ok());
        let mut linux = oci::Linux::default();
        linux
            .net_devices
            .insert("eth0".into(), oci::LinuxNetDevice::default());
        assert!(
            USER.check(&oci::Spec::default(), &linux, &with_user(), None)
                .is_err()
        );
    }

    #[test]
    fn the_owner_of_a_mount_must_be_mapped() {
        let own = vec![IdRange {
            container: 0,
            host: 1000,
            size: 1,
        }];
        let mappings = Mappings {
            uid: own.clone(),
            gid: own,
            deny_setgroups: true,
        };
        let check = |option: &str| {
            let mount = oci::Mount {
                options: vec!["nosuid".into(), option.into()],
                ..oci::Mount::default()
            };
            let spec = oci::Spec {
                mounts: vec![mount],
                ..oci::Spec::default()
            };
            USER.check(&spec, &oci::Linux::default(), &with_user(), Some(&mappings))
        };
        assert!(check("uid=0").is_ok());
        assert!(check("uid=x").is_ok());
        let error = check("gid=5").unwrap_err().to_string();
        assert!(
            error.contains("cannot specify gid=5 mount option for rootless container"),
            "{error}"
        );
    }
}
