//! Device rules as an eBPF program, which is what v2 has in place of the devices controller.
//!
//! The program gets type, access and numbers of a device and answers 1 (may) or 0 (may not)
//! ([cgroup-v2, device controller]). It decides as the v1 controller does: an exception that allows must allow
//! all of the access asked for, an exception that denies denies when it touches any of it.
//!
//! [cgroup-v2, device controller]: https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::Error;
use super::devices::{Access, DeviceRules};
use crate::sys::bpf::{self, Instruction};

// Registers and operations of eBPF (Documentation/bpf/standardization/instruction-set.rst).
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
/// Free for use once the context was read.
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const COPY: u8 = 0xbc;
const SET: u8 = 0xb4;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_REGISTERS_NOT_EQUAL: u8 = 0x5e;
const JUMP_EQUAL: u8 = 0x16;
const EXIT: u8 = 0x95;

/// Compiles and attaches the rules to the v2 group at `path`.
pub(super) fn attach(rules: &DeviceRules, path: &Path) -> Result<(), Error> {
    let program = bpf::load_device_program(&compile(rules), c"Apache")
        .map_err(|error| Error::io("load the device program for", path, error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let group =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::io("open", path, errno))?;
    bpf::attach_device_program(group.as_fd(), program.as_fd())
        .map_err(|error| Error::io("attach the device program to", path, error))
}

fn compile(rules: &DeviceRules) -> Vec<Instruction> {
    let ins = |code, to: u8, from: u8, offset, immediate| Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    };
    let answer = |allow| [ins(SET, ANSWER, 0, 0, i32::from(allow)), ins(EXIT, 0, 0, 0, 0)];
    // struct bpf_cgroup_dev_ctx { u32 access << 16 | type; u32 major; u32 minor; }
    let mut program = vec![
        ins(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        ins(AND, TYPE, 0, 0, 0xffff),
        ins(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
        ins(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        ins(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        ins(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for (device, access) in &rules.exceptions {
        // Each check that fails jumps behind the exception; the distance is known when it is complete.
        let mut checks = vec![ins(JUMP_NOT_EQUAL, TYPE, 0, 0, if device.block { 1 } else { 2 })];
        if *access != Access::ALL {
            checks.push(ins(COPY, SCRATCH, ACCESS, 0, 0));
            checks.push(ins(AND, SCRATCH, 0, 0, i32::from(access.bits())));
            checks.push(if rules.allow_by_default {
                ins(JUMP_EQUAL, SCRATCH, 0, 0, 0)
            } else {
                ins(JUMP_REGISTERS_NOT_EQUAL, SCRATCH, ACCESS, 0, 0)
            });
        }
        for (register, number) in [(MAJOR, device.major), (MINOR, device.minor)] {
            // 32-bit comparisons: numbers past i32::MAX compare by their bits.
            checks.extend(number.map(|it| ins(JUMP_NOT_EQUAL, register, 0, 0, it.cast_signed())));
        }
        let behind = checks.len() + answer(true).len();
        for (index, check) in checks.iter_mut().enumerate() {
            if matches!(check.code, JUMP_NOT_EQUAL | JUMP_REGISTERS_NOT_EQUAL | JUMP_EQUAL) {
                check.offset = (behind - index - 1) as i16;
            }
        }
        program.extend(checks);
        program.extend(answer(!rules.allow_by_default));
    }
    program.extend(answer(rules.allow_by_default));
    program
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::devices::Device;
    use super::*;
    use crate::spec::oci::{LinuxDeviceCgroup, LinuxDeviceType};

    /// Runs a program as the kernel would, for the instructions that the compiler knows.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0usize;
        loop {
            let step = program[at];
            let (to, from) = (usize::from(step.registers & 15), usize::from(step.registers >> 4));
            let number = step.immediate.cast_unsigned();
            let jumps = match step.code {
                LOAD_WORD => {
                    assert_eq!(from, usize::from(CONTEXT));
                    registers[to] = context[step.offset as usize / 4];
                    false
                }
                AND => {
                    registers[to] &= number;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= number;
                    false
                }
                COPY => {
                    registers[to] = registers[from];
                    false
                }
                SET => {
                    registers[to] = number;
                    false
                }
                JUMP_NOT_EQUAL => registers[to] != number,
                JUMP_EQUAL => registers[to] == number,
                JUMP_REGISTERS_NOT_EQUAL => registers[to] != registers[from],
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            };
            at = at
                + 1
                + if jumps {
                    usize::try_from(step.offset).unwrap()
                } else {
                    0
                };
        }
    }

    /// What the v1 controller decides.
    fn naive(rules: &DeviceRules, kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let hit = rules.exceptions.iter().any(|(device, held)| {
            let held = u32::from(held.bits());
            let covers = if rules.allow_by_default {
                held & access != 0
            } else {
                access & !held == 0
            };
            covers
                && kind == if device.block { 1 } else { 2 }
                && device.major.is_none_or(|number| number == major)
                && device.minor.is_none_or(|number| number == minor)
        });
        hit != rules.allow_by_default
    }

    fn access(bits: u8) -> Access {
        let letters: String = [(1, 'm'), (2, 'r'), (4, 'w')]
            .iter()
            .filter(|(bit, _)| bits & bit != 0)
            .map(|(_, it)| it)
            .collect();
        let rule = LinuxDeviceCgroup {
            allow: true,
            typ: Some(LinuxDeviceType::C),
            major: Some(99),
            minor: Some(99),
            access: letters,
        };
        let compiled = DeviceRules::compile(&[rule]).unwrap();
        compiled.exceptions[&Device {
            major: Some(99),
            minor: Some(99),
            block: false,
        }]
    }

    proptest::proptest! {
        #[test]
        fn the_program_decides_as_the_v1_controller(
            allow_by_default: bool,
            exceptions in proptest::collection::vec(
                (proptest::option::of(0u32..4), proptest::option::of(0u32..4), proptest::bool::ANY, 1u8..8), 0..6),
            kind in 1u32..3, asked in 1u32..8, major in 0u32..5, minor in 0u32..5,
        ) {
            let exceptions: BTreeMap<Device, Access> = exceptions
                .into_iter()
                .map(|(major, minor, block, bits)| (Device { major, minor, block }, access(bits)))
                .collect();
            let rules = DeviceRules { allow_by_default, exceptions };
            let program = compile(&rules);
            proptest::prop_assert_eq!(
                run(&program, kind, asked, major, minor),
                naive(&rules, kind, asked, major, minor)
            );
        }
    }
}
