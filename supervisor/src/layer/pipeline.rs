//! Decompression and hashing in one thread, extraction in another.
//!
//! Inflating and hashing a layer costs as much as writing it; between the two stands a queue of four 256 KiB buffers,
//! so memory stays bounded and the slower side sets the pace.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
};

use crate::digest::{Algorithm, Digest, Hasher};

const CHUNK: usize = 256 * 1024;
const IN_FLIGHT: usize = 4;

type Chunk = io::Result<Vec<u8>>;

/// The end of the queue that the archive is read from.
pub(super) struct ChunkReader {
    full: Receiver<Chunk>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

/// The end of the queue that [`pump`] fills.
pub(super) struct ChunkWriter {
    full: SyncSender<Chunk>,
    empty: Receiver<Vec<u8>>,
}

/// Makes the queue.
pub(super) fn queue() -> (ChunkWriter, ChunkReader) {
    let (full_sender, full) = sync_channel(IN_FLIGHT);
    let (empty, empty_receiver) = channel();
    for _ in 0..IN_FLIGHT {
        empty.send(Vec::new()).expect("the receiver is held here");
    }
    let writer = ChunkWriter {
        full: full_sender,
        empty: empty_receiver,
    };
    (
        writer,
        ChunkReader {
            full,
            empty,
            current: Vec::new(),
            position: 0,
        },
    )
}

/// Reads `input` to its end into the queue; returns the SHA-256 and number of the bytes read.
///
/// A failure of `input`, or more than `limit` bytes, reaches the reader as an error of its next read. Ends early when
/// the reader is gone. Blocks.
pub(super) fn pump(mut input: impl Read, queue: ChunkWriter, limit: u64) -> (Digest, u64) {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut total = 0u64;
    while let Ok(mut chunk) = queue.empty.recv() {
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        let outcome = loop {
            match input.read(&mut chunk[filled..]) {
                Ok(0) => break Ok(true),
                Ok(count) => {
                    filled += count;
                    if filled == CHUNK {
                        break Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        total += filled as u64;
        let outcome = match outcome {
            Ok(_) if total > limit => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "uncompressed layer is larger than {limit} bytes, the most that its compressed size allows"
                ),
            )),
            outcome => outcome,
        };
        match outcome {
            Ok(ended) => {
                chunk.truncate(filled);
                hasher.update(&chunk);
                if queue.full.send(Ok(chunk)).is_err() || ended {
                    break;
                }
            }
            Err(error) => {
                // Without a reader nobody is left to be told.
                let _gone = queue.full.send(Err(error));
                break;
            }
        }
    }
    (hasher.finish(), total)
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.len() {
            match self.full.recv() {
                Ok(Ok(chunk)) => {
                    let used = std::mem::replace(&mut self.current, chunk);
                    self.position = 0;
                    // The writer may have ended already; then the buffer is simply freed.
                    drop(self.empty.send(used));
                }
                Ok(Err(error)) => return Err(error),
                Err(_ended) => return Ok(&[]),
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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

    #[test]
    fn everything_arrives_and_is_hashed() {
        let data: Vec<u8> = (0..3 * CHUNK + 17).map(|index| (index % 251) as u8).collect();
        let (writer, mut reader) = queue();
        let mut output = Vec::new();
        let (digest, total) = std::thread::scope(|scope| {
            let pump = scope.spawn(|| pump(data.as_slice(), writer, u64::MAX));
            reader.read_to_end(&mut output).unwrap();
            pump.join().unwrap()
        });
        assert_eq!(output, data);
        assert_eq!((digest, total), (Digest::of(&data), data.len() as u64));
    }

    #[test]
    fn a_reader_that_gives_up_ends_the_pump() {
        let (writer, reader) = queue();
        drop(reader);
        pump(io::repeat(0), writer, u64::MAX);
    }

    #[test]
    fn the_limit_reaches_the_reader() {
        let (writer, mut reader) = queue();
        std::thread::scope(|scope| {
            scope.spawn(|| pump(io::repeat(0), writer, 1 << 20));
            assert!(io::copy(&mut reader, &mut io::sink()).is_err());
        });
    }
}
