//! Linux security modules: the label a process runs under.
//!
//! Refused here: a label for a module that this host does not have. Going on without it would be less
//! confinement than was asked for.

use std::path::Path;

use crate::plan::{Error, Label};
use crate::spec::oci;

/// Which modules are in force on this host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Enabled {
    /// AppArmor.
    pub apparmor: bool,
    /// SELinux.
    pub selinux: bool,
}

impl Enabled {
    /// Asks this host. Looks at two paths.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|state| state.starts_with(b"Y")),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    /// As [`Self::detect`], but only if the configuration asks for a label.
    #[must_use]
    pub fn detect_for(spec: &oci::Spec) -> Self {
        let labels_mounts = |linux: &oci::Linux| !linux.mount_label.is_empty();
        let asked = spec.process.as_ref().is_some_and(asks) || spec.linux.as_ref().is_some_and(labels_mounts);
        if asked { Self::detect() } else { Self::default() }
    }

    /// As [`Self::detect_for`], for one process.
    #[must_use]
    pub fn detect_for_process(process: &oci::Process) -> Self {
        if asks(process) {
            Self::detect()
        } else {
            Self::default()
        }
    }

    /// What to write, and where, so that the next `execve` gets the process's label.
    pub(crate) fn label(self, process: &oci::Process) -> Result<Option<Label>, Error> {
        let asked = |label: &String| Some(label.clone()).filter(|label| !label.is_empty());
        let text = |field: &str, value: String| {
            std::ffi::CString::new(value).map_err(|_| Error::field(field, "contains a zero byte"))
        };
        let apparmor =
            asked(&process.apparmor_profile).filter(|profile| profile != "unconfined" || self.apparmor);
        match (apparmor, asked(&process.selinux_label)) {
            (Some(_), Some(_)) => Err(Error::field(
                "process",
                "an AppArmor profile and a SELinux label at once",
            )),
            (Some(_), None) if !self.apparmor => Err(Error::field(
                "process.apparmorProfile",
                "AppArmor is not enabled on this host",
            )),
            (None, Some(_)) if !self.selinux => Err(Error::field(
                "process.selinuxLabel",
                "SELinux is not enabled on this host",
            )),
            (Some(profile), None) => Ok(Some(Label {
                // The directory of its own exists since 5.8; the shared file is the first module's.
                file: c"self/attr/apparmor/exec".to_owned(),
                value: text("process.apparmorProfile", format!("exec {profile}"))?,
            })),
            (None, Some(label)) => Ok(Some(Label {
                file: c"self/attr/exec".to_owned(),
                value: text("process.selinuxLabel", label)?,
            })),
            (None, None) => Ok(None),
        }
    }
}

fn asks(process: &oci::Process) -> bool {
    !process.apparmor_profile.is_empty() || !process.selinux_label.is_empty()
}
