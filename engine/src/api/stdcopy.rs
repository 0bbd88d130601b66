//! The framing that puts stdout and stderr of a process without a terminal on one connection.
//!
//! Each frame is one byte with the stream, three zero bytes, the length as a big-endian `u32`, and that many bytes.
//! Owns encoding and decoding; refuses frames of unknown streams and frames longer than [`MAX_FRAME`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest frame that a [`Decoder`] takes: a sender that announces more is not speaking this protocol.
pub const MAX_FRAME: usize = 16 << 20;

const HEADER: usize = 8;

/// The stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard input, echoed; no one sends it.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// An error of the daemon in the middle of the stream.
    System,
}

/// Bytes that are not this protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The first byte of a frame names no stream.
    #[error("read stream frame: unknown stream {0}")]
    Stream(u8),
    /// The frame is longer than [`MAX_FRAME`].
    #[error("read stream frame: length {0} is over the limit of {MAX_FRAME}")]
    Length(usize),
}

/// The frame that carries `data`.
///
/// # Panics
///
/// When `data` is 4 GiB or longer.
pub fn frame(stream: Stream, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + data.len());
    out.put_u32(u32::from(stream as u8) << 24);
    out.put_u32(u32::try_from(data.len()).expect("frames are cut from small buffers"));
    out.put_slice(data);
    out.freeze()
}

/// Takes frames apart, whatever pieces they arrive in.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes as they were received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame; `None` until more bytes are pushed.
    ///
    /// # Errors
    ///
    /// The bytes are not this protocol; the connection is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<(Stream, Bytes)>, Error> {
        if self.buffer.len() < HEADER {
            return Ok(None);
        }
        let stream = match self.buffer[0] {
            0 => Stream::Stdin,
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::System,
            other => return Err(Error::Stream(other)),
        };
        let length = (&self.buffer[4..8]).get_u32() as usize;
        if length > MAX_FRAME {
            return Err(Error::Length(length));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some((stream, self.buffer.split_to(length).freeze())))
    }

    /// Whether bytes of an incomplete frame are left over.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_any_cut() {
        let mut wire = frame(Stream::Stdout, b"hello").to_vec();
        wire.extend_from_slice(&frame(Stream::Stderr, b""));
        wire.extend_from_slice(&frame(Stream::Stderr, b"no"));
        for cut in 0..wire.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(
                frames,
                [
                    (Stream::Stdout, Bytes::from_static(b"hello")),
                    (Stream::Stderr, Bytes::new()),
                    (Stream::Stderr, Bytes::from_static(b"no")),
                ]
            );
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn other_protocols_are_refused() {
        let mut decoder = Decoder::default();
        decoder.push(b"HTTP/1.1 200");
        assert_eq!(decoder.next_frame(), Err(Error::Stream(b'H')));
        let mut decoder = Decoder::default();
        decoder.push(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(Error::Length(0xffff_ffff)));
    }
}
