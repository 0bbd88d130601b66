//! From outcomes to instructions.
//!
//! Classic BPF jumps forward only, and at most 255 instructions by a condition. So the program is built from its
//! end: every target is there before the jump to it, distances are known, and where one is too far a
//! repeated return or an unconditional jump is put in between.

use super::rules::{Condition, Outcome, RET_KILL_THREAD, Rule, Rules, Section};
use super::{Error, Instruction, MAX_INSTRUCTIONS};
use crate::spec::oci::LinuxSeccompOperator as Operator;

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

// struct seccomp_data { int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]; }
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const ARGS: u32 = 16;

pub(super) fn program(rules: &Rules) -> Result<Vec<Instruction>, Error> {
    let mut assembler = Assembler {
        backwards: Vec::with_capacity(512),
        returns: Vec::new(),
    };
    let sections: Vec<(u32, Label)> = rules
        .sections
        .iter()
        .rev()
        .map(|section| (section.token, assembler.section(section, rules.default)))
        .collect();
    let mut next = assembler.push(RETURN, RET_KILL_THREAD);
    for (token, section) in sections {
        next = assembler.branch(JUMP_EQUAL, token, section, next);
    }
    assembler.load(ARCH, next);
    let Assembler { mut backwards, .. } = assembler;
    if backwards.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLarge(backwards.len()));
    }
    backwards.reverse();
    Ok(backwards)
}

/// An instruction, by its distance from the program's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Label(usize);

struct Assembler {
    backwards: Vec<Instruction>,
    /// The nearest instruction that returns each answer.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The whole of one architecture; answers where it begins.
    fn section(&mut self, section: &Section, default: u32) -> Label {
        let mut checks: Vec<(&[Rule], Label)> = Vec::new();
        for (_, outcome) in section.segments.iter().rev() {
            if let Outcome::Check(rules) = outcome
                && !checks.iter().any(|(known, _)| known == rules)
            {
                let label = self.check(rules, default, section.narrow);
                checks.push((rules, label));
            }
        }
        let root = self.tree(&section.segments, &checks);
        self.load(NUMBER, root)
    }

    /// A binary search for the segment of the number that was loaded.
    fn tree(&mut self, segments: &[(u32, Outcome)], checks: &[(&[Rule], Label)]) -> Label {
        if let [(_, outcome)] = segments {
            return match outcome {
                Outcome::Return(answer) => self.answer(*answer),
                // Every check was assembled before; the kernel's refusal is the answer that cannot harm.
                Outcome::Check(rules) => match checks.iter().find(|(known, _)| known == rules) {
                    Some((_, label)) => *label,
                    None => self.answer(RET_KILL_THREAD),
                },
            };
        }
        let (low, high) = segments.split_at(segments.len() / 2);
        let start = high.first().map_or(u32::MAX, |(start, _)| *start);
        let high = self.tree(high, checks);
        let low = self.tree(low, checks);
        self.branch(JUMP_GREATER_EQUAL, start, high, low)
    }

    /// The rules of one call, one after the other.
    fn check(&mut self, rules: &[Rule], default: u32, narrow: bool) -> Label {
        let mut otherwise = self.answer(default);
        for rule in rules.iter().rev() {
            let mut holds = self.answer(rule.answer);
            for condition in rule.conditions.iter().rev() {
                holds = self.condition(condition, narrow, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    fn condition(&mut self, condition: &Condition, narrow: bool, holds: Label, fails: Label) -> Label {
        let [low, high] = halves(condition.value);
        let [low_mask, high_mask] = halves(condition.mask);
        // Both targets have little-endian halves.
        let at = ARGS + 8 * condition.index as u32;
        let (code, holds, fails) = match condition.operator {
            Operator::Eq | Operator::MaskedEq => (JUMP_EQUAL, holds, fails),
            Operator::Ne => (JUMP_EQUAL, fails, holds),
            Operator::Gt => (JUMP_GREATER, holds, fails),
            Operator::Le => (JUMP_GREATER, fails, holds),
            Operator::Ge => (JUMP_GREATER_EQUAL, holds, fails),
            Operator::Lt => (JUMP_GREATER_EQUAL, fails, holds),
        };
        let lower = self.branch(code, low, holds, fails);
        let lower = self.masked_load(at, low_mask, lower);
        if narrow || high_mask == 0 {
            return lower;
        }
        // The upper half decides unless it is equal.
        let unequal = match code {
            JUMP_EQUAL => fails,
            _ => self.branch(JUMP_GREATER, high, holds, fails),
        };
        let upper = self.branch(JUMP_EQUAL, high, lower, unequal);
        self.masked_load(at + 4, high_mask, upper)
    }

    fn masked_load(&mut self, offset: u32, mask: u32, next: Label) -> Label {
        if mask == u32::MAX {
            return self.load(offset, next);
        }
        self.fall_to(next);
        let and = self.push(AND, mask);
        self.load(offset, and)
    }

    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(LOAD, offset)
    }

    fn answer(&mut self, answer: u32) -> Label {
        match self.returns.iter().find(|(known, _)| *known == answer) {
            Some((_, label)) => *label,
            None => {
                let label = self.push(RETURN, answer);
                self.returns.push((answer, label));
                label
            }
        }
    }

    /// A comparison of the loaded value with `operand`.
    fn branch(&mut self, code: u16, operand: u32, holds: Label, fails: Label) -> Label {
        if holds == fails {
            return holds;
        }
        // Bringing one target near moves the other farther, by one instruction each.
        let fails = self.bring_near(fails, 1);
        let holds = self.bring_near(holds, 0);
        let [jt, jf] = [holds, fails].map(|target| self.distance(target) as u8);
        self.backwards.push(Instruction {
            code,
            jt,
            jf,
            k: operand,
        });
        Label(self.backwards.len() - 1)
    }

    /// A label with the same effect within reach of the next conditional jump, were `more` instructions to
    /// come before that.
    fn bring_near(&mut self, target: Label, more: usize) -> Label {
        if self.distance(target) + more <= usize::from(u8::MAX) {
            return target;
        }
        let there = self.backwards[target.0];
        if there.code == RETURN {
            let label = self.push(RETURN, there.k);
            if let Some(known) = self.returns.iter_mut().find(|(answer, _)| *answer == there.k) {
                known.1 = label;
            }
            return label;
        }
        let distance = self.distance(target) as u32;
        self.push(JUMP, distance)
    }

    /// Makes the last instruction be the one to go on with, for an instruction that cannot jump.
    fn fall_to(&mut self, next: Label) {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(JUMP, distance as u32);
        }
    }

    /// How many instructions the next one has to skip.
    fn distance(&self, target: Label) -> usize {
        self.backwards.len() - 1 - target.0
    }

    fn push(&mut self, code: u16, k: u32) -> Label {
        self.backwards.push(Instruction {
            code,
            jt: 0,
            jf: 0,
            k,
        });
        Label(self.backwards.len() - 1)
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
