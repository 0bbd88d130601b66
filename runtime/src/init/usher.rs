//! The usher: a process that joins namespaces, makes the new process there, and ends.
//!
//! A user namespace cannot be joined by a thread of a program with many, nor can one be left again; and whatever is made
//! new belongs to the user namespace of its maker. And who is born in a pid namespace that others live in is before their
//! eyes from then on: its root, its working directory and its descriptors must be the container's already, or whoever may
//! trace it walks through them to the host. The new process is the usher's sibling: its parent is the
//! usher's, who is handed its pidfd. It inherits the control group that the usher was born in.

use std::convert::Infallible;

use super::step::{At, Failure, Message, Step};
use super::{Wires, Work, become_it, fail, isolate};
use crate::sys::process::{clone_sibling, exit};
use crate::sys::{Fd, process, socket};

pub(super) fn perform(work: Work<'_>, wires: &Wires, parent: Fd, namespaces: u64) -> Infallible {
    let made = prepare(wires).and_then(|()| make(work, wires, parent, namespaces));
    let told = made.and_then(|(pid, pidfd)| {
        let message = Message::Born(pid.cast_unsigned()).encode();
        socket::send(parent, &message, Some(pidfd)).at(Step::Usher)
    });
    match told {
        Ok(()) => exit(0),
        Err(failure) => fail(wires.parent, failure),
    }
}

fn prepare(wires: &Wires) -> Result<(), Failure> {
    isolate::keep_privileges(wires)?;
    isolate::hide()?;
    isolate::enter_cgroups(wires)?;
    match wires.join_process {
        // The kernel joins its user namespace first.
        Some((pidfd, kinds)) => process::setns(pidfd, kinds).at(Step::Join)?,
        None => join_by_path(wires)?,
    }
    // Of the host's nothing is left that the new process could be born with.
    isolate::leave_caller(wires)?;
    if !wires.joins_user_namespace() {
        return Ok(());
    }
    isolate::become_root(wires.drop_groups)?;
    // The change of user has undone it, by whatever the host's administrator says of such programs.
    isolate::hide()
}

/// First what belongs to the caller's user namespace, where the privilege over it is; then the user namespace; then
/// what belongs to that.
fn join_by_path(wires: &Wires) -> Result<(), Failure> {
    const USER: u64 = libc::CLONE_NEWUSER as u64;
    let mut later = 0u64;
    for (index, namespace) in wires.join.iter().enumerate() {
        if namespace.kind == USER {
            continue;
        }
        match process::setns(Fd::of(&namespace.fd), namespace.kind) {
            Err(errno) if errno.number() == libc::EPERM => later |= namespace.kind,
            answer => answer.at_nth(Step::Join, index)?,
        }
    }
    for pass in [USER, later] {
        for (index, namespace) in wires.join.iter().enumerate() {
            if namespace.kind & pass != 0 {
                process::setns(Fd::of(&namespace.fd), namespace.kind).at_nth(Step::Join, index)?;
            }
        }
    }
    Ok(())
}

fn make(work: Work<'_>, wires: &Wires, parent: Fd, namespaces: u64) -> Result<(i32, Fd), Failure> {
    let body = || {
        parent.close();
        become_it(work, wires)
    };
    // SAFETY: `become_it` allocates nothing, locks nothing, does not unwind and never returns.
    #[allow(unsafe_code)]
    unsafe { clone_sibling(namespaces, body) }.at(Step::Usher)
}
