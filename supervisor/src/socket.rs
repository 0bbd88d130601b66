//! Connected unix sockets that are watched for what arrives; for room only while there is none.
//!
//! tokio's own are watched for both, so the kernel wakes a thread of the daemon whenever the other end has read: after each
//! message, and for nothing. Refuses nothing: who may connect is looked at before.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags, Shutdown, shutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::UnixStream,
};

use crate::sys;

/// Not waited for, and no signal for a connection that is lost.
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// More pieces than that the kernel does not take at once.
const PIECES: usize = 64;

/// A connection.
#[derive(Debug)]
pub struct Socket {
    stream: AsyncFd<OwnedFd>,
    /// While the other end has to read before more can be written.
    room: Option<Room>,
}

/// Tells when there is room in a socket.
#[derive(Debug)]
pub struct Room(AsyncFd<OwnedFd>);

impl Room {
    /// Waits until there may be room, and writes by `write`, until that finds some.
    ///
    /// # Errors
    ///
    /// Those of `write`, but for `WouldBlock`.
    pub async fn write(&self, mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            match write() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                written => return written,
            }
        }
    }
}

impl Socket {
    /// Watches `stream`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENOSPC`: it cannot be watched.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self {
            stream: sys::watch(stream.into_std()?.into(), Interest::READABLE)?,
            room: None,
        })
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    ///
    /// `WouldBlock` without room; those of `send(2)`.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.stream.get_ref(), bytes, SEND)?)
    }

    /// Watches for room.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENOMEM`, `ENOSPC`: it cannot be watched.
    pub fn room(&self) -> io::Result<Room> {
        // The same file cannot be watched twice under one number.
        let second = self.stream.get_ref().try_clone()?;
        Ok(Room(sys::watch(second, Interest::WRITABLE)?))
    }

    /// Ends the connection in both directions.
    ///
    /// # Errors
    ///
    /// `NotConnected` when it has ended.
    pub fn shut_down(&self) -> io::Result<()> {
        Ok(shutdown(self.stream.get_ref(), Shutdown::Both)?)
    }

    fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.stream.poll_read_ready(context))?;
            let wanted = buffer.remaining();
            match sys::receive(ready.get_inner().as_fd(), buffer) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(received) => {
                    // That was all there is: whatever comes is told.
                    if 0 < received && received < wanted {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        send: impl Fn(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let room = match &self.room {
            Some(room) => room,
            None => match send(self.stream.get_ref()) {
                Err(Errno::AGAIN) => {
                    let room = self.room()?;
                    self.room.insert(room)
                }
                sent => return Poll::Ready(sent.map_err(Into::into)),
            },
        };
        loop {
            let mut ready = ready!(room.0.poll_write_ready(context))?;
            match send(self.stream.get_ref()) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                sent => {
                    self.room = None;
                    return Poll::Ready(sent.map_err(Into::into));
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_receive(context, buffer)
    }
}

impl AsyncRead for &Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_receive(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |stream| rustix::net::send(stream, bytes, SEND))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let pieces = &pieces[..pieces.len().min(PIECES)];
        self.poll_send(context, |stream| {
            rustix::net::sendmsg(stream, pieces, &mut SendAncillaryBuffer::default(), SEND)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(self.stream.get_ref(), Shutdown::Write).map_err(Into::into))
    }
}

impl tonic::transport::server::Connected for Socket {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pair() -> (Socket, Socket) {
        let (one, other) = UnixStream::pair().unwrap();
        (Socket::new(one).unwrap(), Socket::new(other).unwrap())
    }

    #[tokio::test]
    async fn more_than_there_is_room_for_arrives_whole() {
        let (mut one, mut other) = pair();
        let sent: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let write = async move {
            one.write_all(&sent).await.unwrap();
            assert!(one.room.is_none());
            one.shutdown().await.unwrap();
        };
        let read = async move {
            let mut received = Vec::new();
            other.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(write, read);
        assert!(received == expected);
    }

    #[tokio::test]
    async fn a_reader_waits_for_each_piece() {
        let (one, other) = pair();
        for piece in [&b"a"[..], b"bc", b"d"] {
            let mut buffer = Vec::with_capacity(64);
            let mut reader = &other;
            let (read, written) = tokio::join!(reader.read_buf(&mut buffer), async { one.try_write(piece) });
            assert_eq!((read.unwrap(), written.unwrap()), (piece.len(), piece.len()));
            assert_eq!(buffer, piece);
        }
        drop(one);
        assert_eq!((&other).read_buf(&mut Vec::with_capacity(8)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn room_is_told_when_the_other_end_has_read() {
        let (one, mut other) = pair();
        let chunk = [7; 64 << 10];
        let mut sent = 0;
        while let Ok(written) = one.try_write(&chunk) {
            sent += written;
        }
        let room = one.room().unwrap();
        let read = async {
            let mut received = vec![0; sent];
            other.read_exact(&mut received).await.unwrap();
        };
        let (written, ()) = tokio::join!(room.write(|| one.try_write(b"more")), read);
        assert_eq!(written.unwrap(), 4);
    }
}
