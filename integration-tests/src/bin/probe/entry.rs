//! `probe call`: one system call through one of the kernel's entries.
#![allow(unsafe_code)]

use std::io;

use serde_json::{Value, json};

/// Where the words lie that an argument `@A,B,...` points to: i386 reaches the lowest 4 GiB only.
const WORDS: usize = 16;

/// Calls `number` through `x86_64` (`syscall`), `x32` (`syscall` with the marker) or `i386` (`int 0x80`); an argument
/// `@A,B,C` is the address of those 32-bit words. Reports what the kernel answered.
pub(crate) fn report(entry: &str, number: &str, arguments: &[&str]) -> io::Result<Value> {
    let invalid = |text: &str| io::Error::other(format!("{text} is no number"));
    let parse = |text: &str| text.parse::<usize>().map_err(|_| invalid(text));
    let mut values = [0_usize; 6];
    for (value, argument) in values.iter_mut().zip(arguments) {
        *value = match argument.strip_prefix('@') {
            Some(words) => place(&words.split(',').map(parse).collect::<Result<Vec<_>, _>>()?)?,
            None => parse(argument)?,
        };
    }
    let number = parse(number)?;
    let answer = match entry {
        "x86_64" => by_syscall(number, values),
        "x32" => by_syscall(number | 1 << 30, values),
        "i386" => by_interrupt(number, values),
        _ => return Err(invalid(entry)),
    };
    Ok(json!({"answer": answer}))
}

/// Puts words where a 32-bit pointer can point to.
fn place(words: &[usize]) -> io::Result<usize> {
    let length = WORDS * 4;
    if words.len() > WORDS {
        return Err(io::Error::other("too many words"));
    }
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
    );
    // SAFETY: a new anonymous mapping at a place of the kernel's choice.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for (index, word) in words.iter().enumerate() {
        // SAFETY: the mapping is writable, aligned, and has room for `WORDS` words; nobody else knows it.
        unsafe { address.cast::<u32>().add(index).write(*word as u32) };
    }
    Ok(address as usize)
}

fn by_syscall(number: usize, values: [usize; 6]) -> isize {
    let answer: isize;
    // SAFETY: whatever the call does is what this program is run for; the kernel changes rcx, r11 and the answer.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") values[0], in("rsi") values[1], in("rdx") values[2],
            in("r10") values[3], in("r8") values[4], in("r9") values[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    answer
}

/// The sixth argument, in the frame pointer, is left alone.
fn by_interrupt(number: usize, values: [usize; 6]) -> isize {
    let answer: i32;
    // SAFETY: as above; the compiler keeps rbx for itself, so it is put back; the entry of 32-bit programs clears r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) values[0] => _,
            inlateout("eax") number as i32 => answer,
            in("ecx") values[1] as u32, in("edx") values[2] as u32,
            in("esi") values[3] as u32, in("edi") values[4] as u32,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    answer as isize
}
