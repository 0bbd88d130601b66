//! From outcomes to instructions.
//!
//! Classic BPF jumps forward only, and at most 255 instructions by a condition. So the program is built from its
//! end: every target is there before the jump to it, distances are known, and where one is too far a
//! repeated return or an unconditional jump is put in between.
//!
//! What a filter costs is the kernel's work with it while a container starts: with each of its instructions, and with each that a
//! number of the kernel's own table leads through, as the kernel runs the filter for all of those beforehand to find
//! the calls that it need not be asked about. So single numbers among others of one outcome are told apart by one comparison each, and
//! the search begins where it halves the numbers, not the ranges.

use super::arch::X32_BIT;
use super::rules::{Condition, Outcome, RET_KILL_THREAD, Rule, Rules, Section};
use super::shorten::shorten;
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

/// What is looked into for what is needless.
const MAX_BEFORE: usize = 4 * MAX_INSTRUCTIONS;
/// How many single numbers are asked about one after the other.
const MAX_SINGLES: usize = 4;
/// What a range counts for at most, in numbers: those between the architectures' are nobody's.
const MAX_WEIGHT: u32 = 64;

pub(super) fn program(rules: &Rules) -> Result<Vec<Instruction>, Error> {
    let mut assembler = Assembler {
        backwards: Vec::with_capacity(512),
        returns: Vec::new(),
        checks: Vec::new(),
        without_bit: Label(0),
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
    if backwards.len() > MAX_BEFORE {
        return Err(Error::TooLarge(backwards.len()));
    }
    backwards.reverse();
    let program = shorten(backwards);
    match program.len() {
        ..=MAX_INSTRUCTIONS => Ok(program),
        length => Err(Error::TooLarge(length)),
    }
}

/// An instruction, by its distance from the program's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Label(usize);

struct Assembler<'a> {
    backwards: Vec<Instruction>,
    /// The nearest instruction that returns each answer.
    returns: Vec<(u32, Label)>,
    /// Where the rules of a call begin; calls of several architectures may have the same.
    checks: Vec<(&'a [Rule], Label)>,
    /// The native search for a number without x32's bit, where a section has both.
    without_bit: Label,
}

/// Neighbouring segments, all of one outcome but for single numbers.
struct Group<'a> {
    start: u32,
    usual: &'a Outcome,
    segments: &'a [(u32, Outcome)],
    weight: u32,
}

impl<'a> Group<'a> {
    fn all(segments: &'a [(u32, Outcome)]) -> Vec<Self> {
        let mut groups = Vec::with_capacity(segments.len());
        let mut rest = segments;
        while let [(start, first), further @ ..] = rest {
            let second = further.first().map_or(first, |(_, second)| second);
            let [one, other] = [first, second].map(|usual| reach(rest, usual));
            let usual = if other > one { second } else { first };
            let (segments, behind) = rest.split_at(one.max(other));
            rest = behind;
            let end = rest.first().map_or(u32::MAX, |(end, _)| *end);
            groups.push(Self {
                start: *start,
                usual,
                segments,
                weight: (end - start).clamp(1, MAX_WEIGHT),
            });
        }
        groups
    }
}

/// How many segments from the first on have the `usual` outcome but for single numbers, and few of those.
fn reach(segments: &[(u32, Outcome)], usual: &Outcome) -> usize {
    let mut singles = 0;
    for (index, (start, outcome)) in segments.iter().enumerate() {
        if outcome == usual {
            continue;
        }
        let is_single = match segments.get(index + 1) {
            Some((next, _)) => next - start == 1,
            None => *start == u32::MAX,
        };
        if !is_single || singles == MAX_SINGLES {
            return index;
        }
        singles += 1;
    }
    segments.len()
}

impl<'a> Assembler<'a> {
    /// The whole of one architecture; answers where it begins.
    fn section(&mut self, section: &'a Section, default: u32) -> Label {
        let x32 = section.x32.iter().flatten();
        for (_, outcome) in section.segments.iter().chain(x32).rev() {
            if let Outcome::Check(rules) = outcome
                && !self.checks.iter().any(|(known, _)| known == rules)
            {
                let label = self.check(rules, default);
                self.checks.push((rules, label));
            }
        }
        let native = self.tree(&Group::all(&section.segments));
        let root = match &section.x32 {
            None => native,
            Some(segments) => {
                self.fall_to(native);
                self.without_bit = self.push(AND, !X32_BIT);
                let x32 = self.tree(&Group::all(segments));
                self.branch(JUMP_GREATER_EQUAL, X32_BIT, x32, native)
            }
        };
        self.load(NUMBER, root)
    }

    /// A binary search for the group of the number that was loaded.
    fn tree(&mut self, groups: &[Group<'a>]) -> Label {
        if let [group] = groups {
            let usual = self.outcome(group.usual);
            let singles = group
                .segments
                .iter()
                .filter(|(_, outcome)| outcome != group.usual);
            return singles.rev().fold(usual, |next, (number, outcome)| {
                let outcome = self.outcome(outcome);
                self.branch(JUMP_EQUAL, *number, outcome, next)
            });
        }
        let (low, high) = groups.split_at(middle(groups));
        let start = high.first().map_or(u32::MAX, |group| group.start);
        let high = self.tree(high);
        let low = self.tree(low);
        self.branch(JUMP_GREATER_EQUAL, start, high, low)
    }

    fn outcome(&mut self, outcome: &Outcome) -> Label {
        match outcome {
            Outcome::Return(answer) => self.answer(*answer),
            Outcome::WithoutBit => self.without_bit,
            // Every check was assembled before; the kernel's refusal is the answer that cannot harm.
            Outcome::Check(rules) => match self.checks.iter().find(|(known, _)| known == rules) {
                Some((_, label)) => *label,
                None => self.answer(RET_KILL_THREAD),
            },
        }
    }

    /// The rules of one call, one after the other.
    fn check(&mut self, rules: &[Rule], default: u32) -> Label {
        let mut otherwise = self.answer(default);
        for rule in rules.iter().rev() {
            let mut holds = self.answer(rule.answer);
            for condition in rule.conditions.iter().rev() {
                holds = self.condition(condition, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    fn condition(&mut self, condition: &Condition, holds: Label, fails: Label) -> Label {
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
        let lower = if low_mask == 0 {
            holds
        } else {
            let lower = self.branch(code, low, holds, fails);
            self.masked_load(at, low_mask, lower)
        };
        if high_mask == 0 {
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

/// How many of these groups have half of the numbers; at least one, and not all.
fn middle(groups: &[Group<'_>]) -> usize {
    let all: u32 = groups.iter().map(|group| group.weight).sum();
    let mut before = 0;
    let reaches_half = |group: &Group<'_>| {
        let middle = before + group.weight / 2;
        before += group.weight;
        middle >= all / 2
    };
    let half = groups.iter().position(reaches_half).unwrap_or_default();
    half.clamp(1, groups.len() - 1)
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
