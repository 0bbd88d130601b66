//! `argv` and `envp`: C strings and the array of their addresses, laid out before the clone.

use std::ffi::{CString, c_char};
use std::ptr;

/// C strings with the null-terminated array that `execve(2)` takes.
#[derive(Debug)]
pub struct Strings {
    /// Never touched again: the addresses point into these.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers point into heap memory that the same value owns and nobody changes.
unsafe impl Send for Strings {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Strings {}

impl Strings {
    /// Lays out the array.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let addresses = strings.iter().map(|string| string.as_ptr());
        let pointers = addresses.chain([ptr::null()]).collect();
        Self { strings, pointers }
    }

    /// The strings.
    #[must_use]
    pub fn as_slice(&self) -> &[CString] {
        &self.strings
    }

    /// The array: every entry live as long as `self`, and null at the end.
    pub(crate) fn pointers(&self) -> &[*const c_char] {
        &self.pointers
    }

    /// Lets the first entry point to `string`, which the caller keeps until `execve`. For the child half, on its own
    /// copy of the memory.
    pub(crate) fn replace_first(&mut self, string: &'static std::ffi::CStr) {
        if let [first, _, ..] = self.pointers.as_mut_slice() {
            *first = string.as_ptr();
        }
    }
}
