//! What shims have to say: the FIFO `log` of each bundle, copied to the daemon's log.

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use super::bundle::Bundle;
use super::shim::Shim;
use crate::error::{Error, Result};

/// Longer lines are cut into pieces of this many bytes.
const LINE: usize = 8 << 10;

/// Opens the FIFO for reading, before the shim is started: it opens the other end and needs somebody here.
///
/// # Errors
///
/// `Unknown`: there is no FIFO.
pub fn open(bundle: &Bundle) -> Result<pipe::Receiver> {
    let path = bundle.path().join("log");
    pipe::OpenOptions::new()
        // Writable as well, so that reading does not end while no shim has it open.
        .read_write(true)
        .open_receiver(&path)
        .map_err(|error| Error::io(format!("open {}", path.display()), error))
}

/// Copies what the shim writes until its connection ends.
pub fn follow(log: pipe::Receiver, namespace: &str, id: &str, shim: &Shim) {
    let (namespace, id) = (namespace.to_owned(), id.to_owned());
    let closed = shim.on_closed();
    tokio::spawn(async move {
        let mut lines = BufReader::with_capacity(LINE, log);
        let copy = async {
            loop {
                match lines.fill_buf().await {
                    Ok([]) => return,
                    Ok(available) => {
                        let taken = available
                            .iter()
                            .position(|&byte| byte == b'\n')
                            .map_or(available.len(), |end| end + 1);
                        let line = String::from_utf8_lossy(&available[..taken]);
                        let said = line.trim_end();
                        if !said.is_empty() {
                            tracing::debug!(namespace, container_id = id, said, "shim");
                        }
                        lines.consume(taken);
                    }
                    Err(error) => {
                        tracing::warn!(namespace, container_id = id, %error, "read the shim's log");
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = copy => {}
            () = closed.cancelled() => {}
        }
    });
}
