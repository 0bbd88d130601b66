//! Takes out of a program what it decides twice.
//!
//! The kernel checks, converts and compiles a filter instruction by instruction while a container waits, and rules for one call
//! mostly ask for the same arguments: each begins by loading and comparing what the one before it has loaded and compared. So a
//! jump whose target is decided by what is known on all ways to it goes on to where that leads, and what is then not reached by
//! any way is left out. Known is what was loaded last, and which arguments were found equal or unequal to which values.

use super::Instruction;
use super::assemble::{AND, ARGS, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, RETURN};

/// How many comparisons are remembered, and how many instructions are gone through for one jump: profiles in use come to a dozen,
/// and no profile is to keep its reader busy.
const MAX_COMPARED: usize = 16;
const MAX_STEPS: usize = 256;

/// What is in the accumulator: the part of the call's data at this offset, under this mask.
type Word = (u32, u32);

/// What holds on all ways to an instruction.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Known {
    loaded: Option<Word>,
    /// Words of arguments, values, and whether they are equal.
    compared: Vec<(Word, u32, bool)>,
}

impl Known {
    /// Of two ways the common.
    fn join(&mut self, other: &Self) {
        if self.loaded != other.loaded {
            self.loaded = None;
        }
        self.compared.retain(|fact| other.compared.contains(fact));
    }

    /// Whether the comparison of `word` holds, if that is known.
    fn decide(&self, word: Option<Word>, comparison: &Instruction) -> Option<bool> {
        let word = word?;
        let mut facts = self.compared.iter().filter(|fact| fact.0 == word);
        facts.find_map(|&(_, value, equal)| match comparison.code {
            JUMP_EQUAL if equal => Some(value == comparison.k),
            JUMP_EQUAL if value == comparison.k => Some(false),
            JUMP_GREATER if equal => Some(value > comparison.k),
            JUMP_GREATER_EQUAL if equal => Some(value >= comparison.k),
            _ => None,
        })
    }

    /// The same behind a comparison that held or not.
    fn after(&self, comparison: &Instruction, holds: bool) -> Self {
        let mut known = self.clone();
        if let (JUMP_EQUAL, Some(word @ (ARGS.., _))) = (comparison.code, self.loaded)
            && known.compared.len() < MAX_COMPARED
        {
            known.compared.push((word, comparison.k, holds));
        }
        known
    }
}

/// The same program without what is needless in it.
pub(super) fn shorten(mut program: Vec<Instruction>) -> Vec<Instruction> {
    let mut reached: Vec<Option<Known>> = vec![None; program.len()];
    if let Some(first) = reached.first_mut() {
        *first = Some(Known::default());
    }
    // Jumps lead forward: all ways to an instruction are known when its turn comes.
    for at in 0..program.len() {
        let Some(mut known) = reached[at].clone() else {
            continue;
        };
        let instruction = program[at];
        match instruction.code {
            RETURN => {}
            JUMP => {
                let target = follow(&program, at + 1 + instruction.k as usize, &known);
                program[at].k = (target - at - 1) as u32;
                reach(&mut reached, target, known);
            }
            JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_EQUAL => {
                for holds in [true, false] {
                    let known = known.after(&instruction, holds);
                    let skips = if holds { instruction.jt } else { instruction.jf };
                    let near = at + 1 + usize::from(skips);
                    let far = follow(&program, near, &known);
                    let (target, skips) = match u8::try_from(far - at - 1) {
                        Ok(skips) => (far, skips),
                        Err(_) => (near, skips),
                    };
                    match holds {
                        true => program[at].jt = skips,
                        false => program[at].jf = skips,
                    }
                    reach(&mut reached, target, known);
                }
            }
            code => {
                known.loaded = load(code, instruction.k, known.loaded);
                reach(&mut reached, at + 1, known);
            }
        }
    }
    compact(program, &reached)
}

fn reach(reached: &mut [Option<Known>], target: usize, known: Known) {
    match &mut reached[target] {
        Some(already) => already.join(&known),
        none => *none = Some(known),
    }
}

fn load(code: u16, k: u32, loaded: Option<Word>) -> Option<Word> {
    match (code, loaded) {
        (LOAD, _) => Some((k, u32::MAX)),
        (AND, Some((offset, mask))) => Some((offset, mask & k)),
        _ => None,
    }
}

/// The farthest instruction that what is at `at` leads to whatever the call, and that needs no more to be loaded than is.
fn follow(program: &[Instruction], mut at: usize, known: &Known) -> usize {
    let mut farthest = at;
    let mut loaded = known.loaded;
    for _ in 0..MAX_STEPS {
        let instruction = &program[at];
        let holds = match instruction.code {
            RETURN => return at,
            JUMP => {
                at += 1 + instruction.k as usize;
                None
            }
            LOAD | AND => {
                loaded = load(instruction.code, instruction.k, loaded);
                at += 1;
                None
            }
            _ => match known.decide(loaded, instruction) {
                None => return farthest,
                holds => holds,
            },
        };
        if let Some(holds) = holds {
            at += 1 + usize::from(if holds { instruction.jt } else { instruction.jf });
        }
        if loaded == known.loaded || program[at].code == LOAD {
            farthest = at;
        }
    }
    farthest
}

/// Leaves out what is not reached.
fn compact(program: Vec<Instruction>, reached: &[Option<Known>]) -> Vec<Instruction> {
    let mut kept = 0;
    // For each instruction, how many are kept before it.
    let places: Vec<usize> = reached
        .iter()
        .map(|known| {
            let place = kept;
            kept += usize::from(known.is_some());
            place
        })
        .collect();
    let mut short = Vec::with_capacity(kept);
    for (at, mut instruction) in program.into_iter().enumerate() {
        if reached[at].is_none() {
            continue;
        }
        // What is between two instructions only becomes less.
        let skips = |skips: usize| places[at + 1 + skips] - places[at] - 1;
        match instruction.code {
            JUMP => instruction.k = skips(instruction.k as usize) as u32,
            JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_EQUAL => {
                instruction.jt = skips(instruction.jt.into()) as u8;
                instruction.jf = skips(instruction.jf.into()) as u8;
            }
            _ => {}
        }
        short.push(instruction);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    #[test]
    fn an_argument_is_loaded_and_compared_once() {
        let program = vec![
            instruction(LOAD, ARGS + 4, 0, 0),
            instruction(JUMP_EQUAL, 0, 0, 2),
            instruction(LOAD, ARGS, 0, 0),
            instruction(JUMP_EQUAL, 8, 4, 0),
            instruction(LOAD, ARGS + 4, 0, 0),
            instruction(JUMP_EQUAL, 0, 0, 3),
            instruction(LOAD, ARGS, 0, 0),
            instruction(JUMP_EQUAL, 9, 0, 1),
            instruction(RETURN, 1, 0, 0),
            instruction(RETURN, 2, 0, 0),
        ];
        let short = vec![
            instruction(LOAD, ARGS + 4, 0, 0),
            instruction(JUMP_EQUAL, 0, 0, 4),
            instruction(LOAD, ARGS, 0, 0),
            instruction(JUMP_EQUAL, 8, 1, 0),
            instruction(JUMP_EQUAL, 9, 0, 1),
            instruction(RETURN, 1, 0, 0),
            instruction(RETURN, 2, 0, 0),
        ];
        assert_eq!(shorten(program), short);
        assert_eq!(shorten(short.clone()), short);
    }

    #[test]
    fn what_only_one_way_tells_is_not_known() {
        // The second argument is asked for with the first one equal, the third with it equal or not.
        let program = vec![
            instruction(LOAD, ARGS, 0, 0),
            instruction(JUMP_EQUAL, 1, 0, 2),
            instruction(LOAD, ARGS + 8, 0, 0),
            instruction(JUMP_EQUAL, 5, 0, 5),
            instruction(LOAD, ARGS + 16, 0, 0),
            instruction(JUMP_EQUAL, 1, 0, 3),
            instruction(LOAD, ARGS, 0, 0),
            instruction(JUMP_EQUAL, 1, 0, 1),
            instruction(RETURN, 2, 0, 0),
            instruction(RETURN, 3, 0, 0),
        ];
        assert_eq!(shorten(program.clone()), program);
    }

    #[test]
    fn a_masked_word_is_another_word() {
        let program = vec![
            instruction(LOAD, ARGS, 0, 0),
            instruction(AND, 0xf0, 0, 0),
            instruction(JUMP_EQUAL, 0x10, 0, 2),
            instruction(LOAD, ARGS, 0, 0),
            instruction(JUMP_EQUAL, 0x10, 0, 1),
            instruction(RETURN, 1, 0, 0),
            instruction(RETURN, 2, 0, 0),
        ];
        assert_eq!(shorten(program.clone()), program);
    }
}
