//! Classic BPF as the kernel runs it for seccomp: loads of `struct seccomp_data`, masks, forward jumps, returns.

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    pub number: u32,
    pub arguments: [u64; 6],
}

/// One instruction: code, jt, jf, k.
pub type Instruction = (u16, u8, u8, u32);

/// What the program returns, and how many instructions that took. Panics on what the kernel would not load.
pub fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut accumulator, mut at, mut steps) = (0_u32, 0, 0);
    loop {
        let (code, jt, jf, k) = program[at];
        at += 1;
        steps += 1;
        let holds = match code {
            0x20 => {
                accumulator = load(call, k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return (k, steps),
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            _ => panic!("instruction {code:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

fn load(call: &Call, offset: u32) -> u32 {
    match offset {
        0 => call.number,
        4 => call.arch,
        16..64 if offset.is_multiple_of(4) => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            (argument >> if offset.is_multiple_of(8) { 0 } else { 32 }) as u32
        }
        _ => panic!("load at {offset}"),
    }
}
