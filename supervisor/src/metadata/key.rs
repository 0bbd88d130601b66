//! Composite keys: parts joined by NUL.

use crate::error::{Error, Result};

/// The key of a row, or the prefix of a range of rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key with exactly these parts.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when a part contains NUL or is longer than 64 KiB.
    pub fn new(parts: &[&str]) -> Result<Self> {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for (index, part) in parts.iter().enumerate() {
            if part.bytes().any(|byte| byte == 0) || part.len() > 64 * 1024 {
                return Err(Error::invalid("name contains a NUL byte or is too long"));
            }
            if index > 0 {
                bytes.push(0);
            }
            bytes.extend_from_slice(part.as_bytes());
        }
        Ok(Self(bytes))
    }

    /// The prefix of all keys that begin with these parts and have at least one more.
    ///
    /// # Errors
    ///
    /// As [`Key::new`].
    pub fn prefix(parts: &[&str]) -> Result<Self> {
        let mut key = Self::new(parts)?;
        if !parts.is_empty() {
            key.0.push(0);
        }
        Ok(key)
    }

    /// A key read back from a table.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes, as stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The parts.
    ///
    /// # Errors
    ///
    /// `Unknown` when the stored bytes are not text.
    pub fn parts(&self) -> Result<Vec<&str>> {
        self.0
            .split(|byte| *byte == 0)
            .map(|part| {
                std::str::from_utf8(part).map_err(|error| Error::unknown("read a metadata key", error))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_and_prefixes_do_not_overlap() {
        let key = Key::new(&["ns", "a/b:c", ""]).unwrap();
        assert_eq!(key.parts().unwrap(), ["ns", "a/b:c", ""]);
        assert!(Key::new(&["a\0b"]).is_err());
        let prefix = Key::prefix(&["ns"]).unwrap();
        assert!(key.as_bytes().starts_with(prefix.as_bytes()));
        assert!(
            !Key::new(&["ns2", "x"])
                .unwrap()
                .as_bytes()
                .starts_with(prefix.as_bytes())
        );
    }
}
