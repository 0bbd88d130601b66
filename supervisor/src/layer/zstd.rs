//! zstd frames, whose windows are memory that the frame asks for and we would have to give.
//!
//! A window of more than [`MAX_WINDOW`] is refused: the encoders that make images use at most that (libzstd up to level 20,
//! the Go encoder at its best), and the format's own limits would let one layer take gigabytes. All frames that are
//! unpacked at the same time share [`ALL_WINDOWS`]: one whose window does not fit waits.

use std::{
    io::{self, BufRead, Read},
    sync::{Condvar, Mutex, PoisonError},
};

use ::zstd::{
    stream::raw::{Decoder, Operation},
    zstd_safe::DParameter,
};

use super::lookahead::Lookahead;

/// The largest window, in bytes: what libzstd calls a window log of 25.
const MAX_WINDOW: u64 = 1 << MAX_WINDOW_LOG;
const MAX_WINDOW_LOG: u32 = 25;
/// The largest window of a stream that a client sends, which may take its time while it holds the memory: what every
/// decoder must support (RFC 8878, 3.1.1.1.2).
const MAX_CLIENT_WINDOW: u64 = 8 << 20;
/// The windows of all frames that are unpacked at the same time, in bytes.
const ALL_WINDOWS: u64 = MAX_WINDOW;
/// The longest header of a frame: magic, descriptor, dictionary and content size, and a byte more than is used.
const MAX_HEADER: usize = 18;

static WINDOWS: Budget = Budget::new(ALL_WINDOWS);

/// A reader of the uncompressed bytes of any number of frames.
pub(crate) struct Zstd<R> {
    input: Lookahead<R>,
    decoder: Decoder<'static>,
    in_frame: bool,
    memory: Memory,
}

/// Where the window's memory comes from.
enum Memory {
    /// The shared budget.
    Shared(Share<'static>),
    /// It is bounded by itself.
    Own,
}

impl<R: Read> Zstd<R> {
    /// The frames in `input`, from a stored blob.
    pub(super) fn stored(input: Lookahead<R>) -> io::Result<Self> {
        Self::new(input, Memory::Shared(WINDOWS.share()))
    }

    /// The frames in `input`, from a client.
    pub(super) fn of_client(input: Lookahead<R>) -> io::Result<Self> {
        Self::new(input, Memory::Own)
    }

    fn new(input: Lookahead<R>, memory: Memory) -> io::Result<Self> {
        Ok(Self {
            input,
            decoder: decoder()?,
            in_frame: false,
            memory,
        })
    }

    /// Makes room for the window of the next frame; whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        let header = self.input.peek(MAX_HEADER)?;
        if header.is_empty() {
            return Ok(false);
        }
        let window = window(header)?;
        let most = match self.memory {
            Memory::Shared(_) => MAX_WINDOW,
            Memory::Own => MAX_CLIENT_WINDOW,
        };
        if window > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("zstd frame with a window of {window} bytes, at most {most} are accepted"),
            ));
        }
        if let Memory::Shared(share) = &mut self.memory
            && share.held < window
        {
            // What the last frame used is freed first: nobody waits for memory while holding some.
            share.give_back();
            self.decoder = decoder()?;
            share.take(window);
        }
        self.decoder.reinit()?;
        self.in_frame = true;
        Ok(true)
    }
}

fn decoder() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
    Ok(decoder)
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            if !self.in_frame && !self.begin()? {
                return Ok(0);
            }
            let available = self.input.fill_buf()?;
            let ended = available.is_empty();
            let status = self.decoder.run_on_buffers(available, buffer)?;
            self.input.consume(status.bytes_read);
            self.in_frame = status.remaining != 0;
            if status.bytes_written > 0 {
                return Ok(status.bytes_written);
            }
            if ended && self.in_frame {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "incomplete zstd frame",
                ));
            }
        }
        Ok(0)
    }
}

/// The bytes that the frame with `header` must be decoded with (RFC 8878, 3.1.1.1).
fn window(header: &[u8]) -> io::Result<u64> {
    let incomplete = || io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete zstd frame");
    if super::compression::is_skippable_frame(header) {
        return Ok(0);
    }
    let descriptor = *header.get(4).ok_or_else(incomplete)?;
    if descriptor & 0x20 == 0 {
        let window = *header.get(5).ok_or_else(incomplete)?;
        let base = 1u64 << (10 + (window >> 3));
        return Ok(base + base / 8 * u64::from(window & 7));
    }
    // A single segment is decoded into its whole content.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = header.get(5 + dictionary..5 + dictionary + length);
    let field = field.ok_or_else(incomplete)?;
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(field);
    let size = u64::from_le_bytes(bytes);
    Ok(if length == 2 { size + 256 } else { size })
}

/// Bytes that several threads share.
struct Budget {
    left: Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    const fn new(bytes: u64) -> Self {
        Self {
            left: Mutex::new(bytes),
            freed: Condvar::new(),
        }
    }

    fn share(&self) -> Share<'_> {
        Share {
            budget: self,
            held: 0,
        }
    }
}

/// What one of them holds, until dropped.
struct Share<'a> {
    budget: &'a Budget,
    held: u64,
}

impl Share<'_> {
    /// Waits for `bytes`, no more than the budget has; nothing must be held.
    fn take(&mut self, bytes: u64) {
        let left = self.budget.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self
            .budget
            .freed
            .wait_while(left, |left| *left < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
        self.held = bytes;
    }

    fn give_back(&mut self) {
        *self.budget.left.lock().unwrap_or_else(PoisonError::into_inner) += self.held;
        self.held = 0;
        self.budget.freed.notify_all();
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A frame of `data` whose window has so many bits.
    fn frame(data: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        // In pieces and flushed, so that the size is not known when the header is written.
        for piece in data.chunks(1000) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn stored(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        Zstd::stored(Lookahead::new(input))?.read_to_end(&mut output)?;
        Ok(output)
    }

    fn of_client(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        Zstd::of_client(Lookahead::new(input))?.read_to_end(&mut output)?;
        Ok(output)
    }

    #[test]
    fn windows_are_read_as_libzstd_writes_them() {
        for log in [10, 17, 23, 25, 27] {
            assert_eq!(window(&frame(&[1; 5000], log)).unwrap(), 1 << log);
        }
        // A single segment of 300 bytes, and one of 70,000.
        for size in [200, 300, 70_000] {
            let whole = ::zstd::bulk::compress(&vec![1; size], 1).unwrap();
            assert_eq!(whole[4] & 0x20, 0x20);
            assert_eq!(window(&whole).unwrap(), size as u64);
        }
        let fields = [0x28, 0xb5, 0x2f, 0xfd, 0, (15 << 3) + 4];
        assert_eq!(window(&fields).unwrap(), (1 << 25) + (1 << 24));
        assert!(window(&fields[..5]).is_err());
    }

    #[test]
    fn windows_beyond_the_bound_are_refused_wherever_they_come() {
        let (small, most, more) = (
            frame(&[1; 5000], 17),
            frame(&[2; 5000], 25),
            frame(&[3; 5000], 26),
        );
        assert_eq!(stored(&[&small[..], &most].concat()).unwrap().len(), 10_000);
        for bad in [more.clone(), [&small[..], &more].concat()] {
            let error = stored(&bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("window of 67108864 bytes"), "{error}");
        }
        assert!(of_client(&most).is_err());
        assert_eq!(of_client(&frame(&[1; 5000], 23)).unwrap(), [1; 5000]);
        // A header that lies about a single segment asks for memory, too.
        let mut lie = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
        lie.extend((1u64 << 40).to_le_bytes());
        assert!(stored(&lie).is_err());
    }

    #[test]
    fn frames_of_any_kind_follow_each_other() {
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let whole = ::zstd::bulk::compress(&[4; 300_000], 1).unwrap();
        let data = [
            &skippable[..],
            &frame(&[1; 3000], 20),
            &skippable,
            &whole,
            &frame(&[], 10),
        ]
        .concat();
        let expected = [vec![1; 3000], vec![4; 300_000]].concat();
        assert_eq!(stored(&data).unwrap(), expected);
        for cut in [3, 5, data.len() - 1] {
            assert!(stored(&data[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_is_held_is_given_back() {
        let budget = Budget::new(100);
        let mut one = budget.share();
        one.take(70);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut two = budget.share();
                two.take(60);
            });
            while !waiting.is_finished() && *budget.left.lock().unwrap() == 30 {
                // It cannot get them; give them back at some point.
                one.give_back();
            }
            waiting.join().unwrap();
        });
        drop(one);
        assert_eq!(*budget.left.lock().unwrap(), 100);
    }
}
