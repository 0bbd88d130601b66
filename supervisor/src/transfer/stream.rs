//! The streams that clients open beside a transfer: progress, credentials, archives.
//!
//! A client opens a stream under an id of its choice and names the id in its request; the operation takes the stream,
//! and it ends when the operation drops it. Archives come in `Data` messages within a window that the receiver grants
//! with `WindowUpdate`s. A stream that breaks off is an error, never the end of the data.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Mutex, PoisonError},
};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream::BoxStream};
use prost_types::Any;
use tokio::sync::mpsc;
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
