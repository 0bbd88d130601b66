//! Names of entries, cleaned by text before anything is looked up.
//!
//! Absolute names become relative to the root, `.` and doubled slashes vanish, `..` takes back the component before it.
//! Refuses names that climb above the root, are too long, or too deep.

/// The most components of one name: deeper trees exist only to exhaust descriptors.
const MAX_DEPTH: usize = 512;
/// `PATH_MAX` without the final NUL.
const MAX_LENGTH: usize = 4095;

/// Cleans `name`; the result has no slash at either end, and is empty for the root itself.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop().ok_or("leads out of the root")?;
            }
            _ if component.contains(&0) => return Err("holds a NUL"),
            _ => components.push(component),
        }
    }
    if components.len() > MAX_DEPTH {
        return Err("is nested too deeply");
    }
    let path = components.join(&b'/');
    if path.len() > MAX_LENGTH {
        return Err("is too long");
    }
    Ok(path)
}

/// Splits a cleaned, non-empty path into its parent (empty for the root) and last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let ok = |name: &str| String::from_utf8(clean(name.as_bytes()).unwrap()).unwrap();
        assert_eq!(ok("/etc//./passwd/"), "etc/passwd");
        assert_eq!(ok("./"), "");
        assert_eq!(ok("a/b/../c"), "a/c");
        assert_eq!(ok("..a/b.."), "..a/b..");
        for bad in ["..", "/..", "a/../../b", "../../../../etc/passwd", "a\0b"] {
            assert!(clean(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(clean(&b"a/".repeat(MAX_DEPTH + 1)).is_err());
        assert!(clean(&vec![b'a'; MAX_LENGTH + 1]).is_err());
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
