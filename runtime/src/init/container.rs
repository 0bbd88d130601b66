//! The first process of a container: it builds the container around itself.

use std::convert::Infallible;

use super::step::{At, Failure, Message, Stage, Step};
use super::{Wires, hook, isolate, program, terminal};
use crate::plan::{Plan, RootfsPlan};
use crate::rootfs::{self, Kind};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{Fd, process, socket};

pub(super) fn perform(plan: &mut Plan, wires: &Wires, reporter: &mut Fd) -> Result<Infallible, Failure> {
    // While the id maps are written the process must be dumpable for an unprivileged parent. It is alone so far:
    // its user namespace is new.
    if plan.mappings.is_none() {
        isolate::hide()?;
    }
    isolate::enter_cgroups(wires)?;
    isolate::set_affinity(&plan.process)?;
    isolate::leave_caller(wires)?;
    isolate::wait_for_parent(wires)?;
    isolate::join(wires)?;
    process::unshare(plan.namespaces.unshare).at(Step::Unshare)?;
    if let Some(offsets) = &plan.namespaces.time_offsets {
        // Before the change of user, which makes the process's own files in /proc the host's root's.
        isolate::write_time_offsets(offsets).at(Step::TimeOffsets)?;
    }
    if plan.namespaces.has(libc::CLONE_NEWUSER) {
        isolate::become_root()?;
        isolate::hide()?;
    }
    isolate::new_session(&plan.process)?;
    if plan.namespaces.loopback {
        socket::loopback_up().at(Step::Loopback)?;
    }
    if let Some(name) = &plan.hostname {
        process::set_hostname(name).at(Step::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        process::set_domainname(name).at(Step::Domainname)?;
    }
    let terminal = build_root(plan, *reporter)?;
    for (index, (path, value)) in plan.sysctls.iter().enumerate() {
        isolate::write_private_proc(path, value, Resolve::Beneath).at_nth(Step::Sysctl, index)?;
    }
    program::execute(&mut plan.process, Some(&plan.hooks), terminal, wires, reporter)
}

/// Mounts, devices, and the change of root; answers the terminal, which is of the container's own devpts.
fn build_root(plan: &Plan, parent: Fd) -> Result<Option<Fd>, Failure> {
    let rootfs = &plan.rootfs;
    mount::set_propagation(c"/", rootfs.propagation).at(Step::Propagation)?;
    if rootfs.propagation & libc::MS_SHARED != 0 {
        rootfs::isolate_parent(&rootfs.path).at(Step::Propagation)?;
    }
    // What is made has exactly the mode that the plan says.
    fs::umask(0);
    let root = rootfs::attach_root(&rootfs.path).at(Step::Root)?;
    for (index, operation) in rootfs.operations.iter().enumerate() {
        rootfs::perform(root, operation).at_nth(Step::Operation, index)?;
    }
    populate_dev(root, rootfs)?;
    let terminal = match plan.process.terminal {
        Some(size) => Some(terminal::open(root, c"dev/pts/ptmx", size, parent)?),
        None => None,
    };
    if let (Some(terminal), Some(console)) = (terminal, &rootfs.console) {
        terminal::cover_console(root, terminal, console).at(Step::Console)?;
    }
    if let Some(cwd) = &rootfs.cwd {
        let made = rootfs::open_or_make(root, cwd, Kind::Directory, Resolve::InRoot).at(Step::Cwd)?;
        made.close();
    }
    if plan.hooks_before_pivot {
        socket::send(parent, &Message::BeforePivot.encode(), None).at(Step::Parent)?;
        isolate::await_parent(parent)?;
    }
    if !plan.hooks.create_container.is_empty() {
        let stages = hook::Stages {
            stage: Stage::CreateContainer,
            hooks: &plan.hooks.create_container,
            state: &plan.hooks.creating,
            environment: &plan.process.environment,
        };
        hook::run_all(&stages, parent, || fs::fchdir(root))?;
    }
    rootfs::read_only(root, &rootfs.read_only_paths)?;
    rootfs::mask(root, &rootfs.masked)?;
    if rootfs.read_only {
        mount::set_attributes(root, &Attributes::READ_ONLY, Extent::Mount).at(Step::ReadOnlyRoot)?;
    }
    rootfs::change_root(root, rootfs.no_pivot).at(Step::Pivot)?;
    root.close();
    if let Some(propagation) = rootfs.root_propagation {
        mount::set_propagation(c"/", propagation).at(Step::RootPropagation)?;
    }
    Ok(terminal)
}

fn populate_dev(root: Fd, rootfs: &RootfsPlan) -> Result<(), Failure> {
    for (index, device) in rootfs.devices.iter().enumerate() {
        rootfs::make_device(root, device).at_nth(Step::Device, index)?;
    }
    for (index, link) in rootfs.links.iter().enumerate() {
        rootfs::make_link(root, link).at_nth(Step::Link, index)?;
    }
    Ok(())
}
