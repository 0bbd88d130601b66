//! The streams that clients open beside a transfer: progress, credentials, archives.
//!
//! A client opens a stream under an id of its choice and names the id in its request; the operation takes the stream,
//! and it ends when the operation drops it. Archives come in `Data` messages within a window that the receiver grants
//! with `WindowUpdate`s, whichever side that is. A stream that breaks off is an error, never the end of the data.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream::BoxStream};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use wharf_proto::{
    any,
    containerd::types::transfer::{Data, WindowUpdate},
};

use crate::{
    error::{Error, Kind, Result},
    namespace::Scope,
};

/// Streams that may wait to be taken.
const MAX_WAITING: usize = 256;
/// Bytes of an archive that the client may send ahead.
const WINDOW: i32 = 1 << 20;
/// The most bytes of an archive in one message to the client.
const MESSAGE: usize = 64 << 10;
/// How long a client may take to grant what it is expected to grant for the last message.
const LAST_GRANT: Duration = Duration::from_secs(2);
/// Texts that wait for a client.
const TEXTS: usize = 256;
/// Messages of an archive between the connection and the reader.
const IN_FLIGHT: usize = 16;

/// One open stream, both ways.
pub(crate) struct Stream {
    inbound: BoxStream<'static, Result<Any>>,
    outbound: mpsc::Sender<Any>,
}

impl Stream {
    /// A stream that receives from `inbound` and sends to `outbound`.
    pub(crate) fn new(inbound: BoxStream<'static, Result<Any>>, outbound: mpsc::Sender<Any>) -> Self {
        Self { inbound, outbound }
    }

    /// The client's next message; `None` when it closed its side.
    ///
    /// # Errors
    ///
    /// `Unavailable` or what the connection says when it broke.
    pub(crate) async fn receive(&mut self) -> Result<Option<Any>> {
        self.inbound.next().await.transpose()
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// `Canceled` when the client is gone.
    pub(crate) async fn send(&mut self, message: Any) -> Result<()> {
        self.outbound
            .send(message)
            .await
            .map_err(|_gone| Error::new(Kind::Canceled, "the client closed the stream"))
    }
}

/// The open streams that no operation took yet.
#[derive(Default)]
pub(crate) struct Streams {
    waiting: Mutex<HashMap<(String, String), Stream>>,
}

impl Streams {
    /// Keeps `stream` under `id` until it is taken.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` while another one of that id waits; `ResourceExhausted` when too many wait.
    pub(crate) fn register(&self, scope: &Scope, id: &str, stream: Stream) -> Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whose clients went away.
        waiting.retain(|_, stream| !stream.outbound.is_closed());
        let key = (scope.namespace.clone(), id.to_owned());
        if waiting.contains_key(&key) {
            return Err(Error::already_exists(format!("stream {id:?}")));
        }
        if waiting.len() >= MAX_WAITING {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("more than {MAX_WAITING} streams wait"),
            ));
        }
        waiting.insert(key, stream);
        Ok(())
    }

    /// Takes the stream `id`.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub(crate) fn take(&self, scope: &Scope, id: &str) -> Result<Stream> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting
            .remove(&(scope.namespace.clone(), id.to_owned()))
            .ok_or_else(|| Error::not_found(format!("stream {id:?}")))
    }
}

/// Reads the bytes that the client sends over `stream`. The reader blocks: it is for the blocking pool.
pub(crate) fn read_bytes(stream: Stream) -> impl Read + Send {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    tokio::spawn(async move {
        if let Err(error) = forward(stream, &sender).await {
            // A reader that is gone has its own reasons.
            drop(sender.send(Err(error)).await);
        }
    });
    ByteReader {
        receiver,
        current: Bytes::new(),
    }
}

async fn forward(mut stream: Stream, sender: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
    let mut window = 0;
    loop {
        if window <= WINDOW / 2 {
            let grant = WINDOW - window;
            // A client that sent all it had does not read any more; what it sent is still to come.
            drop(stream.send(any::pack(&WindowUpdate { update: grant })).await);
            window += grant;
        }
        let received = tokio::select! {
            received = stream.receive() => received?,
            () = sender.closed() => return Ok(()),
        };
        let Some(message) = received else { return Ok(()) };
        let data = any::unpack::<Data>(&message)
            .map_err(|error| Error::invalid("malformed message on a stream").caused_by(error))?
            .ok_or_else(|| Error::invalid(format!("a stream of data got {:?}", message.type_url)))?;
        window -= i32::try_from(data.data.len()).unwrap_or(i32::MAX).min(window);
        if sender.send(Ok(data.data.into())).await.is_err() {
            return Ok(());
        }
    }
}

struct ByteReader {
    receiver: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
}

impl Read for ByteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Writes bytes to the client of `stream` within the windows that it grants. The writer blocks: it is for the blocking
/// pool. The task ends when the writer is dropped and all was handed to the connection, or says why that cannot be.
pub(super) fn write_bytes(stream: Stream) -> (impl Write + Send, AbortOnDropHandle<Result<()>>) {
    let (sender, receiver) = mpsc::channel(1);
    let task = tokio::spawn(send(stream, receiver));
    let writer = ByteWriter {
        sender,
        pending: Vec::new(),
    };
    (writer, AbortOnDropHandle::new(task))
}

/// Sends texts to the client of `stream` as it takes them, and no more than a few ahead of it. Ends when the sender is gone.
pub(crate) fn write_texts(stream: Stream) -> mpsc::Sender<Bytes> {
    let (sender, receiver) = mpsc::channel(TEXTS);
    tokio::spawn(async move {
        if let Err(error) = send(stream, receiver).await {
            tracing::debug!(%error, "texts for a client");
        }
    });
    sender
}

async fn send(mut stream: Stream, mut receiver: mpsc::Receiver<Bytes>) -> Result<()> {
    let mut window: i64 = 0;
    while let Some(mut bytes) = receiver.recv().await {
        while !bytes.is_empty() {
            while window <= 0 {
                let message = stream.receive().await?.ok_or_else(|| {
                    Error::new(Kind::Canceled, "the client closed the stream of the archive")
                })?;
                let update = any::unpack::<WindowUpdate>(&message)
                    .map_err(|error| Error::invalid("malformed message on a stream").caused_by(error))?
                    .ok_or_else(|| {
                        Error::invalid(format!("a stream of data was answered by {:?}", message.type_url))
                    })?;
                window += i64::from(update.update.max(0));
            }
            let most = usize::try_from(window).unwrap_or(MESSAGE).min(MESSAGE);
            let data = bytes.split_to(most.min(bytes.len()));
            window -= data.len() as i64;
            let message = any::pack(&Data { data: data.to_vec() });
            stream.send(message).await?;
        }
    }
    // containerd's clients end the file when the call is answered, even while they still write what came before. They
    // keep a window of 64 KiB open, so that one more grant says that they took the last message.
    if window < MESSAGE as i64 {
        drop(tokio::time::timeout(LAST_GRANT, stream.receive()).await);
    }
    Ok(())
}

/// Collects what is written into messages of one size.
struct ByteWriter {
    sender: mpsc::Sender<Bytes>,
    pending: Vec<u8>,
}

impl Write for ByteWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(MESSAGE - self.pending.len());
        self.pending.extend_from_slice(&bytes[..count]);
        if self.pending.len() == MESSAGE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        self.sender
            .blocking_send(bytes)
            .map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(messages: Vec<Result<Any>>) -> (Stream, mpsc::Receiver<Any>) {
        let (outbound, receiver) = mpsc::channel(100);
        (
            Stream::new(futures_util::stream::iter(messages).boxed(), outbound),
            receiver,
        )
    }

    fn data(bytes: &[u8]) -> Result<Any> {
        Ok(any::pack(&Data { data: bytes.into() }))
    }

    async fn read(stream: Stream) -> io::Result<Vec<u8>> {
        let mut reader = read_bytes(stream);
        tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_count| all)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn data_arrives_within_the_window() {
        let (stream, mut sent) = stream(vec![data(b"one"), data(&[]), data(b"two")]);
        assert_eq!(read(stream).await.unwrap(), b"onetwo");
        let update: WindowUpdate = any::unpack(&sent.recv().await.unwrap()).unwrap().unwrap();
        assert_eq!(update.update, WINDOW);
    }

    #[tokio::test]
    async fn a_broken_stream_is_not_an_end() {
        let (stream, _sent) = stream(vec![data(b"one"), Err(Error::unavailable("gone"))]);
        assert!(read(stream).await.is_err());
    }

    #[tokio::test]
    async fn no_more_is_sent_than_the_client_has_room_for() {
        let grants = [40_000, 0, -5, 60_000].map(|update| Ok(any::pack(&WindowUpdate { update })));
        let (stream, mut sent) = stream(grants.into());
        let (mut writer, task) = write_bytes(stream);
        let written = tokio::task::spawn_blocking(move || {
            writer.write_all(&vec![7; 90_000])?;
            writer.flush()
        });
        written.await.unwrap().unwrap();
        task.await.unwrap().unwrap();
        let mut sizes = Vec::new();
        while let Some(message) = sent.recv().await {
            sizes.push(any::unpack::<Data>(&message).unwrap().unwrap().data.len());
        }
        assert_eq!(sizes.iter().sum::<usize>(), 90_000);
        assert_eq!(sizes[0], 40_000);
    }

    #[tokio::test]
    async fn a_client_that_grants_no_more_ends_the_writer() {
        let grant = any::pack(&WindowUpdate { update: 10 });
        let (stream, _sent) = stream(vec![Ok(grant)]);
        let (mut writer, task) = write_bytes(stream);
        let written = tokio::task::spawn_blocking(move || writer.write_all(&vec![7; 1 << 20]));
        assert!(written.await.unwrap().is_err());
        assert_eq!(task.await.unwrap().unwrap_err().kind(), Kind::Canceled);
    }

    #[tokio::test]
    async fn a_stream_is_taken_once_and_only_in_its_namespace() {
        let streams = Streams::default();
        let scope = Scope::new("a");
        let (first, gone) = stream(Vec::new());
        streams.register(&scope, "id", first).unwrap();
        let (second, _client) = stream(Vec::new());
        assert!(
            streams
                .register(&scope, "id", second)
                .unwrap_err()
                .is_already_exists()
        );
        drop(gone);
        let (third, _client) = stream(Vec::new());
        streams.register(&scope, "id", third).unwrap();
        assert!(streams.take(&Scope::new("b"), "id").is_err());
        streams.take(&scope, "id").unwrap();
        assert!(streams.take(&scope, "id").err().unwrap().is_not_found());
    }
}
