//! How the bytes of a blob come and go: not too slowly, and in chunks that bound what their number says.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::http::{MAX_CHUNK, STALL_TIMEOUT};
use crate::error::{Error, Kind, Result};

/// Bytes that must come in [`STALL_TIMEOUT`].
const LEAST: usize = 4096;

/// Where bytes go, in order.
pub(super) struct Out {
    chunks: mpsc::Sender<Bytes>,
    /// What is gathered before it is sent: a queue of so many chunks holds so many bytes only if they are full, and a
    /// small one may hold on to a large buffer of the connection.
    gathered: Option<BytesMut>,
}

impl Out {
    /// To `chunks`, gathered or as it comes.
    pub(super) fn new(chunks: mpsc::Sender<Bytes>, gather: bool) -> Self {
        Self {
            chunks,
            gathered: gather.then(BytesMut::new),
        }
    }

    /// Sends `data`, or keeps it until there is more.
    ///
    /// # Errors
    ///
    /// `Canceled` when the receiver is gone.
    pub(super) async fn send(&mut self, mut data: Bytes, what: &str) -> Result<()> {
        let Some(gathered) = &mut self.gathered else {
            return hand_on(&self.chunks, data, what).await;
        };
        while !data.is_empty() {
            gathered.reserve(MAX_CHUNK - gathered.len());
            let part = data.split_to(data.len().min(MAX_CHUNK - gathered.len()));
            gathered.extend_from_slice(&part);
            if gathered.len() == MAX_CHUNK {
                hand_on(&self.chunks, std::mem::take(gathered).freeze(), what).await?;
            }
        }
        Ok(())
    }

    /// Sends what is gathered.
    ///
    /// # Errors
    ///
    /// As [`Out::send`].
    pub(super) async fn flush(&mut self, what: &str) -> Result<()> {
        match &mut self.gathered {
            Some(gathered) if !gathered.is_empty() => {
                hand_on(&self.chunks, std::mem::take(gathered).freeze(), what).await
            }
            _ => Ok(()),
        }
    }
}

async fn hand_on(chunks: &mpsc::Sender<Bytes>, data: Bytes, what: &str) -> Result<()> {
    let sent = chunks.send(data).await;
    sent.map_err(|_gone| Error::new(Kind::Canceled, format!("{what}: the receiver is gone")))
}

/// Whether a body comes fast enough: one that drips would hold its slots, which others wait for, for ever.
#[derive(Default)]
pub(super) struct Pace {
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// Waits for the next `data`; only this waiting counts, not that for the disk.
    ///
    /// # Errors
    ///
    /// Those of `data`; `Unavailable` when too little came in the time that nothing may take.
    pub(super) async fn watch(
        &mut self,
        data: impl Future<Output = Result<Option<Bytes>>>,
        what: &str,
    ) -> Result<Option<Bytes>> {
        let start = Instant::now();
        let data = data.await?;
        self.waited += start.elapsed();
        self.bytes += data.as_ref().map_or(0, Bytes::len);
        if self.waited >= STALL_TIMEOUT {
            if self.bytes < LEAST && data.is_some() {
                return Err(Error::unavailable(format!(
                    "{what}: {} bytes in {} seconds",
                    self.bytes,
                    self.waited.as_secs()
                )));
            }
            *self = Self::default();
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_gathered_comes_in_full_chunks() {
        let (sender, mut chunks) = mpsc::channel(100);
        let mut out = Out::new(sender, true);
        let data: Vec<u8> = (0..3 * MAX_CHUNK + 5).map(|index| (index % 251) as u8).collect();
        for chunk in data.chunks(MAX_CHUNK / 3 - 7) {
            out.send(Bytes::copy_from_slice(chunk), "").await.unwrap();
        }
        out.flush("").await.unwrap();
        drop(out);
        let mut sizes = Vec::new();
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            sizes.push(chunk.len());
            all.extend_from_slice(&chunk);
        }
        assert_eq!(sizes, [MAX_CHUNK, MAX_CHUNK, MAX_CHUNK, 5]);
        assert_eq!(all, data);
    }
}
