//! `argv` and `envp`: C strings and the array of their addresses, laid out before the clone.

use std::ffi::{CString, c_char};
use std::ptr;

/// C strings with the null-terminated array that `execve(2)` takes.
#[derive(Debug)]
pub struct Strings {
    strings: Vec<CString>,
    /// The text of an entry before the others that the child half fills in; empty when there is none.
    room: Vec<u8>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers point into heap memory that the same value owns; only `fill_room` changes it, through `&mut`.
unsafe impl Send for Strings {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Strings {}

impl Strings {
    /// Lays out the array.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        Self::build(strings, Vec::new())
    }

    /// Lays out the array with one entry before the others: `default` now, up to `bytes` bytes later.
    pub(crate) fn with_room(strings: Vec<CString>, default: &str, bytes: usize) -> Self {
        let mut room = default.as_bytes().to_vec();
        room.resize(bytes.max(default.len()) + 1, 0);
        Self::build(strings, room)
    }

    fn build(strings: Vec<CString>, room: Vec<u8>) -> Self {
        let mut pointers = Vec::with_capacity(strings.len() + 2);
        if !room.is_empty() {
            pointers.push(room.as_ptr().cast());
        }
        pointers.extend(strings.iter().map(|string| string.as_ptr()));
        pointers.push(ptr::null());
        Self {
            strings,
            room,
            pointers,
        }
    }

    /// The strings, without the one to be filled in.
    #[must_use]
    pub fn as_slice(&self) -> &[CString] {
        &self.strings
    }

    /// The array: every entry live as long as `self`, and null at the end.
    pub(crate) fn pointers(&self) -> &[*const c_char] {
        &self.pointers
    }

    /// Makes the entry with room the concatenation of `parts`; false when there is no room, or they have a zero byte.
    pub(crate) fn fill_room(&mut self, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length >= self.room.len() || parts.iter().any(|part| part.contains(&0)) {
            return false;
        }
        let mut bytes = parts.iter().copied().flatten();
        // One zero past the text ends it; what is behind that nobody reads.
        for place in self.room.iter_mut().take(length + 1) {
            *place = bytes.next().copied().unwrap_or(0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn entries(strings: &Strings) -> Vec<&CStr> {
        let pointers = strings.pointers();
        assert!(pointers.last().unwrap().is_null());
        // SAFETY: every entry but the last is a C string that `strings` owns.
        let texts = pointers[..pointers.len() - 1]
            .iter()
            .map(|text| unsafe { CStr::from_ptr(*text) });
        texts.collect()
    }

    #[test]
    fn the_room_is_filled_within_its_bounds() {
        let mut strings = Strings::with_room(vec![c"A=1".to_owned()], "HOME=/", 10);
        assert_eq!(entries(&strings), [c"HOME=/", c"A=1"]);
        assert!(strings.fill_room(&[b"HOME=", b"/root"]));
        assert_eq!(entries(&strings), [c"HOME=/root", c"A=1"]);
        assert!(strings.fill_room(&[b"HOME=", b"/"]));
        assert!(!strings.fill_room(&[b"HOME=", b"/longer"]));
        assert!(!strings.fill_room(&[b"H\0"]));
        assert_eq!(entries(&strings), [c"HOME=/", c"A=1"]);
        assert!(!Strings::new(Vec::new()).fill_room(&[b""]));
    }
}
