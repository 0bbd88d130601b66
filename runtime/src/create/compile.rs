//! From a configuration and the options to the plan, and what is looked up and opened for it beforehand.

use std::os::fd::AsFd;
use std::path::Path;

use super::CreateOptions;
use crate::cgroup::{CgroupPlan, Layout};
use crate::intel_rdt::{self, Resctrl};
use crate::plan::{self, Caller, Facts, Opened, Plan};
use crate::record::{NOTIFY_DIRECTORY, NOTIFY_SOCKET, NOTIFY_TARGET};
use crate::resources;
use crate::spec::{Spec, oci};
use crate::sys::credentials::is_known_capability;
use crate::terminal::ConsoleSocket;
use crate::{Error, Runtime, kernel, lsm, mountinfo, seccomp, user_namespace};

impl Runtime {
    /// The configuration with what the options add to it, if they do.
    pub(super) fn changed(&self, spec: &Spec, options: &CreateOptions) -> Result<Option<oci::Spec>, Error> {
        if options.environment.is_empty() && !options.notify {
            return Ok(None);
        }
        let mut changed = spec.oci().clone();
        let process = changed.process.get_or_insert_default();
        process.env.extend(options.environment.iter().cloned());
        if options.notify {
            process
                .env
                .push(format!("NOTIFY_SOCKET={NOTIFY_TARGET}/{NOTIFY_SOCKET}"));
            let root =
                std::path::absolute(self.root()).map_err(|error| Error::io("find the state root", error))?;
            changed.mounts.push(oci::Mount {
                destination: NOTIFY_TARGET.into(),
                source: root.join(options.id.as_str()).join(NOTIFY_DIRECTORY),
                options: ["bind", "nosuid", "noexec", "nodev", "ro"]
                    .map(str::to_owned)
                    .to_vec(),
                ..oci::Mount::default()
            });
        }
        Ok(Some(changed))
    }

    /// Compiles `spec`, which is that of `loaded` with what the options change.
    pub(crate) fn compile(
        &self,
        spec: &oci::Spec,
        loaded: &Spec,
        bundle: &Path,
        options: &CreateOptions,
    ) -> Result<(Plan, CgroupPlan), Error> {
        let read;
        let layout = match &self.layout {
            Some(layout) => layout.as_ref(),
            None => {
                read = Layout::detect()?;
                &read
            }
        };
        let cgroups = resources::plan(spec, layout, options)?;
        let whole_views = match &spec.root {
            Some(root) if options.no_pivot => mountinfo::whole_views(&bundle.join(&root.path))?,
            _ => Vec::new(),
        };
        let facts = Facts {
            id: &options.id,
            bundle,
            cgroup_version: layout.version(),
            cgroup_paths: &cgroups.expected_paths(layout),
            new_cgroup_namespace: false,
            lsm: lsm::Enabled::detect_for(spec),
            no_pivot: options.no_pivot,
            whole_views: &whole_views,
            staging: kernel::is_old(),
            no_new_keyring: options.no_new_keyring,
            caller: Caller::detect(layout)?,
            filter_comes_later: loaded.later_profile().is_some(),
        };
        let mut plan = Plan::compile(spec, &facts)?;
        plan.process.leave_out_capabilities(is_known_capability);
        let profile = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        seccomp::tell(profile, plan.process.seccomp.as_ref());
        Ok((plan, cgroups))
    }
}

/// Where the host divides caches, if the container is to have a share.
pub(crate) fn resctrl(plan: &Plan) -> Result<Option<Resctrl>, Error> {
    let Some(settings) = &plan.intel_rdt else {
        return Ok(None);
    };
    let resctrl = Resctrl::find()?.ok_or(intel_rdt::Error::NotEnabled)?;
    resctrl.check(settings)?;
    Ok(Some(resctrl))
}

/// What is known only when the namespaces that are joined are open.
pub(crate) fn check_joined(spec: &Spec, plan: &mut Plan, namespaces: &[Opened]) -> Result<Warnings, Error> {
    let mut warnings = Warnings::default();
    let Some(linux) = &spec.oci().linux else {
        return Ok(warnings);
    };
    for namespace in namespaces {
        match namespace.kind as libc::c_int {
            libc::CLONE_NEWUSER => {
                let maps = user_namespace::inspect(namespace.fd.as_fd())?;
                if plan::check_joined(linux, &maps)? {
                    warnings.add(
                        "config.json has both a userns path to join and a matching userns mapping specified -- you \
                         may only provide one",
                    );
                }
                if maps.deny_setgroups {
                    plan.keep_groups();
                }
            }
            // A name for the namespace of the runtime itself: what is set there is set for the host.
            libc::CLONE_NEWNET if is_own(namespace)? => {
                if let Some(name) = linux.sysctl.keys().find(|name| name.starts_with("net")) {
                    return Err(Error::Invalid(format!(
                        "linux.sysctl[{name}]: sysctl {name:?} not allowed in host network namespace"
                    )));
                }
            }
            _ => {}
        }
    }
    let asked = spec
        .oci()
        .process
        .as_ref()
        .map_or(0, |process| process.user.additional_gids.len());
    if plan.process.groups.is_none() && asked > 0 {
        warnings.add("process.user.additionalGids are not set: the user namespace does not allow setgroups");
    }
    Ok(warnings)
}

/// Whether it is a namespace that this process is in.
pub(crate) fn is_own(namespace: &Opened) -> Result<bool, Error> {
    let name = plan::namespace_name(namespace.kind);
    let path = format!("/proc/self/ns/{name}");
    let own = rustix::fs::stat(&path).map_err(|errno| Error::io(format!("stat {path}"), errno))?;
    let other = rustix::fs::fstat(&namespace.fd)
        .map_err(|errno| Error::io(format!("stat the {name} namespace"), errno))?;
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

/// What the caller is told about a container that was created.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Vec<String>);

impl Warnings {
    fn add(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }

    /// These after those of the configuration and of the control groups.
    pub(crate) fn chain(self, spec: &Spec, cgroups: &CgroupPlan) -> Vec<String> {
        let earlier = spec.warnings().iter().chain(cgroups.warnings());
        earlier.cloned().chain(self.0).collect()
    }
}

/// The process makes its time namespace and enters it with `execve`, which older kernels do not do: it would stay in
/// the caller's.
pub(super) fn check_time_namespaces() -> Result<(), Error> {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    match enters_time_namespace_by_exec(&release) {
        true => Ok(()),
        false => Err(Error::Unsupported(format!(
            "a time namespace on kernel {release}, before 6.3,"
        ))),
    }
}

pub(super) fn enters_time_namespace_by_exec(release: &str) -> bool {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 3)
}

pub(crate) fn console_socket(path: Option<&Path>, plan: &Plan) -> Result<Option<ConsoleSocket>, Error> {
    match path {
        Some(_) if plan.process.terminal.is_none() => Err(Error::Invalid(
            "a console socket is given, but process.terminal is off".into(),
        )),
        path => path.map(ConsoleSocket::connect).transpose(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_namespaces_need_kernel_6_3() {
        for (release, enough) in [
            ("6.3.0", true),
            ("6.18.44-fc", true),
            ("7.0-rc1", true),
            ("6.2.16-generic", false),
            ("5.15.0", false),
            ("", false),
        ] {
            assert_eq!(enters_time_namespace_by_exec(release), enough, "{release}");
        }
    }
}
