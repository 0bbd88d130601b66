//! Running a hook: a child of its own, the state on its standard input, its output kept, its end awaited.
//!
//! Used by the child half for hooks in the container, and by the parent for those beside it. Raw calls on prepared memory only.

use std::convert::Infallible;
use std::mem;

use super::isolate;
use super::step::{At, Failure, HookFailure, Message, Stage, Step};
use crate::plan::{Hook, StateText};
use crate::sys::fd::{self, Closing};
use crate::sys::process::{self, Child, Ended, Notice};
use crate::sys::strings::Strings;
use crate::sys::{Errno, Fd, fs, socket};

/// What of a hook's output there is room for: what it writes beyond is refused to it with `EPERM`.
const OUTPUT_BYTES: usize = 1 << 20;

/// What a shell says of a program that it cannot execute.
const CANNOT_EXECUTE: i32 = 127;

/// How a hook ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// By itself, or killed by somebody.
    Ended(Ended),
    /// Killed, since its time was over.
    TimedOut,
}

impl Ending {
    pub(crate) const GOOD: Self = Self::Ended(Ended::Exited(0));
}

/// The hooks of one stage that the child half runs.
pub(super) struct Stages<'a> {
    pub(super) stage: Stage,
    pub(super) hooks: &'a [Hook],
    pub(super) state: &'a StateText,
    /// For hooks that are given none.
    pub(super) environment: &'a Strings,
    /// The host's procfs, on a kernel that lacks what [`crate::kernel`] tells of.
    pub(super) proc: Option<Fd>,
}

/// Runs them in order. One that fails ends this process, when the parent (or starter) has been told.
///
/// `prepare` runs in each hook's process, before it is executed.
pub(super) fn run_all(
    stages: &Stages<'_>,
    reporter: Fd,
    prepare: impl Fn() -> Result<(), Errno> + Copy,
) -> Result<(), Failure> {
    let mut digits = [0; 10];
    let state = [
        stages.state.before_pid(),
        decimal(process::own_pid(), &mut digits),
        StateText::AFTER_PID,
    ];
    for (index, hook) in stages.hooks.iter().enumerate() {
        let environment = hook.environment.as_ref().unwrap_or(stages.environment);
        let (ending, output) =
            run(hook, environment, &state, stages.proc, prepare).at_nth(Step::Hook, index)?;
        if ending != Ending::GOOD {
            let failure = HookFailure {
                stage: stages.stage,
                index: index as u16,
                ending,
            };
            let told = socket::send(reporter, &Message::Hook(failure).encode(), Some(output));
            process::exit(if told.is_ok() { 1 } else { 2 });
        }
        output.close();
    }
    Ok(())
}

/// Runs one; answers how it ended, and what it wrote to its standard output and standard error.
pub(crate) fn run(
    hook: &Hook,
    environment: &Strings,
    state: &[&[u8]],
    proc: Option<Fd>,
    prepare: impl FnOnce() -> Result<(), Errno>,
) -> Result<(Ending, Fd), Errno> {
    // The state in memory: the hook may read it or not, nobody has to wait for it. The input comes first, so that its number is
    // the lower one, and no stream is overwritten before it was duplicated.
    let input = fs::memory_file(c"state")?;
    for part in state {
        write_all(input, part)?;
    }
    fs::rewind(input)?;
    let output = fs::memory_file(c"output")?;
    fs::fix_size(output, OUTPUT_BYTES)?;
    let become_hook = || -> Infallible {
        let errno = match execute(hook, environment, (input, output), proc, prepare) {
            Err(errno) => errno,
            Ok(never) => match never {},
        };
        // To where its own complaints would go. If that fails there is nobody to tell.
        let _told = write_all(output, b"exec: ")
            .and_then(|()| write_all(output, errno.name().unwrap_or("failed").as_bytes()));
        process::exit(CANNOT_EXECUTE)
    };
    // SAFETY: the body makes raw calls on memory prepared before, and never returns.
    #[allow(unsafe_code)]
    let child = match proc {
        // SAFETY: as above.
        None => unsafe { process::clone_child(0, None, Notice::Nothing, become_hook) }?,
        // SAFETY: as above; its first step is to reset the signals.
        Some(_) => unsafe { process::clone_child_old(0, Notice::Nothing, become_hook) }?,
    };
    input.close();
    let ending = attend(&child, hook.timeout);
    // Closed by hand, as everything here.
    Fd::of(&child.pidfd).close();
    mem::forget(child);
    Ok((ending?, output))
}

fn execute(
    hook: &Hook,
    environment: &Strings,
    (input, output): (Fd, Fd),
    proc: Option<Fd>,
    prepare: impl FnOnce() -> Result<(), Errno>,
) -> Result<Infallible, Errno> {
    process::reset_signals()?;
    fd::duplicate_to(input, Fd::at(0))?;
    fd::duplicate_to(output, Fd::at(1))?;
    fd::duplicate_to(output, Fd::at(2))?;
    isolate::close_range(proc, 3, u32::MAX, Closing::OnExec)?;
    prepare()?;
    Err(process::execve(&hook.path, &hook.arguments, environment))
}

fn attend(child: &Child, timeout: Option<u32>) -> Result<Ending, Errno> {
    let pidfd = Fd::of(&child.pidfd);
    let in_time = process::wait_readable(pidfd, timeout);
    if in_time != Ok(true) {
        match process::pidfd_signal(pidfd, libc::SIGKILL) {
            Err(errno) if errno.number() != libc::ESRCH => return Err(errno),
            _ => {}
        }
    }
    let ended = process::wait(pidfd)?;
    Ok(match in_time? {
        true => Ending::Ended(ended),
        false => Ending::TimedOut,
    })
}

fn write_all(file: Fd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = fs::write(file, bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// The digits of a number that is not negative.
fn decimal(number: i32, digits: &mut [u8; 10]) -> &[u8] {
    let mut left = number.max(0);
    let mut first = digits.len();
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        first = index;
        if left == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_all_their_digits() {
        for number in [0, 7, 10, 4711, i32::MAX] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string().as_bytes());
        }
    }
}
