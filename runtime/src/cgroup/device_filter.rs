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
const JUMP_REGISTERS_EQUAL: u8 = 0x1e;
const JUMP_EQUAL: u8 = 0x16;
const JUMP: u8 = 0x05;
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

/// By type, then by major number: so no device is compared with a number twice, which the kernel would have to follow each way of
/// when it verifies the program, for longer than all else about it takes.
fn compile(rules: &DeviceRules) -> Vec<Instruction> {
    let mut filter = Filter {
        // struct bpf_cgroup_dev_ctx { u32 access << 16 | type; u32 major; u32 minor; }
        program: vec![
            ins(LOAD_WORD, TYPE, CONTEXT, 0, 0),
            ins(AND, TYPE, 0, 0, 0xffff),
            ins(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
            ins(SHIFT_RIGHT, ACCESS, 0, 0, 16),
            ins(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
            ins(LOAD_WORD, MINOR, CONTEXT, 8, 0),
        ],
        hits: Vec::new(),
        misses: Vec::new(),
        allow_by_default: rules.allow_by_default,
    };
    for (block, number) in [(false, 2), (true, 1)] {
        let held: Vec<_> = rules
            .exceptions
            .iter()
            .filter(|(device, _)| device.block == block)
            .map(|(device, access)| (device.major, device.minor, *access))
            .collect();
        filter.kind(number, &held);
    }
    filter.end()
}

fn ins(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

/// An exception of a type, by its numbers.
type Exception = (Option<u32>, Option<u32>, Access);

struct Filter {
    program: Vec<Instruction>,
    /// The jumps to where an exception holds.
    hits: Vec<usize>,
    /// The jumps to where none does.
    misses: Vec<usize>,
    allow_by_default: bool,
}

impl Filter {
    fn push(&mut self, instruction: Instruction) -> usize {
        self.program.push(instruction);
        self.program.len() - 1
    }

    /// Compares with a number. 32 bits: those past `i32::MAX` compare by them.
    fn compare(&mut self, code: u8, register: u8, number: u32) -> usize {
        self.push(ins(code, register, 0, 0, number.cast_signed()))
    }

    /// Makes the jump at `index` lead to what comes next.
    fn land(&mut self, index: usize) {
        self.program[index].offset = (self.program.len() - index - 1) as i16;
    }

    /// All exceptions of one type.
    fn kind(&mut self, number: u32, exceptions: &[Exception]) {
        if exceptions.is_empty() {
            return;
        }
        if exceptions.contains(&(None, None, Access::ALL)) {
            let hit = self.compare(JUMP_EQUAL, TYPE, number);
            return self.hits.push(hit);
        }
        let other = self.compare(JUMP_NOT_EQUAL, TYPE, number);
        for (major, minor, access) in exceptions {
            if major.is_none() {
                self.exception(*minor, *access);
            }
        }
        // They are sorted.
        for group in exceptions.chunk_by(|one, next| one.0 == next.0) {
            if let Some(major) = group[0].0 {
                self.major(major, group);
            }
        }
        let miss = self.push(ins(JUMP, 0, 0, 0, 0));
        self.misses.push(miss);
        self.land(other);
    }

    /// The exceptions of one major number.
    fn major(&mut self, major: u32, exceptions: &[Exception]) {
        if exceptions.contains(&(Some(major), None, Access::ALL)) {
            let hit = self.compare(JUMP_EQUAL, MAJOR, major);
            return self.hits.push(hit);
        }
        let other = self.compare(JUMP_NOT_EQUAL, MAJOR, major);
        for (_, minor, access) in exceptions {
            self.exception(*minor, *access);
        }
        let miss = self.push(ins(JUMP, 0, 0, 0, 0));
        self.misses.push(miss);
        self.land(other);
    }

    /// One exception, of whose type and major number the device is.
    fn exception(&mut self, minor: Option<u32>, access: Access) {
        if let (Some(minor), Access::ALL) = (minor, access) {
            let hit = self.compare(JUMP_EQUAL, MINOR, minor);
            return self.hits.push(hit);
        }
        let other = minor.map(|minor| self.compare(JUMP_NOT_EQUAL, MINOR, minor));
        self.push(ins(COPY, SCRATCH, ACCESS, 0, 0));
        self.push(ins(AND, SCRATCH, 0, 0, i32::from(access.bits())));
        let hit = self.push(match self.allow_by_default {
            true => ins(JUMP_NOT_EQUAL, SCRATCH, 0, 0, 0),
            false => ins(JUMP_REGISTERS_EQUAL, SCRATCH, ACCESS, 0, 0),
        });
        self.hits.push(hit);
        if let Some(other) = other {
            self.land(other);
        }
    }

    /// The answers. Nothing may stand in the program that is never reached.
    fn end(mut self) -> Vec<Instruction> {
        for miss in std::mem::take(&mut self.misses) {
            self.land(miss);
        }
        self.answer(self.allow_by_default);
        let hits = std::mem::take(&mut self.hits);
        for hit in &hits {
            self.land(*hit);
        }
        if !hits.is_empty() {
            self.answer(!self.allow_by_default);
        }
        self.program
    }

    fn answer(&mut self, allow: bool) {
        self.push(ins(SET, ANSWER, 0, 0, i32::from(allow)));
        self.push(ins(EXIT, 0, 0, 0, 0));
    }
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
                JUMP_REGISTERS_EQUAL => registers[to] == registers[from],
                JUMP => true,
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

    /// How many instructions are reached from the first one. The kernel takes no others.
    fn reached(program: &[Instruction]) -> usize {
        let mut reached = vec![false; program.len()];
        let mut next = vec![0];
        while let Some(at) = next.pop() {
            if std::mem::replace(&mut reached[at], true) {
                continue;
            }
            let step = program[at];
            let target = at + 1 + usize::try_from(step.offset).unwrap();
            match step.code {
                EXIT => {}
                JUMP => next.push(target),
                JUMP_EQUAL | JUMP_NOT_EQUAL | JUMP_REGISTERS_EQUAL => next.extend([at + 1, target]),
                _ => next.push(at + 1),
            }
        }
        reached.iter().filter(|reached| **reached).count()
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
            proptest::prop_assert_eq!(reached(&program), program.len());
            proptest::prop_assert_eq!(
                run(&program, kind, asked, major, minor),
                naive(&rules, kind, asked, major, minor)
            );
        }
    }
}
