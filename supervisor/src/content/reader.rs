//! Reading a blob.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use crate::error::{Error, Result};

/// Random access to one blob, and sequential reading from the start; stays valid when the blob is deleted. Clones read the
/// same bytes, each at a place of its own.
#[derive(Debug, Clone)]
pub struct Reader {
    file: Arc<File>,
    size: u64,
    position: u64,
}

impl Reader {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            size,
            position: 0,
        })
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads at most `buffer.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file
            .read_at(buffer, offset)
            .map_err(|error| Error::io("read content", error))
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk, also when the blob ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| Error::io("read content", error))
    }
}

/// Sequential reading, from the start.
impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
