//! What a text of the configuration must be like for what it is used for, and how it is told.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The longest path the kernel takes, with its final zero.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// The longest name of a file.
const NAME_MAX: usize = 255;

/// The names of network devices are shorter than this.
const DEVICE_NAME_SIZE: usize = 16;

/// How much of a part of a message is told.
const MAX_TOLD_BYTES: usize = 512;

/// Whether the kernel takes `path` as one path, wherever it leads.
pub(crate) fn check_path(path: &Path) -> Result<(), String> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= PATH_MAX {
        return Err(format!("is longer than {PATH_MAX} bytes"));
    }
    match bytes
        .split(|byte| *byte == b'/')
        .any(|name| name.len() > NAME_MAX)
    {
        true => Err(format!("has a name of more than {NAME_MAX} bytes in it")),
        false => Ok(()),
    }
}

/// Whether the kernel takes it for a device's name, and for that name only (`%` asks it to find a number).
pub(crate) fn is_net_device_name(name: &str) -> bool {
    let bad = |byte: u8| byte.is_ascii_whitespace() || byte == 0x0b || b"/:%\0".contains(&byte);
    !name.is_empty() && name.len() < DEVICE_NAME_SIZE && name != "." && name != ".." && !name.bytes().any(bad)
}

/// A part of a message: one line that a person reads, whatever the configuration says.
pub(crate) fn told(text: String) -> String {
    if text.len() <= MAX_TOLD_BYTES && !text.contains(char::is_control) {
        return text;
    }
    let end = text.floor_char_boundary(MAX_TOLD_BYTES);
    let mut line = String::with_capacity(end);
    for letter in text[..end].chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    if end < text.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(told("as it is: \u{fc}".into()), "as it is: \u{fc}");
        assert_eq!(told("a\nb\u{1b}[0m".into()), "a\\nb\\u{1b}[0m");
        let long = told("\u{fc}".repeat(10_000));
        assert!(long.len() < 520 && long.ends_with('…'), "{long}");
    }
}
