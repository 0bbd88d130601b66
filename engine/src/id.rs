//! Ids: 32 random bytes as 64 hexadecimal digits.

use crate::error::{Error, Result};

/// A new id. Like Docker, never one whose first twelve digits are all decimal, which would be a number as a host name.
///
/// # Errors
///
/// The kernel gives no random bytes.
pub fn new() -> Result<String> {
    loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::system(format!("draw an id: {error}")))?;
        let id = hex(&bytes);
        if id[..12].bytes().any(|byte| !byte.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let (one, two) = (new().unwrap(), new().unwrap());
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, two);
        assert_eq!(hex(&[0, 0xaf]), "00af");
    }
}
