//! Calls by the name of their method, with any bytes as messages.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio_stream::StreamExt;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long a stream that has not ended is listened to: the refusal of bad input takes milliseconds.
const OPEN: Duration = Duration::from_secs(2);

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ended with this code.
    Ended(Code),
    /// It goes on.
    Open,
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A channel to `socket`; it connects when it is used.
pub(crate) fn channel(socket: &Path) -> Channel {
    Endpoint::try_from(format!("unix://{}", socket.display()))
        .expect("a unix address")
        .connect_timeout(Duration::from_secs(10))
        // containerd quotes what it was sent, however long, in a header.
        .http2_max_header_list_size(1 << 20)
        .connect_lazy()
}

/// Sends `messages` to `method` (`package.Service/Method`) in one stream, which is all that a unary call is on the wire, and
/// reads the answers to their end. Gives the status' text as well.
pub(crate) async fn call(
    channel: &Channel,
    method: &str,
    headers: &[(&'static str, String)],
    messages: Vec<Bytes>,
) -> (Outcome, String) {
    let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    client.ready().await.expect("a connection");
    let mut request = Request::new(tokio_stream::iter(messages));
    for (name, value) in headers {
        let value = value.parse().expect("a value of a header");
        request.metadata_mut().insert(*name, value);
    }
    let path = format!("/{method}").parse().expect("a path");
    let answered = async {
        let mut answers = client.streaming(request, path, Raw).await?.into_inner();
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok::<(), Status>(())
    };
    match tokio::time::timeout(OPEN, answered).await {
        Ok(Ok(())) => (Outcome::Ended(Code::Ok), String::new()),
        Ok(Err(status)) => (Outcome::Ended(status.code()), status.message().to_owned()),
        Err(_elapsed) => (Outcome::Open, String::new()),
    }
}
