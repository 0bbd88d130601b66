//! From the profile's rules to what happens to each number.
//!
//! The meaning is libseccomp's, as the profiles in use were written for it: rules for one call are alternatives,
//! conditions of one rule must all hold, and a rule without conditions stands before and after all others
//! for its call. Where two rules with different answers hold, the more particular one wins (see `precedence`). Names that
//! are not known are skipped: a profile lists calls of many kernels.

use super::arch::{Arch, X32_BIT, multiplexed};
use super::{Error, precedence, syscalls};
use crate::spec::oci::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

pub(super) const RET_KILL_THREAD: u32 = 0;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
/// The largest error number that the kernel passes on.
const MAX_ERRNO: u32 = 4095;

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Condition {
    pub index: usize,
    pub operator: LinuxSeccompOperator,
    /// What to compare with; for a masked comparison what is left of the argument.
    pub value: u64,
    /// All ones but for a masked comparison. Without the upper half, only the lower is compared.
    pub mask: u64,
}

impl Condition {
    /// Arguments of programs with 32-bit pointers are compared without their upper half.
    fn narrow(self) -> Self {
        let low = u64::from(u32::MAX);
        Self {
            value: self.value & low,
            mask: self.mask & low,
            ..self
        }
    }
}

/// An alternative: when all conditions hold, this is the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rule {
    pub conditions: Vec<Condition>,
    pub answer: u32,
}

/// What happens to a number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The answer, whatever the arguments.
    Return(u32),
    /// The first rule that holds, else the default.
    Check(Vec<Rule>),
    /// That of the number without [`X32_BIT`].
    WithoutBit,
}

/// The outcomes of all numbers that the kernel reports under one `AUDIT_ARCH_*`.
#[derive(Debug)]
pub(super) struct Section {
    pub token: u32,
    /// Where each outcome begins; the first is at zero, and each holds to the next.
    pub segments: Vec<(u32, Outcome)>,
    /// The same from [`X32_BIT`] on, if those numbers have outcomes of their own.
    pub x32: Option<Vec<(u32, Outcome)>>,
}

/// The rules of a profile, by architecture.
pub(super) struct Rules {
    pub default: u32,
    pub sections: Vec<Section>,
    /// A rule sends calls to a listener.
    pub notifies: bool,
}

impl Rules {
    pub fn of(profile: &LinuxSeccomp, native: Arch) -> Result<Self, Error> {
        // The process must be able to hand its listener over, which takes a call.
        let Some(default_action) = profile.default_action else {
            return Err(Error::field("defaultAction", "is needed"));
        };
        if default_action == LinuxSeccompAction::Notify {
            let problem = "SCMP_ACT_NOTIFY cannot be used as default action";
            return Err(Error::field("defaultAction", problem));
        }
        let default = answer(default_action, profile.default_errno_ret, "defaultErrnoRet")?;
        let mut notifies = false;
        let mut archs = vec![native];
        for arch in &profile.architectures {
            archs.extend(Arch::runnable(*arch, native).filter(|arch| !archs.contains(arch)));
        }
        let mut tables: Vec<Table> = archs.into_iter().map(Table::new).collect();
        for (index, call) in profile.syscalls.iter().enumerate() {
            let at = |name: &str| format!("syscalls[{index}].{name}");
            let answer = answer(call.action, call.errno_ret, &at("errnoRet"))?;
            notifies |= answer == RET_NOTIFY;
            let alternatives = alternatives(&call.args, &at("args"))?;
            for name in &call.names {
                if name.is_empty() {
                    return Err(Error::field(at("names"), "empty string is not a valid syscall"));
                }
                if answer == RET_NOTIFY && name == "write" {
                    let problem = "SCMP_ACT_NOTIFY cannot be used for the write syscall";
                    return Err(Error::field(at("names"), problem));
                }
                let numbers = syscalls::numbers(name).unwrap_or_default();
                for table in &mut tables {
                    table.add(name, numbers, answer, &alternatives, default);
                }
            }
        }
        let beyond = beyond(default_action, profile.default_errno_ret, default);
        Ok(Self {
            default,
            sections: sections(tables, default, beyond),
            notifies,
        })
    }
}

/// The value that the filter returns for an action.
fn answer(action: LinuxSeccompAction, data: Option<u32>, data_field: &str) -> Result<u32, Error> {
    use LinuxSeccompAction as Action;
    let eperm = libc::EPERM.cast_unsigned();
    Ok(match action {
        Action::Kill | Action::KillThread => RET_KILL_THREAD,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Log => RET_LOG,
        Action::Allow => RET_ALLOW,
        Action::Errno => match data.unwrap_or(eperm) {
            errno @ 0..=MAX_ERRNO => RET_ERRNO | errno,
            errno => return Err(Error::field(data_field, format!("{errno} is no error number"))),
        },
        Action::Trace => match data.unwrap_or(eperm) {
            data @ 0..=0xffff => RET_TRACE | data,
            data => return Err(Error::field(data_field, format!("{data} has more than 16 bits"))),
        },
        Action::Notify => RET_NOTIFY,
    })
}

/// The conditions of a rule. One that compares an argument twice means each comparison alone, as runc reads it.
fn alternatives(args: &[LinuxSeccompArg], field: &str) -> Result<Vec<Vec<Condition>>, Error> {
    let mut conditions = Vec::with_capacity(args.len());
    for (index, arg) in args.iter().enumerate() {
        if arg.index > 5 {
            let problem = format!("{} is not an argument's index (0 to 5)", arg.index);
            return Err(Error::field(format!("{field}[{index}].index"), problem));
        }
        let (value, mask) = match arg.op {
            LinuxSeccompOperator::MaskedEq => (arg.value_two & arg.value, arg.value),
            _ => (arg.value, u64::MAX),
        };
        conditions.push(Condition {
            index: arg.index as usize,
            operator: arg.op,
            value,
            mask,
        });
    }
    let twice = (0..6).any(|index| conditions.iter().filter(|it| it.index == index).count() > 1);
    Ok(if twice {
        conditions.into_iter().map(|it| vec![it]).collect()
    } else {
        vec![conditions]
    })
}

/// The outcomes of one architecture while they are collected.
struct Table {
    arch: Arch,
    /// The rules of each number, in the order of the profile.
    rules: Vec<(u32, Rule)>,
    /// The largest number that the profile names, also where the rule says nothing new.
    last: u32,
}

impl Table {
    fn new(arch: Arch) -> Self {
        Self {
            arch,
            rules: Vec::with_capacity(512),
            last: 0,
        }
    }

    fn add(
        &mut self,
        name: &str,
        numbers: [Option<u32>; 5],
        answer: u32,
        alternatives: &[Vec<Condition>],
        default: u32,
    ) {
        let number = numbers[self.arch.column()];
        let multiplexed = match self.arch {
            Arch::X86 => multiplexed(name),
            _ => None,
        };
        // A call with two numbers says nothing about the newest one that the profile's author knew.
        if let (Some(number), None) = (number, multiplexed) {
            self.last = self.last.max(number);
        }
        if answer == default {
            return;
        }
        if let Some(number) = number {
            for conditions in alternatives {
                self.insert(number, answer, conditions);
            }
        }
        // The other way into the same call. Arguments are behind a pointer there, so a rule that depends on
        // them cannot be checked: what it grants is not granted, what it forbids is forbidden altogether.
        if let Some((number, operation)) = multiplexed
            && (alternatives.iter().any(Vec::is_empty) || !permissive(answer))
        {
            let operation = Condition {
                index: 0,
                operator: LinuxSeccompOperator::Eq,
                value: operation,
                mask: u64::MAX,
            };
            self.insert(number, answer, &[operation]);
        }
    }

    fn insert(&mut self, number: u32, answer: u32, conditions: &[Condition]) {
        let narrow = self.arch.has_32_bit_pointers();
        let conditions = conditions
            .iter()
            .map(|condition| if narrow { condition.narrow() } else { *condition })
            // Without a mask it compares nothing.
            .filter(|condition| condition.mask != 0)
            .collect();
        self.rules.push((number, Rule { conditions, answer }));
    }

    /// The outcomes as segments that begin at the architecture's first number. `beyond` is for the numbers after
    /// the last that the profile knows.
    fn segments(mut self, default: u32, beyond: u32) -> Vec<(u32, Outcome)> {
        let marker = self.arch.marker();
        let mut segments = Vec::with_capacity(2 * self.rules.len() + 2);
        segments.push((marker, Outcome::Return(default)));
        // Those of one number stay in their order.
        self.rules.sort_by_key(|(number, _)| *number);
        for rules in self.rules.chunk_by_mut(|one, next| one.0 == next.0) {
            let number = rules[0].0;
            segments.push((number | marker, outcome(rules)));
            segments.push(((number + 1) | marker, Outcome::Return(default)));
        }
        if self.last > 0 && beyond != default {
            segments.retain(|(start, _)| *start <= self.last | marker);
            segments.push(((self.last + 1) | marker, Outcome::Return(beyond)));
        }
        segments
    }
}

/// What the rules of one number come to: the first one without conditions stands before and after all others.
fn outcome(rules: &mut [(u32, Rule)]) -> Outcome {
    if let Some((_, rule)) = rules.iter().find(|(_, rule)| rule.conditions.is_empty()) {
        return Outcome::Return(rule.answer);
    }
    let taken = rules.iter_mut().map(|(_, rule)| Rule {
        conditions: std::mem::take(&mut rule.conditions),
        answer: rule.answer,
    });
    let mut rules: Vec<Rule> = taken.collect();
    precedence::sort(&mut rules);
    Outcome::Check(rules)
}

fn permissive(answer: u32) -> bool {
    answer == RET_ALLOW || answer == RET_LOG || answer & 0x7fff_0000 == RET_TRACE
}

/// The answer to calls that are newer than the profile.
///
/// Programs probe for new calls and expect ENOSYS from what an old kernel, or here an old profile, does not know; EPERM
/// would be taken for the answer. A permissive default needs no such help, nor does a profile that thought of it.
fn beyond(action: LinuxSeccompAction, errno: Option<u32>, default: u32) -> u32 {
    let permissive = matches!(
        action,
        LinuxSeccompAction::Allow | LinuxSeccompAction::Log | LinuxSeccompAction::Trace
    );
    let enosys = libc::ENOSYS.cast_unsigned();
    if permissive || errno == Some(enosys) {
        default
    } else {
        RET_ERRNO | enosys
    }
}

fn sections(tables: Vec<Table>, default: u32, beyond: u32) -> Vec<Section> {
    let (mut x32, others): (Vec<_>, Vec<_>) = tables.into_iter().partition(|table| table.arch == Arch::X32);
    let mut sections = Vec::new();
    for table in others {
        let arch = table.arch;
        let mut segments = table.segments(default, beyond);
        let mut own = None;
        if arch == Arch::X86_64 {
            match x32.pop() {
                Some(x32) => own = Some(merge(x32.segments(default, beyond))),
                None => {
                    segments.push((X32_BIT, Outcome::Return(RET_KILL_THREAD)));
                    // -1 is what a tracer makes of a call that it wants skipped.
                    segments.push((u32::MAX, Outcome::Return(default)));
                }
            }
        }
        let segments = merge(segments);
        sections.push(Section {
            token: arch.token(),
            x32: own.map(|x32| differences(&segments, x32)),
            segments,
        });
    }
    sections
}

/// The segments of x32 with [`Outcome::WithoutBit`] where the native ones say the same. Most calls have the same number there.
fn differences(native: &[(u32, Outcome)], x32: Vec<(u32, Outcome)>) -> Vec<(u32, Outcome)> {
    let mut segments = Vec::with_capacity(native.len() + x32.len());
    let (mut from, mut at) = (0, 0);
    // From each start of either to the next.
    while let (Some((one, outcome)), Some((other, own))) = (native.get(from), x32.get(at)) {
        let start = (*one | X32_BIT).max(*other);
        let said = if outcome == own {
            Outcome::WithoutBit
        } else {
            own.clone()
        };
        segments.push((start, said));
        let next = native.get(from + 1).map_or(u32::MAX, |(next, _)| next | X32_BIT);
        let own_next = x32.get(at + 1).map_or(u32::MAX, |(next, _)| *next);
        from += usize::from(next <= own_next);
        at += usize::from(own_next <= next);
    }
    merge(segments)
}

/// Joins neighbours with the same outcome, and leaves out those of no length.
fn merge(segments: Vec<(u32, Outcome)>) -> Vec<(u32, Outcome)> {
    let mut merged: Vec<(u32, Outcome)> = Vec::with_capacity(segments.len());
    for (start, outcome) in segments {
        if merged.last().is_some_and(|last| last.0 == start) {
            merged.pop();
        }
        if merged.last().is_none_or(|last| last.1 != outcome) {
            merged.push((start, outcome));
        }
    }
    merged
}
