//! The numeric fields of tar headers: octal text, or GNU's base-256 when the first bit is set.
//!
//! Refuses what does not fit an `i64`; blank fields are zero, as all tar readers agree.

/// Reads one numeric field; `None` when it is not a number.
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        None => Some(0),
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        Some(_) => octal(bytes),
    }
}

/// Two's complement, big endian, with the marker bit taken out of the first byte.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let invert = if negative { 0xff } else { 0 };
    let mut value: u64 = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let mut byte = byte ^ invert;
        if index == 0 {
            byte &= 0x7f;
        }
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let digits = bytes[..end].trim_ascii();
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Reads an unsigned decimal of a PAX record or sparse map.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_every_tar_reads_them() {
        assert_eq!(field(b"0000644\0"), Some(0o644));
        assert_eq!(field(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(field(b"\0\0\0\0"), Some(0));
        assert_eq!(field(b"        "), Some(0));
        assert_eq!(field(b"12a\0"), None);
        assert_eq!(field(b"-1\0"), None);
        assert_eq!(field(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(field(&[0xff; 12]), Some(-1));
        assert_eq!(
            field(&[0x80, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            None
        );
        assert_eq!(field(b"7777777777777777777777777"), None);
    }

    #[test]
    fn decimals_are_unsigned_and_bounded() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"0x1"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }
}
