//! Copying between a process and its client, with bounded memory and back-pressure.
//!
//! A [`Stream`] has one source and one sink. Bytes are read into a buffer that all streams share; what the sink does
//! not take at once is kept (at most one read), and the source is not read again, nor even watched, until it has been
//! taken. So a slow reader slows the process down, as a pipe would, and an idle stream costs no buffer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::{Errno, ioctl_fionread, read, write};

use super::fifo::{Tap, Writer};
use super::json_file::LogStream;
use super::unread::Unread;
use crate::reactor::{Interest, Reactor, Token};

/// Bytes in one read.
const READ: usize = 32 << 10;

/// Reads for one readiness, so that no stream starves the others.
const TURNS: usize = 4;

/// Where a stream's bytes go.
pub enum Sink {
    /// A client's FIFO.
    Fifo(Writer),
    /// A file; taken to be always ready.
    File(File),
    /// The container log, and whoever follows it.
    Log(LogStream, Option<Tap>),
    /// A process's standard input.
    Pipe(OwnedFd),
    /// A terminal's master, for input.
    Terminal(OwnedFd),
}

/// What one push to a sink came to.
enum Push {
    /// So many bytes were taken.
    Taken(usize),
    /// No room now.
    Full,
    /// Nobody will take anything any more.
    Broken,
}

impl Sink {
    /// The descriptor that tells when there is room again.
    fn fd(&self) -> Option<&OwnedFd> {
        match self {
            Sink::Fifo(writer) => Some(writer.fd()),
            Sink::Pipe(fd) | Sink::Terminal(fd) => Some(fd),
            Sink::Log(_, tap) => tap.as_ref().and_then(Tap::opened),
            Sink::File(_) => None,
        }
    }

    fn push(&mut self, bytes: &[u8], trouble: &mut Option<io::Error>) -> Push {
        let fd = match self {
            Sink::Fifo(writer) => writer.fd(),
            Sink::Pipe(fd) | Sink::Terminal(fd) => &*fd,
            Sink::File(file) => {
                // A full disk costs the bytes, not the process.
                if let Err(error) = file.write_all(bytes) {
                    *trouble = Some(error);
                }
                return Push::Taken(bytes.len());
            }
            Sink::Log(_, None) => return Push::Taken(bytes.len()),
            Sink::Log(_, Some(tap)) => match tap.writer() {
                None => return Push::Taken(bytes.len()),
                Some(fd) => match write(fd, bytes) {
                    Ok(count) => return Push::Taken(count),
                    Err(Errno::AGAIN) => return Push::Full,
                    Err(_) => {
                        tap.lost();
                        return Push::Taken(bytes.len());
                    }
                },
            },
        };
        match write(fd, bytes) {
            Ok(count) => Push::Taken(count),
            Err(Errno::AGAIN) => Push::Full,
            Err(Errno::INTR) => Push::Taken(0),
            Err(_) => Push::Broken,
        }
    }
}

/// See the module.
pub struct Stream {
    source: OwnedFd,
    sink: Sink,
    pending: Vec<u8>,
    /// The process whose stream it is.
    owner: u32,
    /// Whether the exit of the process waits for it.
    is_output: bool,
    is_terminal: bool,
    watching_source: bool,
    watching_sink: bool,
    /// After the process's exit: the bytes it had written that are not read yet.
    left: Option<u64>,
    /// A failure that costs bytes but not the stream, to be logged.
    trouble: Option<io::Error>,
}

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anybody waits for.
    None,
    /// It ended, or all that the process wrote before its exit has been handed on.
    Settled {
        /// Whose stream it is.
        owner: u32,
    },
}

/// All streams of the shim.
#[derive(Default)]
pub struct Streams {
    streams: BTreeMap<u32, Stream>,
    next: u32,
    scratch: Vec<u8>,
    trouble: Option<io::Error>,
    unread: Unread,
}

impl Streams {
    /// Starts copying from `source` (non-blocking) to `sink` for the process `owner`.
    ///
    /// # Errors
    ///
    /// The source cannot be watched.
    pub fn start(
        &mut self,
        reactor: &Reactor,
        owner: u32,
        source: OwnedFd,
        sink: Sink,
        is_output: bool,
        is_terminal: bool,
    ) -> io::Result<u32> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        reactor.add(&source, Token::Source(id), Interest::Read)?;
        let stream = Stream {
            source,
            sink,
            pending: Vec::new(),
            owner,
            is_output,
            is_terminal,
            watching_source: true,
            watching_sink: false,
            left: None,
            trouble: None,
        };
        self.streams.insert(id, stream);
        Ok(id)
    }

    /// One of the stream's ends is ready: copies what can be copied.
    pub fn advance(&mut self, reactor: &Reactor, id: u32) -> Change {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Change::None;
        };
        self.scratch.resize(READ, 0);
        let alive = stream.pump(&mut self.scratch);
        let settled = !alive || stream.is_settled();
        let owner = stream.owner;
        if alive {
            stream.watch(reactor, id);
        }
        self.trouble = stream.trouble.take().or(self.trouble.take());
        if !alive {
            self.end(reactor, id);
        }
        if settled {
            Change::Settled { owner }
        } else {
            Change::None
        }
    }

    /// The process has exited: counts what it has written, so that [`Streams::is_settled`] can tell when that is out.
    pub fn expect_end(&mut self, reactor: &Reactor, owner: u32) {
        let ids: Vec<u32> = self.of(owner);
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            if !stream.is_output {
                self.end(reactor, id);
                continue;
            }
            stream.left = Some(ioctl_fionread(&stream.source).unwrap_or(0));
            self.advance(reactor, id);
        }
    }

    /// Whether all output that the process wrote before its exit has been handed on.
    pub fn is_settled(&self, owner: u32) -> bool {
        self.streams
            .values()
            .all(|stream| stream.owner != owner || stream.is_settled())
    }

    /// Whether no output waits for a client to read it; what a terminal may still bring does not count.
    pub fn is_handed_on(&self, owner: u32) -> bool {
        self.streams
            .values()
            .filter(|stream| stream.owner == owner && stream.is_output)
            .all(|stream| stream.pending.is_empty() && (stream.is_terminal || stream.left.unwrap_or(0) == 0))
    }

    /// Whether no output waits in a FIFO, either, for a client that is there or has not come yet. To be asked after
    /// [`Streams::release`].
    pub fn is_taken(&self, owner: u32) -> bool {
        self.is_handed_on(owner)
            && !self.unread.holds(owner)
            && !self
                .streams
                .values()
                .any(|stream| stream.owner == owner && stream.is_unread())
    }

    /// How long to wait before [`Streams::ask_readers`], once for each; `None` when nobody is waited for.
    pub fn reader_pause(&mut self) -> Option<Duration> {
        let open = self
            .streams
            .values()
            .any(|stream| stream.left.is_some() && stream.is_unread());
        self.unread.pause(open)
    }

    /// Looks whether readers have come that were not there in time.
    pub fn ask_readers(&mut self) {
        self.unread.ask();
    }

    /// The client may be gone: output that only a dead client would read is given up.
    pub fn release(&mut self, reactor: &Reactor, owner: u32) {
        for id in self.of(owner) {
            if let Some(Stream {
                sink: Sink::Fifo(writer),
                ..
            }) = self.streams.get_mut(&id)
                && !writer.is_unmet()
            {
                writer.release();
            }
            self.advance(reactor, id);
        }
    }

    /// Ends all streams of a process. Unfinished lines of a log are written.
    pub fn end_all(&mut self, reactor: &Reactor, owner: u32) {
        for id in self.of(owner) {
            self.end(reactor, id);
        }
    }

    /// The same for a process that nobody asks for any more: what its client has not come to read is given up.
    pub fn close_all(&mut self, reactor: &Reactor, owner: u32) {
        self.end_all(reactor, owner);
        self.unread.drop_all(owner);
    }

    /// The latest failure that cost output, once.
    pub fn take_trouble(&mut self) -> Option<io::Error> {
        self.trouble.take()
    }

    fn of(&self, owner: u32) -> Vec<u32> {
        self.streams
            .iter()
            .filter(|(_, stream)| stream.owner == owner)
            .map(|(id, _)| *id)
            .collect()
    }

    fn end(&mut self, reactor: &Reactor, id: u32) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        if stream.watching_source {
            reactor.remove(&stream.source);
        }
        if stream.watching_sink
            && let Some(fd) = stream.sink.fd()
        {
            reactor.remove(fd);
        }
        if let Sink::Log(log, _) = &mut stream.sink
            && let Err(error) = log.flush()
        {
            self.trouble = Some(error);
        }
        if let Sink::Fifo(writer) = stream.sink {
            self.unread.end(stream.owner, writer);
        }
        if self.streams.is_empty() {
            self.scratch = Vec::new();
        }
    }
}

impl Stream {
    /// Copies until the source is empty, the sink is full, or the turn is over; false when the stream has ended.
    fn pump(&mut self, scratch: &mut [u8]) -> bool {
        for _ in 0..TURNS {
            while !self.pending.is_empty() {
                match self.sink.push(&self.pending, &mut self.trouble) {
                    Push::Taken(count) => {
                        self.pending.drain(..count);
                    }
                    Push::Full => return true,
                    Push::Broken => return false,
                }
            }
            self.pending = Vec::new();
            let count = match read(&self.source, &mut *scratch) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(Errno::AGAIN) => {
                    // A pipe's count was exact; that it is empty is more exact.
                    if !self.is_terminal && self.left.is_some() {
                        self.left = Some(0);
                    }
                    return true;
                }
                Err(Errno::INTR) => continue,
                // EIO is how a terminal says that its last user is gone.
                Err(_) => return false,
            };
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(count as u64);
            }
            self.hand_on(&scratch[..count]);
            if !self.pending.is_empty() {
                return true;
            }
        }
        true
    }

    fn hand_on(&mut self, bytes: &[u8]) {
        if let Sink::Log(log, _) = &mut self.sink {
            // The log is the container's, not the reader's: an entry that cannot be written is lost, and the process
            // goes on.
            if let Err(error) = log.write(bytes) {
                self.trouble = Some(error);
            }
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.sink.push(rest, &mut self.trouble) {
                Push::Taken(count) => rest = &rest[count..],
                // A broken sink is seen again, and acted upon, when the pending bytes are pushed.
                Push::Full | Push::Broken => break,
            }
        }
        self.pending.extend_from_slice(rest);
    }

    /// Whether bytes wait in a FIFO for a reader who is there, or has not come yet.
    fn is_unread(&self) -> bool {
        matches!(&self.sink, Sink::Fifo(writer) if writer.unread() > 0 && (writer.is_unmet() || !writer.is_alone()))
    }

    fn is_settled(&self) -> bool {
        // What a terminal holds is not countable; its end is.
        !self.is_output || (!self.is_terminal && self.left == Some(0) && self.pending.is_empty())
    }

    /// Watches the end that has to become ready next.
    fn watch(&mut self, reactor: &Reactor, id: u32) {
        let blocked = !self.pending.is_empty();
        if self.watching_source == blocked {
            if blocked {
                reactor.remove(&self.source);
                self.watching_source = false;
            } else {
                match reactor.add(&self.source, Token::Source(id), Interest::Read) {
                    Ok(()) => self.watching_source = true,
                    Err(error) => self.trouble = Some(error),
                }
            }
        }
        match self.sink.fd() {
            // A tap may have a new descriptor each time; one that is watched already is no error.
            Some(fd) if blocked => {
                self.watching_sink = true;
                if let Err(error) = reactor.add(fd, Token::Sink(id), Interest::Write)
                    && error.kind() != io::ErrorKind::AlreadyExists
                {
                    self.watching_sink = false;
                    self.trouble = Some(error);
                }
            }
            Some(fd) if self.watching_sink => {
                reactor.remove(fd);
                self.watching_sink = false;
            }
            _ => self.watching_sink = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::fd::AsFd;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap()
    }

    fn drain(fd: impl AsFd) -> usize {
        let mut buffer = [0; 4096];
        let mut total = 0;
        while let Ok(count) = read(&fd, &mut buffer) {
            if count == 0 {
                break;
            }
            total += count;
        }
        total
    }

    #[test]
    fn a_full_sink_stops_the_reading_and_nothing_is_lost() {
        let reactor = Reactor::new().unwrap();
        let mut streams = Streams::default();
        let (source, process) = pipe();
        let (client, sink) = pipe();
        let id = streams
            .start(&reactor, 1, source, Sink::Pipe(sink), true, false)
            .unwrap();
        let mut written = 0;
        // Far more than the pipes and the stream can hold together.
        for _ in 0..100 {
            if let Ok(count) = write(&process, &[7; 16 << 10]) {
                written += count;
            }
            streams.advance(&reactor, id);
        }
        assert!(written < 100 * (16 << 10), "the process was never slowed down");
        assert!(streams.streams[&id].pending.len() <= READ);
        drop(process);
        let mut got = 0;
        while streams.streams.contains_key(&id) {
            got += drain(&client);
            streams.advance(&reactor, id);
        }
        assert_eq!(got + drain(&client), written);
    }

    #[test]
    fn output_settles_when_what_was_written_before_the_exit_is_out() {
        let reactor = Reactor::new().unwrap();
        let mut streams = Streams::default();
        let (source, process) = pipe();
        let (client, sink) = pipe();
        streams
            .start(&reactor, 1, source, Sink::Pipe(sink), true, false)
            .unwrap();
        write(&process, b"last words").unwrap();
        assert!(!streams.is_settled(1));
        streams.expect_end(&reactor, 1);
        // `process` is still open, as a background child's copy would be.
        assert!(streams.is_settled(1));
        assert_eq!(drain(&client), 10);
    }

    #[test]
    fn the_end_of_the_source_ends_the_stream_and_closes_the_sink() {
        let reactor = Reactor::new().unwrap();
        let mut streams = Streams::default();
        let (source, process) = pipe();
        let (client, sink) = pipe();
        let id = streams
            .start(&reactor, 4, source, Sink::Pipe(sink), true, false)
            .unwrap();
        drop(process);
        assert_eq!(streams.advance(&reactor, id), Change::Settled { owner: 4 });
        assert_eq!(read(&client, &mut [0; 1]), Ok(0));
    }
}
