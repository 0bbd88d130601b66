//! Which boot of the host this is: what was not flushed is whole within it, and may not be after it.

use crate::error::{Error, Result};

/// The boot's id, by `random(4)`.
///
/// # Errors
///
/// `Unknown`: `/proc` cannot be read.
pub fn id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(format!("read {path}"), source))?;
    Ok(text.trim().to_owned())
}
