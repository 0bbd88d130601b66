//! A filter looked at as the kernel looks at it before it takes it (`bpf_check_classic` and `seccomp_check_filter`).

use super::runtime::seccomp::Instruction;

/// Panics on a filter that the kernel would refuse, or that could run off its end.
pub fn verify(filter: &[Instruction]) {
    assert!(
        (1..=4096).contains(&filter.len()),
        "{} instructions",
        filter.len()
    );
    for (at, instruction) in filter.iter().enumerate() {
        let left = filter.len() - at - 1;
        let Instruction { code, jt, jf, k } = *instruction;
        match code {
            // A load of a word of struct seccomp_data.
            0x20 => assert!(k < 64 && k.is_multiple_of(4), "{at}: load at {k}"),
            0x54 => assert!(left > 0, "{at}: the filter ends with a mask"),
            0x05 => assert!((k as usize) < left, "{at}: jump over {k} of {left}"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(
                    usize::from(jt.max(jf)) < left,
                    "{at}: jump over {jt} or {jf} of {left}"
                );
            }
            0x06 => assert!(known_answer(k), "{at}: {k:#x} is no answer"),
            _ => panic!("{at}: instruction {code:#x}"),
        }
    }
    assert_eq!(
        filter.last().map(|last| last.code),
        Some(0x06),
        "the last one returns"
    );
}

fn known_answer(answer: u32) -> bool {
    let data = answer & 0xffff;
    match answer & 0xffff_0000 {
        0 | 0x0003_0000 | 0x7fc0_0000 | 0x7ffc_0000 | 0x7fff_0000 | 0x8000_0000 => data == 0,
        0x0005_0000 => data <= 4095,
        0x7ff0_0000 => true,
        _ => false,
    }
}
