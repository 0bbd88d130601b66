//! The streams of an attached process: its output to ours, our stdin to it, until it closes them or the user detaches.
//!
//! Owns two plain threads, so that neither a full pipe behind stdout nor a silent stdin ever keeps the event loop from
//! forwarding signals and resizing. The threads are never joined: a read of stdin cannot be interrupted, and the process
//! is about to end when they are of no more use.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{Notify, oneshot};

use super::failure::Failure;
use crate::api::client::Hijacked;
use crate::api::stdcopy::{Decoder, Stream};

/// Which streams there are.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Our stdin is the process's.
    pub(crate) stdin: bool,
    /// The process has a terminal: its output is one raw stream.
    pub(crate) terminal: bool,
    /// The keys that detach from a terminal; none without one.
    pub(crate) detach_keys: Option<DetachKeys>,
}

/// Streams in motion.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Resolves when everything that the process wrote has been written.
    pub(crate) output: oneshot::Receiver<Result<(), Failure>>,
    /// Notified when the user detaches.
    pub(crate) detached: Arc<Notify>,
}

/// Sets the streams of `connection` in motion.
///
/// # Errors
///
/// The system gives no more threads or descriptors.
pub(crate) fn attach(connection: Hijacked, streams: Streams) -> Result<Attached, Failure> {
    let failed = |error: io::Error| Failure::new(format!("Error: attach to the container: {error}"));
    let Hijacked { stream, early } = connection;
    let stream = Arc::new(stream);
    let (output_done, output) = oneshot::channel();
    let detached = Arc::new(Notify::new());
    let reader = Arc::clone(&stream);
    std::thread::Builder::new()
        .name("output".to_owned())
        .spawn(move || {
            let result = copy_output(&reader, &early, streams.terminal);
            // Nobody waits any more once the user has detached.
            output_done.send(result).ok();
        })
        .map_err(failed)?;
    if streams.stdin {
        let detached = Arc::clone(&detached);
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                if copy_input(&stream, streams.detach_keys) {
                    detached.notify_one();
                }
            })
            .map_err(failed)?;
    }
    Ok(Attached { output, detached })
}

fn copy_output(mut connection: &UnixStream, early: &[u8], terminal: bool) -> Result<(), Failure> {
    let mut printer = Printer::new(terminal);
    printer.print(early)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return printer.finish(),
            Ok(read) => printer.print(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A daemon that was killed resets the connection; what the container wrote after that is in its log.
            Err(error) => {
                return Err(Failure::new(format!(
                    "Error: read the container's output: {error}"
                )));
            }
        }
    }
}

/// Writes a container's output to our stdout and stderr.
#[derive(Debug)]
pub(crate) struct Printer {
    /// `None`: a terminal's raw stream.
    decoder: Option<Decoder>,
}

impl Printer {
    pub(crate) fn new(terminal: bool) -> Self {
        Self {
            decoder: (!terminal).then(Decoder::default),
        }
    }

    /// Prints one piece of the stream, cut anywhere. Blocks until it is written.
    pub(crate) fn print(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(write_all(io::stdout(), bytes)?);
        };
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some((Stream::Stdin | Stream::Stdout, data))) => write_all(io::stdout(), &data)?,
                Ok(Some((Stream::Stderr, data))) => write_all(io::stderr(), &data)?,
                Ok(Some((Stream::System, data))) => {
                    let message = String::from_utf8_lossy(&data);
                    return Err(Failure::new(format!(
                        "Error response from daemon: {}",
                        message.trim_end()
                    )));
                }
                Err(error) => return Err(Failure::new(format!("Error: {error}"))),
            }
        }
    }

    /// To be called at the end of the stream.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        if self.decoder.as_ref().is_none_or(Decoder::is_empty) {
            Ok(())
        } else {
            Err(Failure::new(
                "Error: the container's output was cut off: the connection to the daemon broke",
            ))
        }
    }
}

/// Writes without a buffer of our own, also to descriptors that somebody who shares them made non-blocking.
fn write_all(target: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&target, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                poll(&mut [PollFd::new(&target, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Copies stdin until its end, which is passed on, or until the user detaches, in which case it returns true.
fn copy_input(mut connection: &UnixStream, mut keys: Option<DetachKeys>) -> bool {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; 32 << 10];
    let mut passed_on = Vec::new();
    loop {
        let read = match stdin.read(&mut buffer) {
            // An unreadable stdin has ended as far as the process is concerned.
            Ok(0) | Err(_) => break,
            Ok(read) => &buffer[..read],
        };
        let (bytes, detached) = match &mut keys {
            Some(keys) => {
                passed_on.clear();
                let detached = keys.filter(read, &mut passed_on);
                (passed_on.as_slice(), detached)
            }
            None => (read, false),
        };
        if connection.write_all(bytes).is_err() {
            // The process closed its stdin or ended; the output tells the rest.
            return detached;
        }
        if detached {
            return true;
        }
    }
    // Fails only when the connection is gone already.
    connection.shutdown(Shutdown::Write).ok();
    false
}

/// The keys that detach, and how many of them have been typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    typed: usize,
}

impl Default for DetachKeys {
    /// Ctrl-P, Ctrl-Q.
    fn default() -> Self {
        Self {
            sequence: vec![0x10, 0x11],
            typed: 0,
        }
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = String;

    /// Comma-separated: `a`, `ctrl-a` to `ctrl-z`, `ctrl-@`, `ctrl-[`, `ctrl-\`, `ctrl-]`, `ctrl-^`, `ctrl-_`.
    fn from_str(text: &str) -> Result<Self, String> {
        let key = |name: &str| match name.as_bytes() {
            &[byte] => Some(byte),
            [
                b'c',
                b't',
                b'r',
                b'l',
                b'-',
                key @ (b'a'..=b'z' | b'@' | b'['..=b'_'),
            ] => Some(key.to_ascii_uppercase() - b'@'),
            _ => None,
        };
        let sequence: Option<Vec<u8>> = text.split(',').map(key).collect();
        match sequence {
            Some(sequence) => Ok(Self { sequence, typed: 0 }),
            None => Err("expected keys such as ctrl-p,ctrl-q or ctrl-@ or a".to_owned()),
        }
    }
}

impl DetachKeys {
    /// Appends to `output` what belongs to the process; true when the sequence is complete. Keys that may begin the
    /// sequence are held back until the next key tells.
    fn filter(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        for &byte in input {
            if byte == self.sequence[self.typed] {
                self.typed += 1;
                if self.typed == self.sequence.len() {
                    return true;
                }
                continue;
            }
            output.extend_from_slice(&self.sequence[..self.typed]);
            self.typed = usize::from(byte == self.sequence[0]);
            if self.typed == 0 {
                output.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read_and_found_across_pieces() {
        let keys: DetachKeys = "ctrl-p,ctrl-q".parse().expect("keys");
        assert_eq!(keys, DetachKeys::default());
        assert_eq!(
            "ctrl-@,a".parse::<DetachKeys>().expect("keys").sequence,
            [0, b'a']
        );
        for text in ["", "ctrl-", "ctrl-1", "ab", "a,,b", "alt-x"] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text}");
        }
        let mut keys = keys;
        let mut output = Vec::new();
        assert!(!keys.filter(b"ls\x10", &mut output));
        assert!(!keys.filter(b"x\x10\x10", &mut output));
        assert_eq!(output, b"ls\x10x\x10");
        assert!(keys.filter(b"\x11rest", &mut output));
        assert_eq!(output, b"ls\x10x\x10");
    }
}
