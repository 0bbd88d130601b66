//! Profiles from bytes: plausible ones, contradictory ones, huge ones.

use super::bytes::Bytes;
use super::filter;
use super::runtime::seccomp::{Machine, compile_for};
use super::runtime::spec::oci::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

const NAMES: [&str; 24] = [
    "read",
    "write",
    "openat2",
    "clone",
    "clone3",
    "socket",
    "connect",
    "accept",
    "shmget",
    "semtimedop",
    "socketcall",
    "ipc",
    "arch_prctl",
    "waitpid",
    "set_tls",
    "cacheflush",
    "rt_sigaction",
    "execve",
    "uname",
    "futex_requeue",
    "personality",
    "no_such_call",
    "",
    "\0",
];

const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::Allow,
    LinuxSeccompAction::Errno,
    LinuxSeccompAction::Kill,
    LinuxSeccompAction::KillProcess,
    LinuxSeccompAction::KillThread,
    LinuxSeccompAction::Trap,
    LinuxSeccompAction::Trace,
    LinuxSeccompAction::Log,
    LinuxSeccompAction::Notify,
];

const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::Ne,
    LinuxSeccompOperator::Lt,
    LinuxSeccompOperator::Le,
    LinuxSeccompOperator::Eq,
    LinuxSeccompOperator::Ge,
    LinuxSeccompOperator::Gt,
    LinuxSeccompOperator::MaskedEq,
];

const ARCHS: [Arch; 6] = [
    Arch::Native,
    Arch::X86,
    Arch::X32,
    Arch::Arm,
    Arch::Mips64n32,
    Arch::Aarch64,
];

const FLAGS: [LinuxSeccompFlag; 4] = [
    LinuxSeccompFlag::Tsync,
    LinuxSeccompFlag::Log,
    LinuxSeccompFlag::SpecAllow,
    LinuxSeccompFlag::WaitKillableRecv,
];

/// Compiles the profile that the bytes make, and looks at what comes out. Panics when it is not what it should be.
pub fn check(data: &[u8]) {
    let profile = profile(&mut Bytes(data));
    // One of them: the same code makes both.
    let machine = match data.len() % 2 {
        0 => Machine::X86_64,
        _ => Machine::Aarch64,
    };
    let Ok(program) = compile_for(&profile, machine) else {
        return;
    };
    filter::verify(program.instructions());
    assert_eq!(program.flags() & !0b10_1110, 0, "unknown flags");
    let notifies = profile
        .syscalls
        .iter()
        .any(|call| call.action == LinuxSeccompAction::Notify);
    assert_eq!(program.has_listener(), notifies);
    assert!(!notifies || !profile.listener_path.as_os_str().is_empty());
    // The filters of large profiles are long in the making.
    if program.instructions().len() < 500 {
        let again = compile_for(&profile, machine).expect("it compiled before");
        assert_eq!(again, program, "the same profile makes the same filter");
    }
}

fn profile(bytes: &mut Bytes<'_>) -> LinuxSeccomp {
    let shape = bytes.byte();
    let mut profile = LinuxSeccomp {
        default_action: (shape & 1 == 0).then(|| bytes.pick(&ACTIONS)),
        default_errno_ret: (shape & 2 != 0).then(|| bytes.number() as u32),
        flags: (shape & 4 != 0).then(|| (0..bytes.below(4)).map(|_| bytes.pick(&FLAGS)).collect()),
        listener_path: if shape & 8 != 0 {
            "/run/agent".into()
        } else {
            "".into()
        },
        ..LinuxSeccomp::default()
    };
    profile.architectures = (0..bytes.below(5)).map(|_| bytes.pick(&ARCHS)).collect();
    while !bytes.is_empty() {
        let call = call(bytes);
        // A few bytes make many rules: programs that are too large are met, too.
        let times = if bytes.byte() == 0xff { 300 } else { 1 };
        for time in 0..times {
            let mut call = call.clone();
            for argument in &mut call.args {
                argument.value = argument.value.wrapping_add(time);
            }
            profile.syscalls.push(call);
        }
        if profile.syscalls.len() > 2000 {
            break;
        }
    }
    profile
}

fn call(bytes: &mut Bytes<'_>) -> LinuxSyscall {
    let action = bytes.pick(&ACTIONS);
    let names = (0..bytes.below(6))
        .map(|_| bytes.pick(&NAMES).to_owned())
        .collect();
    let errno_ret = match bytes.byte() {
        0..200 => None,
        _ => Some(bytes.number() as u32),
    };
    let argument = |bytes: &mut Bytes<'_>| LinuxSeccompArg {
        index: match bytes.byte() {
            255 => bytes.number(),
            index => u64::from(index) % 6,
        },
        value: bytes.number(),
        value_two: bytes.number(),
        op: bytes.pick(&OPERATORS),
    };
    let args = (0..bytes.below(5)).map(|_| argument(bytes)).collect();
    LinuxSyscall {
        names,
        action,
        errno_ret,
        args,
    }
}
