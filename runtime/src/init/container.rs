//! The first process of a container: it builds the container around itself.

use std::convert::Infallible;
use std::ops::Range;

use super::step::{At, Failure, Message, STAGING, Stage, Step};
use super::{Wires, hook, isolate, program, terminal};
use crate::lookup::{self, Kind};
use crate::plan::{Late, Operation, Plan, ProcessPlan, RootfsPlan};
use crate::rootfs::{self, Maker, Parents, Site, Way};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{Errno, Fd, fd, process, socket};

pub(super) fn perform(plan: &mut Plan, wires: &Wires, reporter: &mut Fd) -> Result<Infallible, Failure> {
    if wires.usher.is_none() {
        isolate::keep_privileges(wires)?;
    }
    // While the id maps are written the process must be dumpable for an unprivileged parent. It is alone so far:
    // its user namespace is new.
    if plan.mappings.is_none() {
        isolate::hide()?;
    }
    match wires.meanwhile {
        None => {
            if wires.usher.is_none() {
                isolate::enter_cgroups(wires)?;
                isolate::leave_caller(wires)?;
            }
            isolate::set_affinity(&plan.process)?;
        }
        Some(meanwhile) => {
            isolate::leave_caller(wires)?;
            if meanwhile.namespaces != 0 {
                process::unshare(meanwhile.namespaces).at(Step::Unshare)?;
            }
            if plan.namespaces.loopback {
                socket::loopback_up().at(Step::Loopback)?;
            }
            if !meanwhile.mounts {
                enter_awaited_cgroups(&plan.process, wires)?;
            }
        }
    }
    isolate::wait_for_parent(wires)?;
    isolate::join(wires)?;
    process::unshare(plan.namespaces.unshare).at(Step::Unshare)?;
    if let Some(offsets) = &plan.namespaces.time_offsets {
        // Before the change of user, which makes the process's own files in /proc the host's root's.
        isolate::write_time_offsets(offsets).at(Step::TimeOffsets)?;
    }
    if plan.namespaces.has(libc::CLONE_NEWUSER) {
        isolate::become_root(wires.drop_groups)?;
        isolate::hide()?;
    }
    isolate::new_session(&plan.process)?;
    if plan.namespaces.loopback && wires.meanwhile.is_none() {
        socket::loopback_up().at(Step::Loopback)?;
    }
    if let Some(name) = &plan.hostname {
        process::set_hostname(name).at(Step::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        process::set_domainname(name).at(Step::Domainname)?;
    }
    let terminal = make_root(plan, wires, *reporter)?;
    if terminal.is_none() {
        reopen_null(&plan.rootfs).at(Step::NullStreams)?;
    }
    for (index, (path, value)) in plan.sysctls.iter().enumerate() {
        isolate::write_private_proc(wires.proc, path, value, Resolve::Beneath).at_nth(Step::Sysctl, index)?;
    }
    program::execute(&mut plan.process, Some(&plan.hooks), terminal, wires, reporter)
}

/// Waits for the v1 control groups that the parent makes meanwhile, and enters them.
fn enter_awaited_cgroups(process: &ProcessPlan, wires: &Wires) -> Result<(), Failure> {
    isolate::await_cgroups(wires.parent)?;
    isolate::set_affinity(process)
}

/// Mounts, devices, and the change of root; answers the terminal, which is of the container's own devpts.
fn make_root(plan: &mut Plan, wires: &Wires, parent: Fd) -> Result<Option<Fd>, Failure> {
    let rootfs = &plan.rootfs;
    if let Some(propagation) = rootfs.propagation {
        mount::set_propagation(c"/", propagation).at(Step::Propagation)?;
        // What is attached to a shared mount spreads, and what is in an unbindable one cannot be bound.
        if propagation & (libc::MS_SHARED | libc::MS_UNBINDABLE) != 0 {
            rootfs::isolate_parent(&rootfs.path).at(Step::Propagation)?;
        }
    }
    // What is made has exactly the mode that the plan says.
    fs::umask(0);
    let staging = match rootfs.staging {
        true => Some(rootfs::ask_for(parent, STAGING).at(Step::Staging)?),
        false => None,
    };
    let maker = Maker::new(staging).at(Step::Staging)?;
    if rootfs.way != Way::Chroot {
        let root = rootfs::attach_root(maker, &rootfs.path).at(Step::Root)?;
        return build_root(plan, wires, Site::new(root, maker, parent).at(Step::Root)?);
    }
    // In the host's mount namespace nothing may spread, and nothing may stay when it fails.
    let root = match rootfs::attach_root(maker, &rootfs.path).at(Step::Root) {
        Ok(root) => root,
        Err(failure) => {
            maker.abandon();
            return Err(failure);
        }
    };
    let private = Attributes::new(0, 0, libc::MS_PRIVATE);
    let built = rootfs::set_attributes(root, &private, Extent::Tree)
        .and_then(|()| Site::new(root, maker, parent))
        .at(Step::Root)
        .and_then(|site| build_root(plan, wires, site));
    if built.is_err() {
        // The first failure is the one to tell.
        let undone = mount::detach(&plan.rootfs.path);
        debug_assert!(undone.is_ok());
        maker.abandon();
    }
    built
}

/// Streams that are the host's null device become the container's: what a container holds should be its own. Where `/dev`
/// is the host's they are that already.
fn reopen_null(rootfs: &RootfsPlan) -> Result<(), Errno> {
    if rootfs.devices.is_empty() {
        return Ok(());
    }
    let is_null = |file| fs::stat(file, c"").is_ok_and(|stat| stat.is_character(1, 3));
    let mut null = None;
    for number in 0..3 {
        let stream = Fd::at(number);
        if !is_null(stream) {
            continue;
        }
        let own = match null {
            Some(own) => own,
            None => {
                let flags = libc::O_RDWR | libc::O_NOCTTY;
                lookup::open(Fd::CWD, c"/dev/null", flags, Resolve::Host)?
            }
        };
        null = Some(own);
        if !is_null(own) {
            return Err(Errno::new(libc::ENODEV));
        }
        fd::duplicate_to(own, stream)?;
    }
    if let Some(own) = null {
        own.close();
    }
    Ok(())
}

fn build_root(plan: &mut Plan, wires: &Wires, site: Site) -> Result<Option<Fd>, Failure> {
    let (root, parent) = (site.root, site.parent);
    let has_hooks = plan.hooks_before_pivot || !plan.hooks.create_container.is_empty();
    let mut awaits_cgroups = wires.mounts_before_groups();
    let (groupless, all) = (plan.rootfs.groupless, plan.rootfs.operations.len());
    // Hooks see the whole container, from its groups.
    let early = match awaits_cgroups {
        true if plan.rootfs.entries_last && !has_hooks => groupless,
        _ => all,
    };
    let mut directory = None;
    if awaits_cgroups && groupless < early {
        perform_all(&mut plan.rootfs, site, 0..groupless, &mut directory)?;
        enter_awaited_cgroups(&plan.process, wires)?;
        awaits_cgroups = false;
        perform_all(&mut plan.rootfs, site, groupless..early, &mut directory)?;
    } else {
        perform_all(&mut plan.rootfs, site, 0..early, &mut directory)?;
    }
    let rootfs = &plan.rootfs;
    populate_dev(site, rootfs)?;
    let terminal = match plan.process.terminal {
        Some(size) => Some(terminal::open(root, c"dev/pts/ptmx", size, parent)?),
        None => None,
    };
    if let (Some(terminal), Some(console)) = (terminal, &rootfs.console) {
        terminal::cover_console(site, terminal, console, rootfs.console_made).at(Step::Console)?;
    }
    if let Some(cwd) = &rootfs.cwd {
        let made = lookup::open_or_make(root, &cwd.path, Kind::Directory, Resolve::InRoot).at(Step::Cwd)?;
        made.close();
    }
    if awaits_cgroups && has_hooks {
        enter_awaited_cgroups(&plan.process, wires)?;
        awaits_cgroups = false;
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
            proc: wires.proc,
        };
        hook::run_all(&stages, parent, || fs::fchdir(root))?;
    }
    rootfs::read_only(site, &rootfs.read_only_paths)?;
    rootfs::mask(site, &rootfs.masked, &rootfs.empty)?;
    if awaits_cgroups {
        enter_awaited_cgroups(&plan.process, wires)?;
    }
    perform_all(&mut plan.rootfs, site, early..all, &mut directory)?;
    let rootfs = &plan.rootfs;
    for late in &rootfs.late {
        if late.read_only {
            rootfs::set_attributes(late.mount, &Attributes::READ_ONLY, Extent::Mount)
                .at(Step::ReadOnlyMount)?;
        }
        late.mount.close();
    }
    if rootfs.read_only {
        rootfs::set_attributes(root, &Attributes::READ_ONLY, Extent::Mount).at(Step::ReadOnlyRoot)?;
    }
    site.maker.finish().at(Step::Staging)?;
    for (index, view) in rootfs.hidden.iter().enumerate() {
        rootfs::hide_whole(view).at_nth(Step::Hidden, index)?;
    }
    rootfs::change_root(root, rootfs.way).at(Step::Pivot)?;
    root.close();
    if let Some(propagation) = rootfs.root_propagation {
        mount::set_propagation(c"/", propagation).at(Step::RootPropagation)?;
    }
    Ok(terminal)
}

/// Performs the operations of a range; `directory` is the last mount that has entries.
fn perform_all(
    rootfs: &mut RootfsPlan,
    site: Site,
    range: Range<usize>,
    directory: &mut Option<Fd>,
) -> Result<(), Failure> {
    let operations = rootfs.operations.iter().enumerate();
    for (index, operation) in operations.skip(range.start).take(range.len()) {
        let kept = rootfs::perform(site, index, operation, *directory).at_nth(Step::Operation, index)?;
        let (Some(kept), Operation::Mount(mount)) = (kept, operation) else {
            continue;
        };
        if mount.has_entries {
            *directory = Some(kept);
        }
        // The plan has room for all of them.
        debug_assert!(rootfs.late.len() < rootfs.late.capacity());
        rootfs.late.push(Late {
            mount: kept,
            read_only: mount.late_read_only,
        });
    }
    Ok(())
}

fn populate_dev(site: Site, rootfs: &RootfsPlan) -> Result<(), Failure> {
    let mut parents = Parents::new(site.root);
    for (index, device) in rootfs.devices.iter().enumerate() {
        rootfs::make_device(site, &mut parents, device).at_nth(Step::Device, index)?;
    }
    for (index, link) in rootfs.links.iter().enumerate() {
        rootfs::make_link(site.root, &mut parents, link).at_nth(Step::Link, index)?;
    }
    parents.close();
    Ok(())
}
