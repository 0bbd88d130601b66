//! PAX extended headers: `"<length> <key>=<value>\n"` records, read by their length.
//!
//! Values may hold any byte (an xattr may hold newlines), so nothing is split at newlines: a reader that does sees other
//! records than its peers, and with them another size. Refuses records whose length lies and keys or paths with NULs.

use super::{number, sparse::Segment};

/// A point in time as archives and `utimensat(2)` express it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp {
    /// Seconds since the epoch, rounded down.
    pub(crate) seconds: i64,
    /// Nanoseconds after that.
    pub(crate) nanoseconds: u32,
}

/// What the extended header of one entry says, as far as layers use it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<Timestamp>,
    pub(super) accessed: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

/// GNU's sparse formats 0.0, 0.1 and 1.0, which hide in PAX records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Formats 0.0 and 0.1: the map itself, as alternating offsets and lengths.
    pub(super) map: Vec<u64>,
}

/// Reads the data of a PAX header; the text of the error says what is wrong with it.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    while !data.is_empty() {
        let (record, rest) = split_record(data).ok_or("malformed PAX record")?;
        data = rest;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or("PAX record without a value")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err("malformed PAX key".into());
        }
        apply(&mut records, key, value)?;
    }
    Ok(records)
}

fn split_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(21).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number::decimal(&data[..space])?).ok()?;
    if length > data.len() || length < space + 3 || data[length - 1] != b'\n' {
        return None;
    }
    Some((&data[space + 1..length - 1], &data[length..]))
}

/// The last record of a key wins; an empty value takes the header's value back.
fn apply(records: &mut Records, key: &[u8], value: &[u8]) -> Result<(), String> {
    let name = || String::from_utf8_lossy(key).into_owned();
    let decimal = |value: &[u8]| -> Result<Option<u64>, String> {
        if value.is_empty() {
            return Ok(None);
        }
        number::decimal(value)
            .map(Some)
            .ok_or_else(|| format!("PAX record {:?} is not a number", name()))
    };
    let path = |value: &[u8]| -> Result<Option<Vec<u8>>, String> {
        if value.contains(&0) {
            return Err(format!("PAX record {:?} holds a NUL", name()));
        }
        Ok((!value.is_empty()).then(|| value.to_vec()))
    };
    let time = |value: &[u8]| -> Result<Option<Timestamp>, String> {
        if value.is_empty() {
            return Ok(None);
        }
        timestamp(value)
            .map(Some)
            .ok_or_else(|| format!("PAX record {:?} is not a time", name()))
    };
    match key {
        b"path" => records.path = path(value)?,
        b"linkpath" => records.link_path = path(value)?,
        b"size" => records.size = decimal(value)?,
        b"uid" => records.uid = decimal(value)?,
        b"gid" => records.gid = decimal(value)?,
        b"mtime" => records.modified = time(value)?,
        b"atime" => records.accessed = time(value)?,
        b"GNU.sparse.major" => records.sparse.major = decimal(value)?,
        b"GNU.sparse.minor" => records.sparse.minor = decimal(value)?,
        b"GNU.sparse.name" => records.sparse.name = path(value)?,
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => records.sparse.real_size = decimal(value)?,
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
            // Format 0.0 repeats the pair once a segment, the only keys of PAX that may repeat.
            let expects_offset = records.sparse.map.len().is_multiple_of(2);
            if expects_offset != (key == b"GNU.sparse.offset") {
                return Err("sparse map out of order".into());
            }
            records
                .sparse
                .map
                .push(decimal(value)?.ok_or("sparse map with an empty value")?);
        }
        b"GNU.sparse.map" => {
            records.sparse.map = value
                .split(|byte| *byte == b',')
                .map(number::decimal)
                .collect::<Option<_>>()
                .ok_or("malformed sparse map")?;
        }
        _ => {
            if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                records.xattrs.retain(|(name, _)| name != attribute);
                records.xattrs.push((attribute.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

/// `[-]seconds[.fraction]`; digits past nanoseconds are cut.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(number::decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0u32;
    for index in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(fraction.get(index).map_or(0, |digit| digit - b'0'));
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp {
            seconds: -seconds,
            nanoseconds: 0,
        },
        (true, _) => Timestamp {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// Turns the alternating numbers of a map into segments; `None` when one is missing.
pub(super) fn segments(map: &[u64]) -> Option<Vec<Segment>> {
    if !map.len().is_multiple_of(2) {
        return None;
    }
    Some(
        map.chunks_exact(2)
            .map(|pair| Segment {
                offset: pair[0],
                length: pair[1],
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        let mut bytes = format!("{length} {key}=").into_bytes();
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn a_newline_in_a_value_does_not_hide_the_next_record() {
        let mut data = record("SCHILY.xattr.user.blob", b"a\n9 size=1\nb\0");
        data.extend(record("size", b"4096"));
        let records = parse(&data).unwrap();
        assert_eq!(records.size, Some(4096));
        assert_eq!(
            records.xattrs,
            [(b"user.blob".to_vec(), b"a\n9 size=1\nb\0".to_vec())]
        );
    }

    #[test]
    fn the_last_record_wins_and_an_empty_one_takes_back() {
        let data = [
            record("path", b"a"),
            record("path", b"b"),
            record("uid", b"7"),
            record("uid", b""),
        ]
        .concat();
        let records = parse(&data).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"b"[..]));
        assert_eq!(records.uid, None);
    }

    #[test]
    fn lies_are_refused() {
        for bad in [
            &b"999 path=a\n"[..],
            b"8 path=a\n",
            b"12 path=a\n",
            b"path=a\n",
            b"11 path=a\0b\n",
            b"5 =a\n",
            b"18446744073709551617 a=b\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(parse(&record("size", b"-1")).is_err());
        assert!(parse(&record("size", b"0x10")).is_err());
        assert!(parse(&record("path", b"a\0b")).is_err());
        assert!(parse(&record("GNU.sparse.numbytes", b"1")).is_err());
    }

    #[test]
    fn times_keep_nanoseconds_on_both_sides_of_the_epoch() {
        let time = |text: &str| timestamp(text.as_bytes());
        assert_eq!(
            time("1.5"),
            Some(Timestamp {
                seconds: 1,
                nanoseconds: 500_000_000
            })
        );
        assert_eq!(
            time("1.1234567899"),
            Some(Timestamp {
                seconds: 1,
                nanoseconds: 123_456_789
            })
        );
        assert_eq!(
            time("-1.25"),
            Some(Timestamp {
                seconds: -2,
                nanoseconds: 750_000_000
            })
        );
        assert_eq!(
            time("-3"),
            Some(Timestamp {
                seconds: -3,
                nanoseconds: 0
            })
        );
        assert_eq!(time("x"), None);
        assert_eq!(time("1.x"), None);
    }
}
