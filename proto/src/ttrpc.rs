//! The framing of ttrpc, the protocol between containerd and its shims.
//!
//! A frame is a header of ten bytes, big-endian, and a payload: `length: u32`, `stream: u32`, `kind: u8`, `flags: u8`.
//! A client numbers its requests with odd stream ids. The payload of a request is a [`Request`], that of a response a
//! [`Response`]. This module is pure: it reads and writes byte buffers and leaves sockets to its callers.
//!
//! Reference: the protocol document of the ttrpc project, version 1.

use prost::Message;

pub use crate::generated::ttrpc::{KeyValue, Request, Response, StringList};

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 10;

/// The longest payload that ttrpc allows: 4 MiB.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Request`].
    Request,
    /// A [`Response`].
    Response,
    /// A message of a stream that a request opened.
    Data,
}

/// One frame, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The id that pairs a response with its request.
    pub stream: u32,
    /// What the payload is.
    pub kind: Kind,
    /// Flags of streaming calls: 1 remote closed, 2 remote open, 4 no data. Zero for unary calls.
    pub flags: u8,
    /// The encoded message.
    pub payload: Vec<u8>,
}

/// Why bytes are not a frame. The connection cannot go on after any of these.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The header announces more than [`MAX_PAYLOAD`].
    #[error("ttrpc frame of {0} bytes exceeds the limit of {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The header's kind is none that this module knows.
    #[error("ttrpc frame of unknown kind {0}")]
    UnknownKind(u8),
}

impl Frame {
    /// A frame that carries `message` for `stream`.
    pub fn new<M: Message>(kind: Kind, stream: u32, message: &M) -> Frame {
        Frame {
            stream,
            kind,
            flags: 0,
            payload: message.encode_to_vec(),
        }
    }

    /// Appends the frame's bytes to `out`.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`]; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(FrameError::TooLong(self.payload.len()));
        }
        let kind = match self.kind {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Data => 3,
        };
        out.reserve(HEADER_LEN + self.payload.len());
        out.extend_from_slice(&(self.payload.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&[kind, self.flags]);
        out.extend_from_slice(&self.payload);
        Ok(())
    }

    /// Takes one frame off the front of `buffer`; `None`, and nothing taken, while it is not all there yet.
    ///
    /// # Errors
    ///
    /// The header is not one: see [`FrameError`].
    pub fn decode(buffer: &mut Vec<u8>) -> Result<Option<Frame>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let &[l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Data,
            other => return Err(FrameError::UnknownKind(other)),
        };
        if buffer.len() < HEADER_LEN + length {
            return Ok(None);
        }
        let payload = buffer[HEADER_LEN..HEADER_LEN + length].to_vec();
        buffer.drain(..HEADER_LEN + length);
        Ok(Some(Frame {
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            kind,
            flags,
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_wire_in_any_pieces() {
        let frame = Frame {
            stream: 7,
            kind: Kind::Request,
            flags: 0,
            payload: b"abc".to_vec(),
        };
        let mut wire = Vec::new();
        frame.encode(&mut wire).unwrap();
        assert_eq!(wire, [0, 0, 0, 3, 0, 0, 0, 7, 1, 0, b'a', b'b', b'c']);
        for cut in 0..wire.len() {
            let mut part = wire[..cut].to_vec();
            assert_eq!(Frame::decode(&mut part), Ok(None));
            assert_eq!(part.len(), cut);
        }
        wire.push(0xff);
        assert_eq!(Frame::decode(&mut wire), Ok(Some(frame)));
        assert_eq!(wire, [0xff]);
    }

    #[test]
    fn hostile_headers_are_refused_before_anything_is_allocated() {
        let mut long = vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0];
        assert_eq!(
            Frame::decode(&mut long),
            Err(FrameError::TooLong(u32::MAX as usize))
        );
        let mut kind = vec![0, 0, 0, 0, 0, 0, 0, 1, 9, 0];
        assert_eq!(Frame::decode(&mut kind), Err(FrameError::UnknownKind(9)));
    }

    proptest::proptest! {
        /// Whatever arrives, in whatever pieces: the same frames, and no byte twice.
        #[test]
        fn any_bytes_are_the_same_frames_in_any_pieces(
            frames in proptest::collection::vec(
                (0u32..9, 0u8..5, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)), 0..6),
            tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..30),
            piece in 1usize..50,
        ) {
            let mut wire = Vec::new();
            for (stream, kind, payload) in frames {
                wire.extend_from_slice(&(payload.len() as u32).to_be_bytes());
                wire.extend_from_slice(&stream.to_be_bytes());
                wire.extend_from_slice(&[kind, 0]);
                wire.extend_from_slice(&payload);
            }
            wire.extend_from_slice(&tail);
            let drain = |buffer: &mut Vec<u8>, frames: &mut Vec<Frame>| loop {
                let before = buffer.len();
                match Frame::decode(buffer) {
                    Ok(Some(frame)) => {
                        assert_eq!(before - buffer.len(), HEADER_LEN + frame.payload.len());
                        frames.push(frame);
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error),
                }
            };
            let mut whole = Vec::new();
            let outcome = drain(&mut wire.clone(), &mut whole);
            let (mut pieces, mut buffer) = (Vec::new(), Vec::new());
            let mut other = Ok(());
            for part in wire.chunks(piece) {
                buffer.extend_from_slice(part);
                other = drain(&mut buffer, &mut pieces);
                if other.is_err() {
                    break;
                }
            }
            assert_eq!((whole, outcome), (pieces, other));
        }
    }
}
