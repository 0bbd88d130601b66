//! The program's first instructions, of release builds on x86_64: what [`crate::host_binary::protect`] does, before anything
//! else has started.
//!
//! That executes the program once more, and what the C library and Rust's do at their start is then done twice: of a
//! container's start, a fifteenth. So it is tried here first, on nothing but the stack that the kernel made. Whatever does not succeed
//! here is left to `protect`, which has the other ways and says what is wrong; nothing relies on this.
//!
//! Nothing here may use what is not there yet: relocated pointers (so no table of strings), thread-local storage (so no
//! `errno`, and no call of the C library, not even `memcpy`).

use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;

use crate::host_binary::FIRST_KEPT;

/// Where the kernel enters the program; goes on with the C library's `_start` as if that had been entered.
///
/// # Safety
///
/// Only the kernel may come here: the stack is the one that it makes for a new program.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        // What `_start` expects to find: the stack, and a function to call at the end in rdx.
        "mov r12, rsp",
        "mov r13, rdx",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {protect}",
        "mov rsp, r12",
        "mov rdx, r13",
        "jmp _start",
        protect = sym protect,
    )
}

const EXE: &core::ffi::CStr = c"/proc/self/exe";
const NOTHING: &core::ffi::CStr = c"";

/// Executes the program from a read-only clone of its file; returns where that is not needed or does not succeed.
///
/// # Safety
///
/// `stack` is that of a new program: the count of arguments, that many pointers to them and a null, the same for the
/// environment.
unsafe extern "C" fn protect(stack: *const usize) {
    let by_path = libc::AT_FDCWD as usize;
    let here = libc::AT_EMPTY_PATH as usize;
    // SAFETY: the caller's promise tells what is on the stack, and every argument is a string that ends. The calls' pointers
    // are to those, to constant strings, and to locals of the sizes that the kernel reads and writes.
    unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<*const u8>();
        let environment = arguments.add(count + 1);
        if !(1..count).any(|index| makes_processes(*arguments.add(index))) {
            return;
        }
        if is_protected(EXE) {
            return;
        }
        let flags = libc::OPEN_TREE_CLONE as usize | libc::OPEN_TREE_CLOEXEC as usize;
        let clone = call(libc::SYS_open_tree, [by_path, EXE.as_ptr() as usize, flags, 0, 0]);
        if clone < 0 {
            return;
        }
        let clone = clone as usize;
        // Closing the last descriptor of a detached mount takes longer than all of this: so not in `execve`, but when there is
        // nothing else to do. The number tells `crate::host_binary` that there is one.
        let kept = call(
            libc::SYS_fcntl,
            [clone, libc::F_DUPFD as usize, FIRST_KEPT as usize, 0, 0],
        );
        let executed = if kept < 0 { clone } else { kept as usize };
        let read_only = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
        let attributes = read_only.as_ptr() as usize;
        let empty = NOTHING.as_ptr() as usize;
        if call(
            libc::SYS_mount_setattr,
            [clone, empty, here, attributes, size_of_val(&read_only)],
        ) == 0
        {
            let (arguments, environment) = (arguments as usize, environment as usize);
            call(
                libc::SYS_execveat,
                [executed, empty, arguments, environment, here],
            );
        }
        if executed != clone {
            call(libc::SYS_close, [executed, 0, 0, 0, 0]);
        }
        call(libc::SYS_close, [clone, 0, 0, 0, 0]);
    }
}

/// Whether an argument is the name of a command that makes processes in a container.
///
/// # Safety
///
/// `argument` is a string that ends.
unsafe fn makes_processes(argument: *const u8) -> bool {
    let mut word = 0u64;
    for index in 0..=8 {
        // SAFETY: no byte behind the string's end is read.
        let byte = unsafe { *argument.add(index) };
        if byte == 0 {
            return word == u64::from_le_bytes(*b"run\0\0\0\0\0")
                || word == u64::from_le_bytes(*b"exec\0\0\0\0")
                || word == u64::from_le_bytes(*b"create\0\0");
        }
        if index == 8 {
            break;
        }
        word |= u64::from(byte) << (8 * index);
    }
    false
}

/// Whether the file at `path` is on a read-only mount, or cannot be told about. Of sealed memory there is no clone, and `main` knows it.
fn is_protected(path: &core::ffi::CStr) -> bool {
    // struct statfs of this architecture: fifteen words, of which the eleventh is f_flags.
    const FLAGS: usize = 10;
    let mut about = MaybeUninit::<[u64; 15]>::uninit();
    let (path, to) = (path.as_ptr() as usize, about.as_mut_ptr() as usize);
    // SAFETY: the path is a string that ends. The kernel writes the whole struct, or fails and then it is not read.
    unsafe {
        call(libc::SYS_statfs, [path, to, 0, 0, 0]) < 0
            || *about.as_ptr().cast::<u64>().add(FLAGS) & libc::ST_RDONLY != 0
    }
}

/// A system call without the C library, which would set `errno`.
///
/// # Safety
///
/// As the call demands of its arguments.
unsafe fn call(number: libc::c_long, [a, b, c, d, e]: [usize; 5]) -> isize {
    let answer: isize;
    // SAFETY: the kernel's convention on x86_64: these registers in, rax out, rcx and r11 lost.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_that_make_processes_are_known_by_their_names() {
        // SAFETY: C strings end.
        let asks = |argument: &core::ffi::CStr| unsafe { makes_processes(argument.as_ptr().cast()) };
        for name in [c"run", c"exec", c"create"] {
            assert!(asks(name), "{name:?}");
        }
        for name in [
            c"",
            c"ru",
            c"runs",
            c"Run",
            c"executed",
            c"create\x01",
            c"created-by-me",
            c"state",
        ] {
            assert!(!asks(name), "{name:?}");
        }
    }

    #[test]
    fn only_what_cannot_be_written_is_protected() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
        assert!(!is_protected(&path));
        assert!(is_protected(c"/not/there"), "left to others");
    }
}
