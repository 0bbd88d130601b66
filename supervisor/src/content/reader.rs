//! Reading a blob.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use crate::error::{Error, Result};

/// Random access to one blob; stays valid when the blob is deleted.
#[derive(Debug)]
pub struct Reader {
    file: File,
    size: u64,
}

impl Reader {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
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
        self.file.read(buffer)
    }
}
