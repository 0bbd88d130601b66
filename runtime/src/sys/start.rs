//! The program's `main`, in the C library's sense: of `main.rs`, and not of the library that the rest of `sys` belongs to.
//!
//! What Rust's runtime does before a `main` of Rust's reads the memory map and asks for a signal stack, so that a stack that overflows
//! is told in words: a hundredth of a container's start. Here is what else it does, which counts. A stack that overflows still
//! ends the program, by `SIGSEGV`.

use std::ffi::{CStr, OsStr};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// Called by the C library.
// SAFETY: no other function of the program has the name, and it is not called twice.
#[unsafe(no_mangle)]
pub extern "C" fn main(count: libc::c_int, arguments: *const *const libc::c_char) -> libc::c_int {
    // Rust's library has them from glibc, and from no other.
    let arguments = (0..count as usize).map(|index| {
        // SAFETY: there are so many, and each is a string that ends.
        let argument = unsafe { CStr::from_ptr(*arguments.add(index)) };
        OsStr::from_bytes(argument.to_bytes()).to_owned()
    });
    let arguments = arguments.collect();
    if !open_streams() {
        return libc::EXIT_FAILURE;
    }
    // A reader that has gone is an error of the write that finds it out.
    // SAFETY: a constant disposition; nothing else runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let code = crate::run(arguments);
    // What cannot be written any more was told by whoever wrote it.
    let _flushed = std::io::stdout().flush();
    code.0.into()
}

/// Opens what is closed of the standard streams: whatever is opened next would be taken for one of them.
fn open_streams() -> bool {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    loop {
        // SAFETY: the array is live and has three elements.
        if unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) } >= 0 {
            break;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            _ => return false,
        }
    }
    streams
        .iter()
        .filter(|stream| stream.revents & libc::POLLNVAL != 0)
        // SAFETY: a constant path. The descriptor is the lowest free one, which is this stream, and stays open.
        .all(|_| unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } >= 0)
}
