//! A buffered reader that can look further ahead than what one read brought.

use std::io::{self, BufRead, Read};

/// The size of the buffer, in bytes.
const BUFFER: usize = 128 * 1024;

/// A reader with a buffer in front of it.
pub(crate) struct Lookahead<R> {
    input: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: Read> Lookahead<R> {
    /// Nothing is read yet.
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
        }
    }

    /// The next `wanted` bytes (at most those of the buffer), fewer only at the end of the input. Blocks.
    ///
    /// # Errors
    ///
    /// Those of the input.
    pub(super) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(BUFFER);
        if self.end - self.start < wanted && BUFFER - self.start < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let end = self.end.min(self.start + wanted);
        Ok(&self.buffer[self.start..end])
    }
}

impl<R: Read> BufRead for Lookahead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = self.input.read(&mut self.buffer)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.end.min(self.start + amount);
    }
}

impl<R: Read> Read for Lookahead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Large reads of plain data need not be copied twice.
        if self.start == self.end && buffer.len() >= BUFFER {
            return self.input.read(buffer);
        }
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn looking_ahead_takes_nothing_away() {
        let data: Vec<u8> = (0..3 * BUFFER).map(|index| (index % 253) as u8).collect();
        let mut reader = Lookahead::new(Slow(&data));
        assert_eq!(reader.peek(5).unwrap(), &data[..5]);
        let mut all = vec![0; BUFFER - 3];
        reader.read_exact(&mut all).unwrap();
        // At the end of the buffer, what is left moves to its start.
        assert_eq!(reader.peek(18).unwrap(), &data[BUFFER - 3..BUFFER + 15]);
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, data);
        assert!(reader.peek(1).unwrap().is_empty());
        assert_eq!(Lookahead::new(&b"ab"[..]).peek(9).unwrap(), b"ab");
    }
}
