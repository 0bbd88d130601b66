//! The limits that containerd sets on identifiers and labels.
//!
//! An identifier is 1 to 76 characters, runs of letters and digits joined by single `.`, `_` or `-`. A label is at most
//! 4096 bytes, key and value together.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The longest identifier.
pub const MAX_IDENTIFIER: usize = 76;
/// The longest label: key plus value, in bytes.
pub const MAX_LABEL: usize = 4096;

/// Labels of a namespace, blob, image, container, snapshot or lease.
pub type Labels = BTreeMap<String, String>;

/// Checks a namespace, container id, exec id or lease id.
///
/// # Errors
///
/// `InvalidArgument` naming the rule that is broken.
pub fn validate(identifier: &str) -> Result<()> {
    if identifier.is_empty() {
        return Err(Error::invalid("identifier must not be empty"));
    }
    if identifier.len() > MAX_IDENTIFIER {
        return Err(Error::invalid(format!(
            "identifier {identifier:?} greater than maximum length ({MAX_IDENTIFIER} characters)"
        )));
    }
    let words = identifier.split(['.', '_', '-']);
    let well_formed = words
        .into_iter()
        .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric()));
    if well_formed {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "identifier {identifier:?} must match {PATTERN}"
        )))
    }
}

/// The rule as containerd prints it.
const PATTERN: &str = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$";

/// Checks one label.
///
/// # Errors
///
/// `InvalidArgument` when key and value together are longer than [`MAX_LABEL`].
pub fn validate_label(key: &str, value: &str) -> Result<()> {
    let total = key.len() + value.len();
    if total > MAX_LABEL {
        let shown: String = key.chars().take(64).collect();
        return Err(Error::invalid(format!(
            "label key and value length ({total} bytes) greater than maximum size ({MAX_LABEL} bytes), key: {shown}"
        )));
    }
    Ok(())
}

/// Checks all `labels`.
///
/// # Errors
///
/// `InvalidArgument` for the first label that is too long.
pub fn validate_labels(labels: &Labels) -> Result<()> {
    labels
        .iter()
        .try_for_each(|(key, value)| validate_label(key, value))
}

/// Drops labels with an empty value: setting one to nothing is how containerd's clients remove it.
pub fn drop_empty(labels: &mut Labels) {
    labels.retain(|_, value| !value.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_containerds_pattern() {
        for good in ["a", "default", "k8s.io", "a-b_c.d", "0", &"x".repeat(76)] {
            validate(good).unwrap();
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "a-",
            "a..b",
            "a/b",
            "a b",
            "é",
            "a\0",
            &"x".repeat(77),
        ] {
            assert!(validate(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_label_may_be_4096_bytes_and_no_more() {
        validate_label("k", &"v".repeat(4095)).unwrap();
        assert!(validate_label("k", &"v".repeat(4096)).is_err());
    }
}
