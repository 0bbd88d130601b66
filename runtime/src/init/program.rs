//! The last steps of the child half: from a standing container to the user's program.

use std::convert::Infallible;

use super::step::{At, Failure, Message, Stage, Step};
use super::{Wires, gate, hook, identity, isolate, terminal};
use crate::lookup;
use crate::plan::{Hooks, ProcessPlan};
use crate::seccomp::Program;
use crate::sys::fd::Closing;
use crate::sys::fs::{self, Resolve};
use crate::sys::{Errno, Fd, credentials, process, socket};

/// The most of `/etc/passwd` that is searched for the home directory.
const MAX_PASSWD_BYTES: usize = 1 << 20;

pub(super) fn execute(
    plan: &mut ProcessPlan,
    hooks: Option<&Hooks>,
    terminal: Option<Fd>,
    wires: &Wires,
    reporter: &mut Fd,
) -> Result<Infallible, Failure> {
    if let Some(terminal) = terminal {
        terminal::take(terminal).at(Step::Terminal)?;
    }
    limit(plan)?;
    if plan.look_up_home {
        look_up_home(plan);
    }
    give_streams(plan).at(Step::StreamOwner)?;
    if let Some(label) = &plan.label {
        isolate::write_private_proc(wires.proc, &label.file, &label.value, Resolve::InRoot)
            .at(Step::Label)?;
    }
    // As root first: root may enter a directory that the user may stand in but not reach. As the user
    // otherwise: root of a user namespace may not enter what the user owns on a network file system.
    let entered = match fs::chdir(&plan.cwd) {
        Err(errno) if errno.number() == libc::EACCES || errno.number() == libc::EPERM => false,
        answer => answer.map(|()| true).at(Step::Chdir)?,
    };
    identity::assume(plan)?;
    if !entered {
        fs::chdir(&plan.cwd).at(Step::Chdir)?;
    }
    // A path like /proc/self/fd/7 leads to wherever that descriptor is (CVE-2024-21626).
    if !fs::cwd_is_inside().at(Step::CwdInside)? {
        return Err(Errno::new(libc::ENOENT)).at(Step::CwdInside);
    }
    fs::umask(plan.umask);
    let first = find(plan).at(Step::Find)?;
    if let (Some(filter), Some(from)) = (&mut plan.seccomp, wires.filter) {
        filter.receive(from).at(Step::Seccomp)?;
        from.close();
    }
    // Who listens is told while the container is created: without a listener there is no container.
    // Behind such a filter each call may be the listener's to answer: the fewer the better.
    let listens = listens(plan);
    let signals = match wires.gate {
        Some(_) if !listens => gate::hear_signals().at(Step::Gate)?,
        _ => None,
    };
    if listens {
        filter(plan, *reporter)?;
    }
    if let Some(gate) = wires.gate {
        if wires.show_at_gate {
            if let Some(proc) = wires.proc {
                proc.close();
            }
            credentials::set_dumpable(true).at(Step::Gate)?;
        }
        socket::tell(*reporter, &Message::Ready.encode()).at(Step::Gate)?;
        // The parent is not waited for any more, and may be gone; the starter takes its place.
        let parent = *reporter;
        *reporter = gate::wait(gate, signals).at(Step::Gate)?;
        parent.close();
        gate.close();
    }
    for (resource, soft, hard) in plan.rlimits.iter().filter(|limit| is_nofile(limit)) {
        process::set_rlimit(*resource, *soft, *hard).at(Step::Rlimit)?;
    }
    if let Some(hooks) = hooks.filter(|hooks| !hooks.start_container.is_empty()) {
        run_hooks(plan, hooks, wires.proc, *reporter)?;
    }
    isolate::close_range(wires.proc, wires.first_undeclared, u32::MAX, Closing::OnExec)
        .at(Step::CloseDescriptors)?;
    socket::tell(*reporter, &Message::Executing.encode()).at(Step::Gate)?;
    if !listens {
        // As late as can be: what follows are calls that the profile must allow.
        filter(plan, *reporter)?;
    }
    Err(become_program(plan, first)).at(Step::Execute)
}

fn listens(plan: &ProcessPlan) -> bool {
    plan.seccomp.as_ref().is_some_and(Program::has_listener)
}

/// Puts the filter in force, hands its listener to the parent, and drops what loading it took.
fn filter(plan: &ProcessPlan, parent: Fd) -> Result<(), Failure> {
    let Some(filter) = &plan.seccomp else {
        return Ok(());
    };
    let listener = credentials::set_seccomp(filter).at(Step::Seccomp)?;
    if filter.has_listener() {
        socket::tell(parent, &Message::Listener(listener).encode()).at(Step::Listener)?;
        // Whoever listens may already be asked about this very call.
        match socket::hear(parent, &mut [0]) {
            Ok(0) => return Err(Errno::new(libc::EPIPE)).at(Step::Listener),
            answer => answer.map(drop).at(Step::Listener)?,
        }
        // It would outlive the listener's end: nobody would be told that calls have nobody to answer them.
        Fd::at(listener).close();
    }
    identity::finish(plan)
}

/// The hooks of the container run as its program will: in its namespaces, with its user and privileges, behind its filter.
fn run_hooks(plan: &ProcessPlan, hooks: &Hooks, proc: Option<Fd>, reporter: Fd) -> Result<(), Failure> {
    let stages = hook::Stages {
        stage: Stage::StartContainer,
        hooks: &hooks.start_container,
        state: &hooks.created,
        environment: &plan.environment,
        proc,
    };
    hook::run_all(&stages, reporter, || {
        // A filter with a listener is in force already, and there is but one listener.
        if listens(plan) {
            return Ok(());
        }
        if let Some(filter) = &plan.seccomp {
            credentials::set_seccomp(filter)?;
        }
        identity::finish(plan).map_err(|failure| failure.errno)
    })
}

/// What the process inherits to its program besides its identity.
fn limit(plan: &ProcessPlan) -> Result<(), Failure> {
    for (index, limit) in plan.rlimits.iter().enumerate() {
        let (resource, soft, hard) = *limit;
        // The child half itself still opens descriptors; lowering the soft limit later needs no privilege.
        let soft = if is_nofile(limit) { hard } else { soft };
        process::set_rlimit(resource, soft, hard).at_nth(Step::Rlimit, index)?;
    }
    if let Some(priority) = plan.io_priority {
        process::set_io_priority(priority).at(Step::IoPriority)?;
    }
    if let Some(scheduling) = &plan.scheduling {
        process::set_scheduling(scheduling).at(Step::Scheduling)?;
    }
    if let Some(policy) = &plan.memory_policy {
        process::set_memory_policy(policy.mode, &policy.nodes).at(Step::MemoryPolicy)?;
    }
    if let Some(domain) = plan.personality {
        process::set_personality(domain).at(Step::Personality)?;
    }
    Ok(())
}

fn is_nofile((resource, ..): &(u32, u64, u64)) -> bool {
    // Signed with some C libraries.
    let nofile: u32 = libc::RLIMIT_NOFILE as _;
    *resource == nofile
}

/// Lets the user open `/dev/stdout` and its likes again. Devices that many share stay as they are.
fn give_streams(plan: &ProcessPlan) -> Result<(), Errno> {
    if plan.uid == 0 {
        return Ok(());
    }
    for number in 0..3 {
        let stream = Fd::at(number);
        let stat = match fs::stat(stream, c"") {
            // A stream that is closed needs no owner.
            Err(errno) if errno.number() == libc::EBADF => continue,
            answer => answer?,
        };
        if stat.uid == plan.uid || stat.is_character(1, 3) {
            continue;
        }
        match fs::fchown_user(stream, plan.uid) {
            // An id that a user namespace does not map, a file system that is read-only or has no owners: the
            // program can use the stream, only not open it once more (as runc).
            Err(errno) if [libc::EINVAL, libc::EPERM, libc::EROFS].contains(&errno.number()) => {}
            answer => answer?,
        }
    }
    Ok(())
}

/// The index of the first candidate that may be executed.
fn find(plan: &ProcessPlan) -> Result<usize, Errno> {
    let mut error = Errno::new(libc::ENOENT);
    for (index, candidate) in plan.candidates.iter().enumerate() {
        match fs::may_execute(candidate) {
            // Who may search a directory "may execute" it.
            Ok(()) if fs::is_directory(candidate) => error = Errno::new(libc::EACCES),
            Ok(()) => return Ok(index),
            Err(errno) if errno.number() == libc::ENOENT || errno.number() == libc::ENOTDIR => {}
            Err(errno) => error = errno,
        }
    }
    Err(error)
}

fn become_program(plan: &ProcessPlan, first: usize) -> Errno {
    let mut error = Errno::new(libc::ENOENT);
    for candidate in plan.candidates.iter().skip(first) {
        error = process::execve(candidate, &plan.arguments, &plan.environment);
        // A directory of that name in one place of PATH does not hide the program in the next.
        if error.number() != libc::EACCES && error.number() != libc::ENOENT {
            break;
        }
    }
    error
}

/// Sets `HOME` to what the container's `/etc/passwd` says about the user. Without an answer it stays `/`.
fn look_up_home(plan: &mut ProcessPlan) {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let Ok(passwd) = lookup::open(Fd::CWD, c"/etc/passwd", flags, Resolve::InRoot) else {
        return;
    };
    // A FIFO or a device would answer at its own will, if at all.
    let is_file = fs::stat(passwd, c"").is_ok_and(|stat| stat.mode & libc::S_IFMT == libc::S_IFREG);
    if is_file {
        search_passwd(passwd, plan);
    }
    passwd.close();
}

fn search_passwd(passwd: Fd, plan: &mut ProcessPlan) {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    let (mut filled, mut total) = (0, 0);
    while total < MAX_PASSWD_BYTES {
        let Some(rest) = buffer.get_mut(filled..) else {
            return;
        };
        let Ok(count) = fs::read(passwd, rest) else {
            return;
        };
        total += count;
        filled += count;
        let text = buffer.get(..filled).unwrap_or_default();
        let end = match text.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => newline + 1,
            // The last line may lack its end; a line longer than the buffer is nobody's.
            None if count == 0 || filled == buffer.len() => filled,
            None => continue,
        };
        let lines = text.get(..end).unwrap_or_default();
        if let Some(home) = lines
            .split(|byte| *byte == b'\n')
            .find_map(|line| home_of(line, plan.uid))
        {
            // A home that does not fit is none; the default stays.
            let _fits = plan.environment.fill_room(&[b"HOME=", home]);
            return;
        }
        if count == 0 {
            return;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

/// The sixth field of a line whose third is `uid`.
fn home_of(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|byte| *byte == b':');
    let id = fields.nth(2)?;
    if id.is_empty() || id.len() > 10 || !id.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = id
        .iter()
        .fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    let home = fields.nth(2)?;
    (value == u64::from(uid) && !home.is_empty()).then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_the_sixth_field_of_the_line_with_the_uid() {
        assert_eq!(home_of(b"root:x:0:0:root:/root:/bin/sh", 0), Some(&b"/root"[..]));
        assert_eq!(home_of(b"u:x:1000:0::/home/u:", 1000), Some(&b"/home/u"[..]));
        for line in [
            "root:x:0:0:root::/bin/sh",
            "root:x::0:root:/r:",
            "root:x:-0:0:r:/r:",
            "x",
            "",
            "a:b:0",
        ] {
            assert_eq!(home_of(line.as_bytes(), 0), None, "{line}");
        }
        assert_eq!(home_of(b"u:x:4294967296:0::/h:", 0), None);
    }
}
